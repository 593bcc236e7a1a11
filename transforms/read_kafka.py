"""ReadKafka: the messages of topics, as batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.io.kafka import ReadFromKafka
from apache_beam.transforms.window import GlobalWindow, TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

import transforms.coders  # noqa: F401 - registers the coders of the batches
from k2beam.errors import K2BeamError
from k2beam.kafka.cluster import Topic
from k2beam.kafka.config import KafkaConfig
from k2beam.logs import get_logger
from k2beam.model import (
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    NO_TIMESTAMP,
    RAW_BATCH_SCHEMA,
    DeadLetterBatch,
    RawBatch,
)

BYTES_A_BATCH = 32 << 20
_FIELDS = ("topic", "partition", "offset", "timestamp", "key", "value", "headers")
"""How a row of ReadFromKafka begins; the timestamp is in milliseconds."""
_WIDTH = len(_FIELDS) - 1
"""Headers, which most messages lack, are kept apart."""


class ReadKafkaResult(NamedTuple):
    """``batches``: RawBatch. ``errs``: always empty, since a message that was read is never unreadable."""

    batches: beam.PCollection[RawBatch]
    errs: beam.PCollection[DeadLetterBatch]


class ReadKafka(beam.PTransform):  # type: ignore[misc]
    """Read topics through Beam's ReadFromKafka, from where the consumer group stands.

    ``group`` is fresh and its offsets are set before the job starts (see
    :meth:`k2beam.kafka.cluster.Cluster.seed_group`); the group is a convenience, what is taken
    twice is left out by the coverage. A batch's Beam timestamp is when it was read, so that the watermark follows the
    clock and no quiet partition holds it back; the log's timestamps (CreateTime) are in its rows.
    ``expansion`` is the address of the Java expansion service. A batch closes at
    ``rows_per_batch``, at 32 MiB and at the end of its bundle.

    Delivery: at least once, each committed message (``read_committed``) with its source, partition and
    offset; an unbounded source.

    Examples:
        >>> import time
        >>> from pathlib import Path
        >>> import apache_beam as beam
        >>> from apache_beam.runners.runner import PipelineState
        >>> from k2beam import KafkaConfig
        >>> from k2beam.job.options import beam_options
        >>> from k2beam.kafka.cluster import Cluster
        >>> from transforms.read_kafka import ReadKafka
        >>> pipeline = beam.Pipeline(options=beam_options([], streaming=True, default_runner="PrismRunner"))
        >>> topics = Cluster(KafkaConfig(bootstrap)).topics([topic])
        >>> read = pipeline | ReadKafka(topics, KafkaConfig(bootstrap), "a-new-group", expansion)
        >>> offsets = read.batches | beam.FlatMap(lambda batch: batch.data["offset"].to_pylist())
        >>> _ = offsets | beam.Map(lambda offset: Path(f"offset-{offset}").touch())
        >>> result = pipeline.run()
        >>> while len(list(Path().glob("offset-*"))) < 3 and not PipelineState.is_terminal(result.state):
        ...     time.sleep(0.1)
        >>> sorted(path.name for path in Path().glob("offset-*"))
        ['offset-0', 'offset-1', 'offset-2']
        >>> _ = result.cancel()
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

    def expand(self, begin: beam.pvalue.PBegin) -> ReadKafkaResult:
        sources = {topic.name: topic.source for topic in self._topics}
        consumer = {"group.id": self._group, "auto.offset.reset": "earliest", "enable.auto.commit": "false"}
        batches = (
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
        nothing = begin | "NoErrors" >> beam.Create([], reshuffle=False).with_output_types(DeadLetterBatch)
        return ReadKafkaResult(batches, nothing)


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
        headers: list[list[dict[str, Any]]] = [[]] * len(topics)
        for row, found in self._headers.items():
            headers[row] = [{"key": header.key, "value": header.value} for header in found]
        columns = [_by_topic(topics, self._sources), partitions, offsets, _microseconds(times), keys, values, headers]
        arrays = [pa.array(column, type=field.type) for column, field in zip(columns, RAW_BATCH_SCHEMA, strict=True)]
        batch = RawBatch(pa.RecordBatch.from_arrays(arrays, schema=RAW_BATCH_SCHEMA))
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


def _by_topic(topics: list[str], sources: Mapping[str, str]) -> pa.Array:
    encoded = pa.array(topics).dictionary_encode()
    names = pa.array([sources[topic] for topic in encoded.dictionary.to_pylist()])
    return pa.DictionaryArray.from_arrays(encoded.indices, names).cast(pa.string())


def _microseconds(milliseconds: list[int]) -> pa.Array:
    """As :func:`k2beam.model.log_time`, for all at once."""
    millis = np.array(milliseconds, dtype=np.int64)
    told = (millis != NO_TIMESTAMP) & (millis >= MIN_TIMESTAMP // 1000) & (millis <= MAX_TIMESTAMP // 1000)
    return pa.array(np.where(told, millis, 0) * 1000, mask=~told)
