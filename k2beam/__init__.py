"""k2beam: market data from Kafka or archives through Apache Beam into Apache Iceberg."""

__version__ = "0.1.0"
