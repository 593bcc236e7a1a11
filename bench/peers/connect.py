"""Kafka Connect, standalone, with Iceberg's own sink: settings, command, and when it began to read.

Confluent's Avro converter is not on Maven Central, so Apicurio's reads Confluent's framing. It knows no
``timestamp-micros``, and the sink takes a number for milliseconds: times stay bigint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.peers.table import CATALOG, NAME, NAMESPACE, warehouse_uri
from k2beam.stack.jars import ensure_jars
from k2beam.stack.java import ensure_java
from k2beam.stack.server import HOST, free_ports

LOCK = Path(__file__).with_name("peers.lock")
COMMIT_MS = 5_000
"""k2beam's live job commits every 10 s, and the sink every 300 s by default."""
TASKS = 2

_HEAP = ("-Xms256m", "-Xmx2g")
_LOG = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
)


def control_topic(warehouse: Path) -> str:
    """Where the sink's tasks and its coordinator talk: one of its own for each run, as is the consumer group."""
    return f"control-{warehouse.name}"


def fetch() -> tuple[Path, str]:
    """Java, and the class path. Raises PlatformError where they can't be had."""
    return ensure_java(17, 25), ":".join(str(jar) for jar in ensure_jars("connect", LOCK))


def command(bootstrap: str, registry: str, topic: str, warehouse: Path) -> list[str]:
    """The worker and its only connector; their files are in the folder of the warehouse."""
    java, path = fetch()
    folder = warehouse / "connect"
    folder.mkdir(parents=True, exist_ok=True)
    worker, sink = folder / "worker.properties", folder / "sink.properties"
    worker.write_text(_properties(_worker(folder, bootstrap)), encoding="utf-8")
    sink.write_text(_properties(_sink(bootstrap, registry, topic, warehouse)), encoding="utf-8")
    program = "org.apache.kafka.connect.cli.ConnectStandalone"
    return [str(java), *_HEAP, *_LOG, "-cp", path, program, str(worker), str(sink)]


def _worker(folder: Path, bootstrap: str) -> Mapping[str, object]:
    (port,) = free_ports(("rest",)).values()
    return {
        "bootstrap.servers": bootstrap,
        "listeners": f"http://{HOST}:{port}",
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.converters.ByteArrayConverter",
        "offset.storage.file.filename": folder / "offsets",
        # A task that has nothing to read is called when this is over, and only then answers the sink's coordinator:
        # by default each commit at the end of a backlog would wait a minute.
        "offset.flush.interval.ms": 1_000,
        "plugin.discovery": "service_load",
    }


def _sink(bootstrap: str, registry: str, topic: str, warehouse: Path) -> Mapping[str, object]:
    return {
        "name": warehouse.name,
        "connector.class": "org.apache.iceberg.connect.IcebergSinkConnector",
        "tasks.max": TASKS,
        "topics": topic,
        "consumer.override.auto.offset.reset": "earliest",
        "value.converter": "io.apicurio.registry.utils.converter.AvroConverter",
        "value.converter.apicurio.registry.url": f"{registry.partition('/apis/')[0]}/apis/registry/v2",
        "value.converter.apicurio.registry.as-confluent": "true",
        "value.converter.apicurio.registry.use-id": "contentId",
        "iceberg.tables": f"{NAMESPACE}.{NAME}",
        "iceberg.catalog": CATALOG,
        "iceberg.catalog.type": "jdbc",
        "iceberg.catalog.uri": f"jdbc:sqlite:{warehouse / 'catalog.db'}?busy_timeout=60000",
        "iceberg.catalog.warehouse": warehouse_uri(warehouse),
        "iceberg.kafka.bootstrap.servers": bootstrap,
        "iceberg.control.topic": control_topic(warehouse),
        "iceberg.control.commit.interval-ms": COMMIT_MS,
    }


def _properties(settings: Mapping[str, object]) -> str:
    return "".join(f"{name}={value}\n" for name, value in settings.items())
