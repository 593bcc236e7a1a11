"""Topics into raw_record containers: what the log has now, message by message, to be replayed at any time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from k2beam.archive.files import is_uri
from k2beam.archive.stores import Stores, has_objects, upload
from k2beam.archive.write import write_raw_archive
from k2beam.codec.frame import HEADER_BYTES, schema_of
from k2beam.errors import K2BeamError, SchemaError, UsageError
from k2beam.kafka.cluster import TIMEOUT_SECONDS, Bounds, Topic
from k2beam.kafka.config import READ_COMMITTED, KafkaConfig
from k2beam.kafka.guard import TopicGuard
from k2beam.model import RawRecord, SchemaRef, log_time

ROWS_A_FILE = 200_000
BYTES_A_FILE = 64 << 20
"""A file closes at this many bytes of keys and values too: it is held in memory until its schema ids are known."""

SILENCE_SECONDS = 60.0
"""How long the broker may give nothing before the end that was found at the start."""

_POLLED = 10_000
_QUEUED_KILOBYTES = 16_384
_PASSING = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE})


class SchemaSource(Protocol):
    """Gives writer schemas by id or GUID, such as :class:`k2beam.registry.resolver.RegistryResolver`, opened."""

    def resolve(self, ref: SchemaRef) -> str:
        """The schema's JSON text. Raises SchemaError for one that does not exist."""


@dataclass(frozen=True, slots=True)
class ArchiveStats:
    """What was archived: messages, containers, partitions that had messages, bytes of the containers, seconds."""

    messages: int
    files: int
    partitions: int
    bytes: int
    duration_s: float


class KafkaArchiver:
    """Copies topics into a folder of raw_record containers, or below a URI that ``stores`` opens.

    Each message keeps source, partition, offset, timestamp (microseconds), key, value and headers, so that replaying
    an archive after the live run adds nothing, and replaying it alone gives the same rows. Read is what a live run
    reads: committed messages, and none of an aborted transaction. The writer schemas that a file's messages
    name are in its header; one that ``schemas`` does not know is left out, and its messages become the dead letters
    that they are live.

    Delivery: a container or object appears when it is complete; each offset once, from the first that the broker has
    to the end found at the start. Commits no offsets.
    """

    def __init__(
        self,
        config: KafkaConfig,
        out: str,
        schemas: SchemaSource | None = None,
        *,
        stores: Stores | None = None,
        rows_per_file: int = ROWS_A_FILE,
        on_messages: Callable[[int], None] = lambda _count: None,
        warn: Callable[[str], None] = lambda _text: None,
    ) -> None:
        if rows_per_file < 1:
            raise UsageError(f"--rows-per-file must be at least 1, not {rows_per_file}")
        self._config = config
        self._out = out
        self._stores = stores
        self._schemas = schemas
        self._rows = rows_per_file
        self._on_messages = on_messages
        self._warn = warn

    def run(self, topics: Sequence[Topic], bounds: Mapping[tuple[str, int], Bounds]) -> ArchiveStats:
        """Archive ``topics`` within ``bounds`` (:meth:`k2beam.kafka.cluster.Cluster.bounds`).

        Raises K2BeamError when the broker refuses or goes silent, or a topic was made anew meanwhile; the files that
        are complete by then stay.
        """
        started = time.monotonic()
        if not is_uri(self._out):
            Path(self._out).mkdir(parents=True, exist_ok=True)
        guard = TopicGuard(self._config, tuple(topics))
        messages = files = partitions = size = 0
        for topic in topics:
            for partition in topic.partitions:
                written = list(self._partition(topic, partition, bounds[topic.source, partition], guard))
                messages += sum(count for count, _ in written)
                size += sum(size for _, size in written)
                files += len(written)
                partitions += bool(written)
        return ArchiveStats(messages, files, partitions, size, round(time.monotonic() - started, 3))

    def _partition(self, topic: Topic, partition: int, bound: Bounds, guard: TopicGuard) -> Iterator[tuple[int, int]]:
        """Messages and bytes of each file that was written."""
        if bound.end <= bound.low:
            return
        reader = PartitionReader(self._config, topic, partition, bound, self._warn)
        for chunk in chunks(reader.records(), self._rows, BYTES_A_FILE):
            # Offsets of a topic made anew would be taken for those of the old one.
            guard.check()
            count, size = self._written(file_name(topic, partition, chunk[0].offset), chunk)
            self._on_messages(count)
            yield count, size

    def _written(self, name: str, chunk: list[RawRecord]) -> tuple[int, int]:
        """Messages and bytes of a container, which is made on this machine, also for a store."""
        if not is_uri(self._out):
            path = Path(self._out) / name
            return write_raw_archive(str(path), chunk, self._found_schemas(chunk)), path.stat().st_size
        with TemporaryDirectory(prefix="k2beam-archive-") as folder:
            path = Path(folder) / name
            count = write_raw_archive(str(path), chunk, self._found_schemas(chunk))
            return count, upload(str(path), f"{self._out.rstrip('/')}/{name}", self._stores)

    def _found_schemas(self, records: Iterable[RawRecord]) -> dict[SchemaRef, Any]:
        found: dict[SchemaRef, Any] = {}
        if self._schemas is None:
            return found
        for ref in sorted(schema_refs(records), key=str):
            try:
                found[ref] = json.loads(self._schemas.resolve(ref))
            except SchemaError:
                continue  # on replay its messages become dead letters, as they do live
        return found


class PartitionReader:
    """The messages of one partition, from the first offset to an end that is known."""

    def __init__(
        self, config: KafkaConfig, topic: Topic, partition: int, bound: Bounds, warn: Callable[[str], None]
    ) -> None:
        self._config = config
        self._topic = topic
        self._number = partition
        self._bound = bound
        self._warn = warn
        self._next = bound.low

    def records(self) -> Iterator[RawRecord]:
        """The messages in order. Raises K2BeamError, naming the topic, partition and offset reached."""
        consumer = Consumer(
            {
                **self._config.librdkafka(),
                "group.id": "k2beam-archive",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                **READ_COMMITTED,
                "queued.max.messages.kbytes": _QUEUED_KILOBYTES,
            }
        )
        try:
            consumer.assign([self._place()])
            yield from self._read(consumer)
        except KafkaException as error:
            raise K2BeamError(f"{self._where()}: can't be read: {error.args[0].str()}") from error
        finally:
            consumer.close()

    def _read(self, consumer: Consumer) -> Iterator[RawRecord]:
        heard = time.monotonic()
        while self._next < self._bound.end:
            for message in consumer.consume(_POLLED, timeout=1.0):
                error = message.error()
                if error is not None:
                    if self._handled(consumer, message, error):
                        break
                    continue
                heard = time.monotonic()
                offset = int(message.offset() or 0)
                if offset >= self._bound.end:
                    return
                self._next = offset + 1
                yield self._record(message)
                # Writing what was given takes time in which nothing is heard.
                heard = time.monotonic()
            if time.monotonic() - heard > SILENCE_SECONDS:
                raise K2BeamError(
                    f"{self._where()}: the broker gave nothing for {SILENCE_SECONDS:.0f} s; is it up, and the"
                    " partition's leader with it? Run the command again, with --force"
                )

    def _handled(self, consumer: Consumer, message: Message, error: KafkaError) -> bool:
        """Deal with an event that is no message; True when what was fetched with it is to be left."""
        if error.code() == KafkaError._PARTITION_EOF:
            # What is left before the end found at the start are transaction markers, or compaction took it.
            if (reached := int(message.offset() or 0)) < self._bound.end:
                raise K2BeamError(
                    f"{self._where()}: the log ends at offset {reached} now and ended at {self._bound.end} at the"
                    " start: the broker has lost messages"
                )
            self._next = self._bound.end
            return True
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._skip_lost(consumer)
            return True
        if error.code() in _PASSING:
            return False
        raise KafkaException(error)

    def _skip_lost(self, consumer: Consumer) -> None:
        """Go on where the log begins now: retention was faster than the archive."""
        low, _ = consumer.get_watermark_offsets(self._place(), timeout=TIMEOUT_SECONDS)
        if low <= self._next:
            raise K2BeamError(f"{self._where()}: the broker does not give this offset, though the log begins at {low}")
        self._warn(f"{self._where()}: retention took the offsets up to {low - 1} before they were read")
        self._next = low
        consumer.assign([self._place()])

    def _record(self, message: Message) -> RawRecord:
        millis = int(message.timestamp()[1])
        headers = tuple(cast("list[tuple[str, bytes | None]]", message.headers() or []))
        key, value = message.key(), message.value()
        return RawRecord(self._topic.source, self._number, self._next - 1, log_time(millis), key, value, headers)

    def _place(self) -> TopicPartition:
        return TopicPartition(self._topic.name, self._number, self._next)

    def _where(self) -> str:
        return f"topic {self._topic.name}, partition {self._number}, offset {self._next}"


def check_folder(out: str, force: bool, stores: Stores | None = None) -> None:
    """Raises UsageError when ``out`` is a file, or has something in it (a URI: below it) and ``force`` is off."""
    if not is_uri(out) and Path(out).exists() and not Path(out).is_dir():
        raise UsageError(f"{out} is a file: name a folder")
    if not force and (has_objects(out, stores) if is_uri(out) else Path(out).is_dir() and any(os.scandir(out))):
        raise UsageError(
            f"{out} is not empty: name a new folder, or use --force (it replaces the files of the same topics and"
            " offsets, and leaves other files alone)"
        )


def chunks(records: Iterable[RawRecord], rows: int, nbytes: int) -> Iterator[list[RawRecord]]:
    """The records in lists, each closed at ``rows`` records or ``nbytes`` bytes of keys and values."""
    chunk: list[RawRecord] = []
    size = 0
    for record in records:
        chunk.append(record)
        size += len(record.key or b"") + len(record.value or b"")
        if len(chunk) >= rows or size >= nbytes:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def schema_refs(records: Iterable[RawRecord]) -> set[SchemaRef]:
    """What names the schemas of the messages; one without a good frame or header has none."""
    # By what is distinct, since a file has many messages and few schemas.
    told = {(record.value[:HEADER_BYTES], record.headers) for record in records if record.value is not None}
    return {ref for value, headers in told if (ref := schema_of(value, headers)) is not None}


def file_name(topic: Topic, partition: int, first: int) -> str:
    """``<topic>-<topic id>-<partition>-<first offset>.avro``: a topic made anew replaces no file of the old one."""
    topic_id = topic.source.split("/", 2)[2].replace("/", "_")
    return f"{topic.name}-{topic_id}-{partition}-{first:015d}.avro"
