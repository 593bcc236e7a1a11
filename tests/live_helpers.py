"""Messages of the samples in a real Kafka, and whole runs of the live job over them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

from k2beam.demo import audit_topics
from k2beam.ingest.republish import archived_messages, register_schemas, republish
from k2beam.ingest.stats import IngestStats
from k2beam.kafka.config import KafkaConfig
from k2beam.live import LiveConfig, run_live
from k2beam.options import IngestConfig
from k2beam.platform.stack import LocalStack
from k2beam.registry.client import Registry, RegistryConfig
from k2beam.registry.resolver import RegistryResolver
from k2beam.registry.subjects import schema_text
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
    report = audit_topics(lake_config(warehouse), stack.bootstrap, topics)
    assert report.ok, report.problems
