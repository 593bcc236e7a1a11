"""BeamReader: rows of ReadFromKafka in, columns out. The read itself is tested on a real broker."""

from __future__ import annotations

from typing import Any, NamedTuple

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

import transforms.beam_reader
from k2beam.errors import K2BeamError
from k2beam.model import MAX_TIMESTAMP, MIN_TIMESTAMP, RawBatch, log_time
from transforms.beam_reader import _BatchMessagesFn


class Header(NamedTuple):
    key: str
    value: bytes | None


class Row(NamedTuple):
    """What ReadFromKafka gives with metadata; the timestamp is in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[Header] | None
    timestampTypeId: int  # noqa: N815 - Beam's name
    timestampTypeName: str  # noqa: N815 - Beam's name


SOURCES = {"t": "kafka:c/t/1", "u": "kafka:c/u/2"}


def row(offset: int, topic: str = "t", value: bytes | None = b"v", headers: list[Header] | None = None) -> Row:
    key = b"k" if offset else None
    return Row(topic, offset % 3, offset, 1000 + offset, key, value, headers, 0, "CreateTime")


def batches(rows: list[Row], limit: int) -> tuple[list[RawBatch], Any]:
    """What a bundle of ``rows`` gives, by the DoFn itself."""
    fn = _BatchMessagesFn(SOURCES, limit)
    fn.start_bundle()
    early = [element for message in rows for element in fn.process(message)]
    late = list(fn.finish_bundle())
    return [element.value for element in (*early, *late)], [element.timestamp for element in (*early, *late)]


def test_a_batch_has_every_column_of_its_messages() -> None:
    headers = [Header("trace", b"1"), Header("empty", None)]
    [batch], _ = batches([row(0, headers=headers), row(1, topic="u", value=None)], 10)
    assert batch.data.drop_columns(["timestamp"]).to_pylist() == [
        {
            "source": "kafka:c/t/1",
            "partition": 0,
            "offset": 0,
            "key": None,
            "value": b"v",
            "headers": [{"key": "trace", "value": b"1"}, {"key": "empty", "value": None}],
        },
        {"source": "kafka:c/u/2", "partition": 1, "offset": 1, "key": b"k", "value": None, "headers": []},
    ]
    assert batch.data.column("timestamp").cast("int64").to_pylist() == [1_000_000, 1_001_000]


@pytest.mark.parametrize("far", [-1, 2**63 - 1, -(2**63), 2**62, MAX_TIMESTAMP // 1000 + 1, MIN_TIMESTAMP // 1000 - 1])
def test_a_message_without_a_time_of_the_calendar_has_none(far: int) -> None:
    times = [far, 0, 5, MAX_TIMESTAMP // 1000, MIN_TIMESTAMP // 1000]
    [batch], _ = batches([row(number)._replace(timestamp=time) for number, time in enumerate(times)], 10)
    found = batch.data.column("timestamp").cast("int64").to_pylist()
    assert found == [None, *(time * 1000 for time in times[1:])]
    assert found == [log_time(time) for time in times]


def test_a_batch_closes_at_its_limit_and_at_the_end_of_the_bundle() -> None:
    before = Timestamp.now()
    found, times = batches([row(number) for number in range(7)], 3)
    assert [batch.data.column("offset").to_pylist() for batch in found] == [[0, 1, 2], [3, 4, 5], [6]]
    moments = [before, *times, Timestamp.now()]
    assert moments == sorted(moments), "a batch has the time at which it was read"


def test_a_batch_closes_when_its_payloads_are_large(monkeypatch: Any) -> None:
    monkeypatch.setattr(transforms.beam_reader, "BYTES_A_BATCH", 100)
    found, _ = batches([row(number, value=b"x" * 60) for number in range(5)], 1000)
    assert [batch.num_rows for batch in found] == [2, 2, 1]


def test_nothing_of_a_bundle_that_failed_is_in_the_next() -> None:
    fn = _BatchMessagesFn(SOURCES, 10)
    fn.start_bundle()
    fn.process(row(0))
    fn.start_bundle()
    fn.process(row(1))
    [element] = fn.finish_bundle()
    assert element.value.data.column("offset").to_pylist() == [1]


def test_in_a_pipeline_each_message_is_in_one_batch() -> None:
    def is_whole(found: list[RawBatch]) -> None:
        offsets = sorted(offset for batch in found for offset in batch.data.column("offset").to_pylist())
        assert offsets == list(range(100)), offsets

    rows = [TimestampedValue(row(number), number) for number in range(100)]
    with TestPipeline(runner="FnApiRunner") as pipeline:
        made = pipeline | beam.Create(rows).with_output_types(Any) | beam.ParDo(_BatchMessagesFn(SOURCES, 30))
        assert_that(made, is_whole)


def test_rows_of_another_shape_are_refused() -> None:
    fn = _BatchMessagesFn(SOURCES, 10)
    fn.start_bundle()
    with pytest.raises(K2BeamError, match=r"key, topic.*expected first"):
        fn.process(NamedTuple("Other", [("key", bytes), ("topic", str)])(b"", "t"))
