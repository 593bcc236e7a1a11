"""LibrdkafkaReader: topics read by a splittable DoFn in Python, without Java."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.coders import PickleCoder
from apache_beam.io.restriction_trackers import RestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Duration, Timestamp

import transforms.coders  # noqa: F401 - registers the coders of the batches
from k2beam.kafka.cluster import Topic
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.discovery import FollowingReader
from k2beam.kafka.reader import Position, TopicReader, first_positions
from k2beam.model import RawBatch

BUNDLE_SECONDS = 4.0
"""How long a bundle of a backlog reads: each writes files of its own, so few and large ones are cheap."""
IDLE_SECONDS = 0.5
"""How long a bundle waits for a first message: the watermark stands still meanwhile, and the timers with it."""

HELD_SECONDS = 600.0
"""How far the watermark is behind the clock at most, however long a backlog is."""
_NEXT = Duration(micros=1000)
"""Messages are so much behind the watermark's time, or a timer of theirs would be due at once."""
_WATERMARK = ManualWatermarkEstimator.default_provider()


@dataclass(frozen=True, slots=True)
class Unread:
    """What is left to read: a restriction in the words of Beam."""

    positions: tuple[Position, ...]


class LibrdkafkaReader(beam.PTransform):  # type: ignore[misc]
    """PBegin -> PCollection[RawBatch], unbounded; see :class:`transforms.read_kafka.ReadKafka`.

    One consumer reads all partitions, from ``starts`` by source and partition; those that the topics get, and topics
    that ``pattern`` matches later, are read from their beginning. A bundle ends after 4 s, or after ``bundle_seconds``
    when it keeps up with what comes; the runner asks for the next when it has taken this one, so that nothing piles up.
    With ``ends`` (offsets, exclusive) the reader ends behind them, and the job by itself, with all that it had begun.

    The watermark is the time until which all was read, and messages have that of the watermark when they are read: so
    those of a backlog count as read at one time, however long it takes. Its partitions may be read at different
    paces, and nothing is said to be missing that is only still to come. It's never more than ten minutes behind the
    clock.

    Examples:
        >>> import apache_beam as beam
        >>> from k2beam import KafkaConfig
        >>> from k2beam.kafka.cluster import Cluster
        >>> from transforms.librdkafka_reader import LibrdkafkaReader
        >>> topics = Cluster(KafkaConfig(bootstrap)).topics([topic])
        >>> starts = {(found.source, partition): 0 for found in topics for partition in found.partitions}
        >>> batches = beam.Pipeline() | LibrdkafkaReader(topics, KafkaConfig(bootstrap), starts)
        >>> batches.element_type.__name__
        'RawBatch'
    """

    def __init__(
        self,
        topics: Sequence[Topic],
        config: KafkaConfig,
        starts: Mapping[tuple[str, int], int],
        pattern: str | None = None,
        ends: Mapping[tuple[str, int], int] | None = None,
        bundle_seconds: float = 0.5,
        rows_per_batch: int = 50_000,
    ) -> None:
        super().__init__()
        start = Unread(first_positions(topics, starts))
        self._fn = _ReadFn(start, config, pattern, ends, bundle_seconds, rows_per_batch)

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[RawBatch]:
        return begin | beam.Impulse() | "Log" >> beam.ParDo(self._fn).with_output_types(RawBatch)


class _Tracker(RestrictionTracker):  # type: ignore[misc]
    """Follows a reader. What is unread is never divided: one consumer is faster than two that share a machine."""

    def __init__(self, unread: Unread) -> None:
        self._unread = unread
        self._ended = False

    def current_restriction(self) -> Unread:
        return self._unread

    def current_progress(self) -> beam.io.iobase.RestrictionProgress:
        return beam.io.iobase.RestrictionProgress(fraction=0.0)

    def try_claim(self, positions: tuple[Position, ...]) -> bool:
        """Whether what was read up to these may be given out. Without any, nothing more is to be read."""
        if not self._ended:
            self._unread = Unread(positions)
        return not self._ended

    def try_split(self, fraction_of_remainder: float) -> tuple[Unread, Unread] | None:
        if fraction_of_remainder or self._ended or not self._unread.positions:
            return None
        self._ended = True
        return Unread(()), self._unread

    def check_done(self) -> None:
        if not self._ended and self._unread.positions:
            raise ValueError("a log has no end; reading it only pauses")

    def is_bounded(self) -> bool:
        return False


class _ReadFn(beam.DoFn, RestrictionProvider):  # type: ignore[misc]
    def __init__(
        self,
        start: Unread,
        config: KafkaConfig,
        pattern: str | None,
        ends: Mapping[tuple[str, int], int] | None,
        bundle_seconds: float,
        rows: int,
    ) -> None:
        self._start = start
        self._log = FollowingReader(config, pattern, rows)
        self._ends = ends
        self._bundle_seconds = bundle_seconds

    def initial_restriction(self, _element: bytes) -> Unread:
        return self._start

    def create_tracker(self, restriction: Unread) -> _Tracker:
        return _Tracker(restriction)

    def restriction_size(self, _element: bytes, _restriction: Unread) -> int:
        return 1

    def restriction_coder(self) -> PickleCoder:
        return PickleCoder()

    def teardown(self) -> None:
        self._log.close()

    @beam.DoFn.unbounded_per_element()
    def process(
        self,
        _element: bytes,
        tracker: Any = beam.DoFn.RestrictionParam(),
        watermark: Any = beam.DoFn.WatermarkEstimatorParam(_WATERMARK),
    ) -> Iterator[TimestampedValue]:
        return self._bundle(self._log.at(tracker.current_restriction().positions), tracker, watermark)

    def _bundle(self, reader: TopicReader, tracker: Any, watermark: Any) -> Iterator[TimestampedValue]:
        began, clock, rows = time.time(), time.monotonic(), 0
        _advance(watermark, reader)
        while (lasted := time.monotonic() - clock) < BUNDLE_SECONDS:
            keeps_up = reader.caught_up_at >= began
            if keeps_up and rows and lasted >= self._bundle_seconds:
                break
            batches = reader.read(IDLE_SECONDS)
            if not tracker.try_claim(reader.positions):
                return  # what was read is read again by whoever has the rest
            for batch in batches:
                rows += batch.num_rows
                yield TimestampedValue(batch, watermark.current_watermark() + _NEXT)
            _advance(watermark, reader)
            if self._ends is not None and reader.is_behind(self._ends):
                tracker.try_claim(())
                return
            if not rows:
                break
        tracker.defer_remainder()


def _advance(watermark: ManualWatermarkEstimator, reader: TopicReader) -> None:
    now, current = time.time(), watermark.current_watermark()
    moment = Timestamp(now if current is None else max(reader.caught_up_at, now - HELD_SECONDS))
    # A partition that came since was never at its end, and nothing can be taken back.
    if current is None or moment > current:
        watermark.set_watermark(moment)
