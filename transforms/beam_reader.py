"""BeamReader: topics read through Beam's ReadFromKafka, which is Java's KafkaIO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io.kafka import ReadFromKafka
from apache_beam.transforms.window import GlobalWindow, TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

import transforms.coders  # noqa: F401 - registers the coders of the batches
from k2beam.errors import K2BeamError
from k2beam.kafka.batch import BYTES_A_BATCH, raw_batch
from k2beam.kafka.cluster import Topic
from k2beam.kafka.config import KafkaConfig
from k2beam.logs import get_logger
from k2beam.model import RawBatch

_FIELDS = ("topic", "partition", "offset", "timestamp", "key", "value", "headers")
"""How a row of ReadFromKafka begins; the timestamp is in milliseconds."""
_WIDTH = len(_FIELDS) - 1
"""Headers, which most messages lack, are kept apart."""


class BeamReader(beam.PTransform):  # type: ignore[misc]
    """PBegin -> PCollection[RawBatch], unbounded; see :class:`transforms.read_kafka.ReadKafka`.

    Reads from where the consumer ``group`` stands, which is fresh and whose offsets are set before the job starts
    (:meth:`k2beam.kafka.cluster.Cluster.seed_group`); the group is a convenience, what is taken twice is left out by
    the coverage. ``expansion`` is the address of the Java expansion service. A batch closes at ``rows_per_batch``, at
    32 MiB and at the end of its bundle.

    Examples:
        >>> import apache_beam as beam
        >>> from k2beam import KafkaConfig
        >>> from k2beam.kafka.cluster import Cluster
        >>> from transforms.beam_reader import BeamReader
        >>> topics = Cluster(KafkaConfig(bootstrap)).topics([topic])
        >>> batches = beam.Pipeline() | BeamReader(topics, KafkaConfig(bootstrap), "a-new-group", expansion)
        >>> batches.element_type.__name__
        'RawBatch'
    """

    def __init__(
        self, topics: Sequence[Topic], config: KafkaConfig, group: str, expansion: str, rows_per_batch: int = 50_000
    ) -> None:
        super().__init__()
        self._topics = tuple(topics)
        self._config = config
        self._group = group
        self._expansion = expansion
        self._rows_per_batch = rows_per_batch

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection[RawBatch]:
        sources = {topic.name: topic.source for topic in self._topics}
        consumer = {"group.id": self._group, "auto.offset.reset": "earliest", "enable.auto.commit": "false"}
        return (
            begin
            | "Kafka"
            >> ReadFromKafka(
                consumer_config={**self._config.java_consumer(), **consumer},
                topics=list(sources),
                with_metadata=True,
                # By the log's time (create_time_policy) a partition that has given no message yet holds the watermark
                # back for ever, and no timer of the whole job would fire. Batches get the log's time below.
                timestamp_policy=ReadFromKafka.processing_time_policy,
                expansion_service=self._expansion,
            )
            | "Batch" >> beam.ParDo(_BatchMessagesFn(sources, self._rows_per_batch)).with_output_types(RawBatch)
        )


class _BatchMessagesFn(beam.DoFn):  # type: ignore[misc]
    """Rows of ReadFromKafka to RawBatch; an element a message ends here.

    Runs once a message, so it takes no parameter but the element (Beam's invoker has a short way for that), is no
    generator, and keeps values in one flat list instead of rows: objects that live on cost the garbage collector
    more than all the rest. What else is to be done is done for a whole batch.
    """

    def __init__(self, sources: Mapping[str, str], rows: int) -> None:
        self._sources = dict(sources)
        self._limit = rows * _WIDTH
        self._news = True
        self._clear()

    def _clear(self) -> None:
        self._values: list[Any] = []
        self._headers: dict[int, Any] = {}
        self._nbytes = 0

    def start_bundle(self) -> None:
        self._clear()

    def process(self, message: Any) -> Sequence[TimestampedValue]:
        values = self._values
        if not values:
            _check_fields(message)
        values += message[:_WIDTH]
        if message[_WIDTH]:
            self._headers[len(values) // _WIDTH - 1] = message[_WIDTH]
        self._nbytes += len(message[_WIDTH - 1] or b"")
        if len(values) >= self._limit or self._nbytes >= BYTES_A_BATCH:
            return [TimestampedValue(*self._flush())]
        return ()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._values:
            batch, read_at = self._flush()
            yield WindowedValue(batch, read_at, (GlobalWindow(),))

    def _flush(self) -> tuple[RawBatch, Timestamp]:
        """The batch of what has gathered, and the time of reading."""
        topics, partitions, offsets, times, keys, values = (self._values[column::_WIDTH] for column in range(_WIDTH))
        headers = {row: [(header.key, header.value) for header in found] for row, found in self._headers.items()}
        batch = raw_batch(self._sources, topics, partitions, offsets, times, keys, values, headers)
        if self._news:
            get_logger("read_kafka").info("first batch read", topic=topics[0], rows=len(topics))
            self._news = False
        self._clear()
        return batch, Timestamp.now()


def _check_fields(message: Any) -> None:
    if message._fields[: len(_FIELDS)] != _FIELDS:
        raise K2BeamError(
            f"ReadFromKafka gives rows of {', '.join(message._fields)}, where {', '.join(_FIELDS)} were expected "
            "first: run the Java expansion service that k2beam's stack starts"
        )
