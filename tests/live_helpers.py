"""Messages of the samples in a real Kafka, and whole runs of the live job over them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from k2beam.archive import ArchiveLimits, ArchiveReader, plan_archive
from k2beam.ingest.stats import IngestStats
from k2beam.kafka.cluster import Cluster
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.count import count_topics
from k2beam.kafka.holes import HoleProbe
from k2beam.lake.audit import audit
from k2beam.lake.catalog import NAMESPACE, open_catalog
from k2beam.lake.commit import read_coverage
from k2beam.lake.expectation import SourceFile
from k2beam.live import LiveConfig, run_live
from k2beam.model import RawBatch
from k2beam.options import IngestConfig
from k2beam.platform.stack import LocalStack
from k2beam.registry.resolver import RegistryResolver
from tests.lake_helpers import lake_config, write_config

SAMPLE_IDS = {1: "trade_v2", 2: "quote_v2"}
"""Schema ids in the simulated archives."""


def register(stack: LocalStack) -> dict[int, int]:
    """Register the schemas of the simulator; gives the registry's id for each of the simulator's."""
    from k2beam.schemas import avro_schema

    client = SchemaRegistryClient({"url": stack.registry_url})
    import json

    return {
        ours: client.register_schema(f"live-{name}", Schema(json.dumps(avro_schema(name)), "AVRO"))
        for ours, name in SAMPLE_IDS.items()
    }


def rows_of(folder: Path) -> Iterator[dict[str, Any]]:
    """The messages of raw_record containers, in the order of each partition's offsets."""
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.avro")):
        for chunk in plan_archive(str(path)).chunks:
            for batch in ArchiveReader(ArchiveLimits(), 50_000, 16 << 20).read(chunk):
                assert isinstance(batch, RawBatch)
                micros = batch.data.column("timestamp").cast("int64").to_pylist()
                rows += [{**row, "micros": time} for row, time in zip(batch.data.to_pylist(), micros, strict=True)]
    yield from sorted(rows, key=lambda row: (row["source"], row["partition"], row["offset"]))


def produce(stack: LocalStack, folder: Path, prefix: str, ids: Mapping[int, int]) -> list[str]:
    """Every message of the containers byte for byte (but for the registry's ids); gives the topics, retention off."""
    rows = list(rows_of(folder))
    names = {source: f"{prefix}.{source.split('/')[1]}" for source in {row["source"] for row in rows}}
    admin = AdminClient({"bootstrap.servers": stack.bootstrap})
    partitions = max(row["partition"] for row in rows) + 2
    topics = [NewTopic(name, num_partitions=partitions, config={"retention.ms": "-1"}) for name in names.values()]
    for future in admin.create_topics(topics).values():
        future.result(30)
    producer = Producer({"bootstrap.servers": stack.bootstrap, "linger.ms": 20})
    for row in rows:
        producer.produce(
            names[row["source"]],
            value=reframed(row["value"], ids),
            key=row["key"],
            partition=row["partition"],
            timestamp=row["micros"] // 1000,
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    return sorted(names.values())


def reframed(value: bytes | None, ids: Mapping[int, int]) -> bytes | None:
    """A payload with the registry's schema id instead of the simulator's; anything else as it is."""
    if value is None or len(value) < 5 or value[0] != 0:
        return value
    known = ids.get(int.from_bytes(value[1:5], "big"))
    return value if known is None else b"\x00" + known.to_bytes(4, "big") + value[5:]


def ingest_live(stack: LocalStack, topics: list[str], warehouse: Path, prism: Path) -> IngestStats:
    """The live job in this process on Prism, until it has caught up."""
    config = IngestConfig(
        lake_config(warehouse),
        write_config(run_id=uuid.uuid4().hex, bounded=False, window_seconds=60, commit_age_seconds=1.0),
    )
    live = LiveConfig(KafkaConfig(stack.bootstrap), stack.expansion_address, topics=tuple(topics), until_caught_up=True)
    resolver = RegistryResolver(stack.registry_url, unknown_wait_s=0.2)
    return run_live(live, config, (f"--prism_location={prism}", "--environment_type=LOOPBACK"), resolver=resolver)


def assert_live_audit(stack: LocalStack, topics: list[str], warehouse: Path) -> None:
    """The certificate is good, counted at the broker."""
    catalog = open_catalog(lake_config(warehouse))
    config = KafkaConfig(stack.bootstrap)
    cluster = Cluster(config)
    found = cluster.topics(topics)
    expected = count_topics(cluster, found, HoleProbe(config, found), read_coverage(catalog, NAMESPACE))
    report = audit(catalog, NAMESPACE, counted=(SourceFile("kafka", expected),), mend=False)
    assert report.ok, report.problems
