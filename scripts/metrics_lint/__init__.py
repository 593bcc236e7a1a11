"""Checks each call of a metric against k2beam.metrics.registry, by reading the source."""
