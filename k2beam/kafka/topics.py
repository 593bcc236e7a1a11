"""Making topics."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # not in its __all__
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from k2beam.errors import KafkaFailed, UsageError
from k2beam.references import client_config
from k2beam.topics import check_topic_name

FOREVER_MS = -1
DEFAULT_RETENTION_MS = 7 * 86_400_000
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to make; ``retention_ms`` -1 keeps messages for ever. Raises UsageError for what can't be."""

    name: str
    partitions: int = 1
    replication: int = 1
    retention_ms: int = DEFAULT_RETENTION_MS

    def __post_init__(self) -> None:
        check_topic_name(self.name)
        if self.partitions < 1 or self.replication < 1:
            raise UsageError(f"topic {self.name}: partitions and replication are at least 1")
        if self.retention_ms < FOREVER_MS:
            raise UsageError(f"topic {self.name}: the retention can't be negative")


@dataclass(frozen=True, slots=True)
class TopicResult:
    """What became of a topic: created, exists (``note`` says how it differs from what was asked) or failed."""

    topic: str
    state: str
    partitions: int | None
    replication: int | None
    retention_ms: int | None
    note: str = ""


def create_topics(
    bootstrap: str, specs: Sequence[TopicSpec], config: Mapping[str, str] | None = None, timeout_s: float = _TIMEOUT_S
) -> Iterator[TopicResult]:
    """Make the topics that are not there, and tell of each. A topic that is there stays as it is.

    ``config``: further options of the client, secrets by reference. Raises UsageError for options that the client
    does not take, KafkaFailed where the broker can't be reached; what one topic is refused for is told as failed.
    """
    admin = _admin(bootstrap, config or {})
    unique = {spec.name: spec for spec in specs}
    new = [
        NewTopic(
            spec.name,
            num_partitions=spec.partitions,
            replication_factor=spec.replication,
            config={"retention.ms": str(spec.retention_ms)},
        )
        for spec in unique.values()
    ]
    if not new:
        return
    _reach(admin, bootstrap, timeout_s)
    futures = admin.create_topics(new, request_timeout=timeout_s, operation_timeout=timeout_s)
    for name, future in futures.items():
        try:
            future.result()
        except KafkaException as error:
            yield _not_created(admin, bootstrap, unique[name], error.args[0], timeout_s)
        else:
            spec = unique[name]
            yield TopicResult(name, "created", spec.partitions, spec.replication, spec.retention_ms)


def _admin(bootstrap: str, config: Mapping[str, str]) -> AdminClient:
    options: dict[str, str | int | float | bool] = {**client_config(config), "bootstrap.servers": bootstrap}
    try:
        return AdminClient(options, logger=logging.getLogger("k2beam.kafka"))
    except KafkaException as error:
        raise UsageError(f"the Kafka client does not take these options: {error.args[0].str()}") from error


def _reach(admin: AdminClient, bootstrap: str, timeout_s: float) -> None:
    try:
        admin.list_topics(timeout=timeout_s)
    except KafkaException as error:
        raise KafkaFailed(
            f"no Kafka broker answers at {bootstrap}: {error.args[0].str()}; start it or check --bootstrap"
        ) from error


def _not_created(
    admin: AdminClient, bootstrap: str, spec: TopicSpec, error: KafkaError, timeout_s: float
) -> TopicResult:
    if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
        return TopicResult(spec.name, "failed", None, None, None, error.str())
    try:
        return _existing(admin, spec, timeout_s)
    except KafkaException as failure:
        raise KafkaFailed(
            f"topic {spec.name} exists, but {bootstrap} does not tell more of it: {failure.args[0].str()}"
        ) from failure


def _existing(admin: AdminClient, spec: TopicSpec, timeout_s: float) -> TopicResult:
    partitions = admin.list_topics(spec.name, timeout=timeout_s).topics[spec.name].partitions
    replication = len(partitions[0].replicas) if partitions else None
    resource = ConfigResource(ResourceType.TOPIC, spec.name)
    entries = admin.describe_configs([resource], request_timeout=timeout_s)[resource].result()
    retention = int(entries["retention.ms"].value)
    found = TopicResult(spec.name, "exists", len(partitions), replication, retention)
    asked = (
        ("partitions", spec.partitions, found.partitions),
        ("replication", spec.replication, found.replication),
        ("retention_ms", spec.retention_ms, found.retention_ms),
    )
    note = ", ".join(f"{name} is {there}, not {wanted}" for name, wanted, there in asked if there != wanted)
    return TopicResult(found.topic, found.state, found.partitions, found.replication, found.retention_ms, note)
