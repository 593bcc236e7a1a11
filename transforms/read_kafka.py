"""ReadKafka: the messages of topics, as batches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.io.kafka import ReadFromKafka
from apache_beam.transforms.window import GlobalWindow, TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

import transforms.coders  # noqa: F401 - registers the coders of the batches
from k2beam.kafka.cluster import Topic
from k2beam.kafka.config import KafkaConfig
from k2beam.logs import get_logger
from k2beam.model import RAW_BATCH_SCHEMA, DeadLetterBatch, RawBatch

BYTES_A_BATCH = 32 << 20


class ReadKafkaResult(NamedTuple):
    """``batches``: RawBatch. ``errs``: always empty, since a message that was read is never unreadable."""

    batches: beam.PCollection[RawBatch]
    errs: beam.PCollection[DeadLetterBatch]


class ReadKafka(beam.PTransform):  # type: ignore[misc]
    """Read topics through Beam's ReadFromKafka, from where the consumer group stands.

    ``group`` is fresh and its offsets are set before the job starts (see
    :meth:`k2beam.kafka.cluster.Cluster.seed_group`); the group is a convenience, what is taken
    twice is left out by the coverage. Element time is the log's timestamp (CreateTime).
    ``expansion`` is the address of the Java expansion service. A batch closes at
    ``rows_per_batch``, at 32 MiB and at the end of its bundle.

    Delivery: at least once, each message with its source, partition and offset; an unbounded source.
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
    generator and only appends; all else is done for a whole batch.
    """

    def __init__(self, sources: Mapping[str, str], rows: int) -> None:
        self._sources = dict(sources)
        self._limit = rows
        self._messages: list[Any] = []
        self._nbytes = 0
        self._began = 0.0
        self._news = True

    def start_bundle(self) -> None:
        self._messages, self._nbytes = [], 0
        self._began = time.time()

    def process(self, message: Any) -> Sequence[TimestampedValue]:
        self._messages.append(message)
        self._nbytes += len(message.value or b"")
        if len(self._messages) >= self._limit or self._nbytes >= BYTES_A_BATCH:
            return [TimestampedValue(*self._flush())]
        return ()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._messages:
            batch, latest = self._flush()
            yield WindowedValue(batch, latest, (GlobalWindow(),))

    def _flush(self) -> tuple[RawBatch, Timestamp]:
        """The batch of what has gathered, and its highest log time."""
        messages, self._messages, self._nbytes = self._messages, [], 0
        rows = dict(zip(messages[0]._fields, zip(*messages, strict=True), strict=True))
        headers = rows["headers"]
        columns = [
            [self._sources[topic] for topic in rows["topic"]],
            rows["partition"],
            rows["offset"],
            [time * 1000 for time in rows["timestamp"]],
            rows["key"],
            rows["value"],
            [_headers(found) for found in headers] if any(headers) else [[]] * len(messages),
        ]
        arrays = [pa.array(column, type=field.type) for column, field in zip(columns, RAW_BATCH_SCHEMA, strict=True)]
        batch = RawBatch(pa.RecordBatch.from_arrays(arrays, schema=RAW_BATCH_SCHEMA))
        if self._news:
            get_logger("read_kafka").info(
                "first batch read", topic=messages[0].topic, rows=len(messages), read_at=self._began
            )
            self._news = False
        return batch, Timestamp(micros=max(rows["timestamp"]) * 1000)


def _headers(headers: Any) -> list[dict[str, Any]]:
    return [{"key": header.key, "value": header.value} for header in headers or ()]
