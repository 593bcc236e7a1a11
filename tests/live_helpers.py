"""Messages of the samples in a real Kafka, and whole runs of the live job over them."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from confluent_kafka import Producer

from k2beam.demo import audit_topics
from k2beam.job.config import IngestConfig, LiveConfig, Reader
from k2beam.job.live import run_live
from k2beam.job.stats import IngestStats
from k2beam.kafka.config import KafkaConfig
from k2beam.produce.republish import ArchivedMessage, archived_messages, reframed, register_schemas, republish
from k2beam.registry.client import Registry
from k2beam.registry.config import RegistryConfig
from k2beam.registry.resolver import RegistryResolver
from k2beam.registry.subjects import schema_text
from k2beam.stack.stack import LocalStack
from tests.lake_helpers import lake_config, write_config

SAMPLE_IDS = {1: "trade_v2", 2: "quote_v2"}
"""Schema ids in the simulated archives."""


def register(stack: LocalStack) -> dict[int, int]:
    """Register the schemas of the simulator; gives the registry's id for each of the simulator's."""
    registry = Registry(RegistryConfig(stack.registry_url))
    schemas = {ours: schema_text(name) for ours, name in SAMPLE_IDS.items()}
    try:
        return register_schemas(registry, schemas, prefix="live-")
    finally:
        registry.close()


def produce(stack: LocalStack, folder: Path, prefix: str, ids: Mapping[int, int]) -> list[str]:
    """Every message of the containers byte for byte (but for the registry's ids); gives the topics, retention off."""
    return republish(stack.bootstrap, archived_messages(folder), ids, prefix=f"{prefix}.")


def reader_options(stack: LocalStack, reader: Reader) -> list[str]:
    """What ``ingest kafka`` is told to read with ``reader``."""
    address = ["--expansion", stack.expansion_address] if reader is Reader.BEAM else []
    return ["--reader", reader, *address]


def ingest_live(
    stack: LocalStack,
    topics: list[str],
    warehouse: Path,
    prism: Path,
    reader: Reader = Reader.LIBRDKAFKA,
    resolver: RegistryResolver | None = None,
    *,
    evolve: bool = False,
) -> IngestStats:
    """The live job in this process on Prism, until it has caught up."""
    config = IngestConfig(
        lake_config(warehouse),
        write_config(run_id=uuid.uuid4().hex, bounded=False, window_seconds=60, commit_age_seconds=1.0),
        evolve=evolve,
    )
    expansion = stack.expansion_address if reader is Reader.BEAM else None
    live = LiveConfig(
        KafkaConfig(stack.bootstrap), expansion, topics=tuple(topics), until_caught_up=True, reader=reader
    )
    resolver = resolver or RegistryResolver(stack.registry_url, unknown_wait_s=0.2)
    return run_live(live, config, (f"--prism_location={prism}", "--environment_type=LOOPBACK"), resolver=resolver)


def assert_live_audit(stack: LocalStack, topics: list[str], warehouse: Path) -> None:
    """The report is good, counted at the broker."""
    report = audit_topics(lake_config(warehouse), stack.bootstrap, topics)
    assert report.ok, report.problems


def halves(folder: Path) -> tuple[list[ArchivedMessage], list[ArchivedMessage]]:
    """The messages of the containers, cut in the middle of each partition."""
    messages = archived_messages(folder)
    ends = Counter((message.source, message.partition) for message in messages)
    early = [message for message in messages if message.offset < ends[message.source, message.partition] // 2]
    late = [message for message in messages if message.offset >= ends[message.source, message.partition] // 2]
    return early, late


def produce_early(
    stack: LocalStack, folder: Path, name: str
) -> tuple[list[str], list[ArchivedMessage], list[ArchivedMessage], dict[int, int]]:
    """The topics that now have the first of the :func:`halves`, both of these, and the ids of their schemas.

    The rest is for :func:`produce_more`. ``name`` begins the topics' names, which no other test has.
    """
    early, late = halves(folder)
    ids = register(stack)
    return republish(stack.bootstrap, early, ids, prefix=f"{name}-{uuid.uuid4().hex[:8]}."), early, late, ids


WAITING_AT_MOST = 50_000
"""Half of what a producer's queue holds."""


def produce_more(stack: LocalStack, topic: str, messages: Sequence[ArchivedMessage], ids: Mapping[int, int]) -> None:
    """Further messages of one source behind those that the topic has."""
    producer = Producer({"bootstrap.servers": stack.bootstrap, "enable.idempotence": True, "linger.ms": 20})
    for message in messages:
        value = reframed(message.value, ids)
        while len(producer) >= WAITING_AT_MOST:
            producer.poll(0.1)
        producer.produce(topic, value, message.key, message.partition, timestamp=message.timestamp // 1000)
        producer.poll(0)
    assert producer.flush(60) == 0
