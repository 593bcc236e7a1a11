"""Archived messages put back into topics, byte for byte but for the ids of their schemas.

A registry gives ids of its own, so the writer schemas that a raw_record container carries are registered and each
payload gets the id that its schema has there. Everything else stays: topic, partition, order, key, headers and
timestamp. Offsets are counted anew, from 0 in each partition.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from k2beam.archive.files import expand_paths
from k2beam.archive.plan import plan_archive
from k2beam.archive.reading import ArchiveReader
from k2beam.errors import ArchiveError, KafkaFailed, SchemaError, UsageError
from k2beam.kafka.topics import FOREVER_MS, TopicSpec, create_topics
from k2beam.model import RawBatch
from k2beam.registry.client import Registry
from k2beam.schemas import full_name
from k2beam.topics import topic_of_source

_FLUSH_S: Final = 60.0
_FULL_QUEUE_S: Final = 0.1
_HEADER_BYTES: Final = 5


@dataclass(frozen=True, slots=True)
class ArchivedMessage:
    """A message as a log had it; ``timestamp`` is microseconds UTC."""

    source: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


def archived_schemas(folder: Path) -> dict[int, str]:
    """The writer schemas (JSON text) of all raw_record containers in ``folder``, by the ids in their payloads.

    Raises UsageError where there is no container or one has no messages of a log, and for one id of two schemas.
    """
    schemas: dict[int, str] = {}
    for path in expand_paths([str(folder)]):
        header = plan_archive(path).header
        if header.size and not header.raw:
            raise UsageError(f"{path} holds records, not messages of a log; name containers in the raw_record envelope")
        for schema_id, text in header.schemas:
            if not isinstance(schema_id, int):
                raise UsageError(f"{path}: its messages name their schema in a header, GUID {schema_id}; frame them")
            if schemas.setdefault(schema_id, text) != text:
                raise UsageError(f"{path}: schema id {schema_id} is another schema than in the files before it")
    return schemas


def archived_messages(folder: Path) -> list[ArchivedMessage]:
    """Every message of the raw_record containers in ``folder``, in the order of each partition's offsets.

    All are held in memory: for samples, not for a day of a market. Raises ArchiveError for a container with a
    damaged part: a copy with holes would be taken for the whole.
    """
    found: list[ArchivedMessage] = []
    for path in expand_paths([str(folder)]):
        found.extend(_messages_of(path))
    return sorted(found, key=lambda message: (message.source, message.partition, message.offset))


def _messages_of(path: str) -> Iterator[ArchivedMessage]:
    plan = plan_archive(path)
    if plan.problems:
        raise ArchiveError(f"{path}: {plan.problems[0].message}; messages are only republished from a whole container")
    for chunk in plan.chunks:
        for batch in ArchiveReader().read(chunk):
            if not isinstance(batch, RawBatch):
                raise ArchiveError(f"{path}: a block can't be read as messages of a log; make or copy the file again")
            times = batch.data.column("timestamp").cast("int64").to_pylist()
            for row, time in zip(batch.data.to_pylist(), times, strict=True):
                yield _message(row, time)


def _message(row: Mapping[str, Any], time: int) -> ArchivedMessage:
    headers = tuple((header["key"], header["value"]) for header in row["headers"] or ())
    return ArchivedMessage(row["source"], row["partition"], row["offset"], time, row["key"], row["value"], headers)


def register_schemas(registry: Registry, schemas: Mapping[int, str], prefix: str = "") -> dict[int, int]:
    """Register ``schemas`` under the names of their records (after ``prefix``); the registry's id for each id.

    Raises SchemaError for what is no record, and RegistryError (see :class:`k2beam.registry.client.Registry`).
    """
    ids = {}
    for schema_id, text in schemas.items():
        name = full_name(json.loads(text))
        if name is None:
            raise SchemaError(
                f"the writer schema of id {schema_id} is not a record: it has no name to register it under"
            )
        ids[schema_id] = registry.register(f"{prefix}{name}", text)
    return ids


def reframed(value: bytes | None, ids: Mapping[int, int]) -> bytes | None:
    """A payload with the registry's schema id instead of the archive's; anything else as it is.

    The frame is Confluent's: magic byte 0, then the id in four bytes, big-endian.
    """
    if value is None or len(value) < _HEADER_BYTES or value[0] != 0:
        return value
    known = ids.get(int.from_bytes(value[1:_HEADER_BYTES], "big"))
    return value if known is None else b"\x00" + known.to_bytes(4, "big") + value[_HEADER_BYTES:]


def republish(
    bootstrap: str, messages: Sequence[ArchivedMessage], ids: Mapping[int, int], prefix: str = ""
) -> list[str]:
    """Produce ``messages`` in their order into new topics (their own names after ``prefix``); the topics, sorted.

    The topics keep their messages for ever, since an archive may be older than any retention. Guarantee: on return
    each message was acknowledged by all in-sync replicas, once and in order. Raises UsageError for a topic that is
    there already, KafkaFailed where the broker can't be reached or a message was not taken.
    """
    names = _topic_names(messages, prefix)
    _create(bootstrap, names, messages)
    failed: list[str] = []

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failed.append(f"{message.topic()}-{message.partition()}: {error.str()}")

    options: dict[str, Any] = {"bootstrap.servers": bootstrap, "linger.ms": 20, "enable.idempotence": True}
    producer = Producer(options, logger=logging.getLogger("k2beam.kafka"))
    for message in messages:
        _send(producer, names[message.source], message, reframed(message.value, ids), on_delivery)
    waiting = producer.flush(_FLUSH_S)
    if waiting or failed:
        raise KafkaFailed(
            f"{waiting + len(failed):,} of {len(messages):,} messages were not delivered to {bootstrap}"
            f" (first: {failed[0] if failed else 'no answer'}); delete the topics and try again"
        )
    return sorted(names.values())


def _topic_names(messages: Sequence[ArchivedMessage], prefix: str) -> dict[str, str]:
    """The topic of each source."""
    names: dict[str, str] = {}
    for source in sorted({message.source for message in messages}):
        if source.count("/") < 2:
            raise UsageError(f"source {source!r} of the archive names no topic, as kafka:CLUSTER/TOPIC/ID does")
        names[source] = f"{prefix}{topic_of_source(source)}"
    if len(set(names.values())) < len(names):
        raise UsageError("the archives hold one topic from two clusters or lives: republish them one by one")
    return names


def _create(bootstrap: str, names: Mapping[str, str], messages: Sequence[ArchivedMessage]) -> None:
    partitions: dict[str, int] = {}
    for message in messages:
        topic = names[message.source]
        partitions[topic] = max(partitions.get(topic, 0), message.partition + 1)
    specs = [TopicSpec(topic, count, retention_ms=FOREVER_MS) for topic, count in partitions.items()]
    for result in create_topics(bootstrap, specs):
        if result.state == "exists":
            raise UsageError(f"topic {result.topic} already exists at {bootstrap}: delete it or take another prefix")
        if result.state != "created":
            raise KafkaFailed(f"topic {result.topic} can't be made at {bootstrap}: {result.note}")


def _send(producer: Producer, topic: str, message: ArchivedMessage, value: bytes | None, on_delivery: Any) -> None:
    while True:
        try:
            producer.produce(
                topic,
                value=value,
                key=message.key,
                headers=list(message.headers) or None,
                partition=message.partition,
                timestamp=message.timestamp // 1000,
                on_delivery=on_delivery,
            )
            break
        except BufferError:
            producer.poll(_FULL_QUEUE_S)
        except KafkaException as error:
            raise KafkaFailed(f"{topic}-{message.partition} does not take a message: {error.args[0].str()}") from error
    producer.poll(0)
