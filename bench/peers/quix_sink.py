"""Quix Streams with its own Iceberg sink. Runs in an environment of its own: imports nothing of k2beam.

``python quix_sink.py BOOTSTRAP REGISTRY TOPIC WAREHOUSE CATALOG TABLE`` runs until SIGTERM. The sink knows no catalog
but AWS Glue, so that it's given pyiceberg's one in SQL here. It takes no nested values, so lists and maps become JSON,
and no field that is null in all of a batch, so nulls are left out.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import PartitionSpec
from quixstreams import Application
from quixstreams.models import SchemaRegistryClientConfig
from quixstreams.models.serializers.avro import AvroDeserializer
from quixstreams.sinks.community import iceberg

COMMIT_SECONDS = 5.0
"""Quix's own default."""


class SqlConfig(iceberg.BaseIcebergConfig):
    """What :class:`SqlCatalog` needs in the place of Glue's region and keys."""

    def __init__(self, warehouse: str) -> None:
        super().__init__(
            location=f"file://{warehouse}/trades",
            auth={"uri": f"sqlite:///{warehouse}/catalog.db", "warehouse": f"file://{warehouse}"},
        )


def flat(trade: dict[str, object]) -> dict[str, object]:
    """A trade without nulls and nested values."""
    trade["trade_conditions"] = json.dumps(trade["trade_conditions"])
    trade["vendor_data"] = json.dumps(trade["vendor_data"])
    if trade["platform_sequence"] is None:
        del trade["platform_sequence"]
    return trade


def main() -> None:
    bootstrap, registry, topic, warehouse, catalog, table = sys.argv[1:]
    iceberg._import_data_catalog = lambda _: lambda name, **settings: SqlCatalog(catalog, **settings)
    schema = SqlCatalog(catalog, **SqlConfig(warehouse).auth).load_table(table).schema()
    sink = iceberg.IcebergSink(table, SqlConfig(warehouse), "aws_glue", schema, PartitionSpec())
    application = Application(
        broker_address=bootstrap,
        consumer_group=f"quix-{warehouse}",
        auto_offset_reset="earliest",
        commit_interval=COMMIT_SECONDS,
        auto_create_topics=False,
        state_dir=f"{warehouse}/state",
    )
    decode = AvroDeserializer(schema_registry_client_config=SchemaRegistryClientConfig(url=registry))
    trades = application.dataframe(application.topic(topic, value_deserializer=decode))
    trades.apply(flat).sink(sink)
    # As k2beam's reader says it.
    print(json.dumps({"event": "reading begins", "timestamp": datetime.now(UTC).isoformat()}), file=sys.stderr)
    application.run()


if __name__ == "__main__":
    main()
