"""TickedReader: LibrdkafkaReader's reading for Flink, begun again and again by a source of Flink that ticks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.coders import PickleCoder
from apache_beam.transforms.external import ExternalTransform, ImplicitSchemaPayloadBuilder
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

import transforms.coders  # noqa: F401 - registers the coders of the batches
from k2beam.kafka.cluster import Topic
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.discovery import FollowingReader
from k2beam.kafka.reader import Position, first_positions
from k2beam.model import RawBatch

TICK_MILLIS = 250
READING_SECONDS = 2.0
"""How long a tick reads a backlog: a checkpoint of Flink waits for the end of a bundle that is under way."""
WAIT_SECONDS = 0.2
"""How long a tick waits for a first message."""
_KEY = b""
_SEQUENCE_URN = "beam:external:java:generate_sequence:v1"


@dataclass(frozen=True, slots=True)
class _Read:
    """Where reading goes on, and when it stopped, in seconds since the epoch."""

    positions: tuple[Position, ...]
    stopped_at: float


class TickedReader(beam.PTransform):  # type: ignore[misc]
    """PBegin -> PCollection[RawBatch], unbounded; see :class:`transforms.read_kafka.ReadKafka`.

    One consumer reads all partitions, from ``starts`` by source and partition; those that the topics get, and topics
    that ``pattern`` matches later, are read from their beginning. A source of Flink (Java's GenerateSequence, from the
    ``expansion`` service) ticks four times a second. A tick reads for two seconds, or for ``bundle_seconds`` if
    these are less and it keeps up with what comes; ticks of that time are dropped. Positions are state of the one
    key that all ticks have, so a checkpoint of Flink has what was read, and where to go on, of one moment.

    Not LibrdkafkaReader, because Flink's runner keeps something of each rest that a splittable DoFn defers, for as long
    as the job lasts, in its memory and in its checkpoints (Beam 2.70; apache/beam#27648).

    The watermark is that of the ticks, which is the clock, and messages have the time at which they were read.

    Examples:
        >>> import apache_beam as beam
        >>> from k2beam import KafkaConfig
        >>> from k2beam.kafka.cluster import Cluster
        >>> from transforms.ticked_reader import TickedReader
        >>> topics = Cluster(KafkaConfig(bootstrap)).topics([topic])
        >>> starts = {(found.source, partition): 0 for found in topics for partition in found.partitions}
        >>> batches = beam.Pipeline() | TickedReader(topics, KafkaConfig(bootstrap), starts, expansion)
        >>> batches.element_type.__name__
        'RawBatch'
    """

    def __init__(
        self,
        topics: Sequence[Topic],
        config: KafkaConfig,
        starts: Mapping[tuple[str, int], int],
        expansion: str,
        pattern: str | None = None,
        bundle_seconds: float = 0.5,
        rows_per_batch: int = 50_000,
    ) -> None:
        super().__init__()
        self._expansion = expansion
        start = first_positions(topics, starts)
        self._fn = _ReadFn(start, config, pattern, bundle_seconds, rows_per_batch)

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[RawBatch]:
        # Beam's own GenerateSequence has no period.
        ticks = ImplicitSchemaPayloadBuilder({"start": 0, "period": TICK_MILLIS, "elements_per_period": 1})
        return (
            begin
            | "Ticks" >> ExternalTransform(_SEQUENCE_URN, ticks, self._expansion)
            | "OneKey" >> beam.Map(lambda tick: (_KEY, tick)).with_output_types(tuple[bytes, int])
            | "Log" >> beam.ParDo(self._fn).with_output_types(RawBatch)
        )


def _came_meanwhile(ticked_at: float, stopped_at: float) -> bool:
    """Whether a tick came while its forerunner was reading: a queue of them would hold checkpoints up.

    It is dropped within a reading's time only. Ticks have the TaskManager's clock and a stop has a worker's, perhaps
    of a worker before: where these are apart, reading gets slower, but it never stands still.
    """
    return ticked_at < stopped_at and 0 <= time.time() - stopped_at < READING_SECONDS


class _ReadFn(beam.DoFn):  # type: ignore[misc]
    READ = ReadModifyWriteStateSpec("read", PickleCoder())

    def __init__(
        self,
        start: tuple[Position, ...],
        config: KafkaConfig,
        pattern: str | None,
        bundle_seconds: float,
        rows: int,
    ) -> None:
        self._start = start
        self._log = FollowingReader(config, pattern, rows)
        self._bundle_seconds = bundle_seconds

    def teardown(self) -> None:
        self._log.close()

    def process(
        self, _tick: Any, ticked_at: Any = beam.DoFn.TimestampParam, read: Any = beam.DoFn.StateParam(READ)
    ) -> Iterator[TimestampedValue]:
        last: _Read | None = read.read()
        if last is not None and _came_meanwhile(float(ticked_at), last.stopped_at):
            return
        reader = self._log.at(self._start if last is None else last.positions)
        began, clock, rows = time.time(), time.monotonic(), 0
        while (lasted := time.monotonic() - clock) < READING_SECONDS:
            if rows and lasted >= self._bundle_seconds and reader.caught_up_at >= began:
                break
            for batch in reader.read(WAIT_SECONDS):
                rows += batch.num_rows
                yield TimestampedValue(batch, max(ticked_at, Timestamp.now()))
            if not rows:
                break
        read.write(_Read(reader.positions, time.time()))
