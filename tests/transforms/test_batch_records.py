"""BatchRecords: batches by count, by bytes and at the end of the bundle; nothing lost."""

from __future__ import annotations

import apache_beam as beam
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import TimestampedValue

from k2beam.model import RAW_BATCH_SCHEMA, RawBatch, RawRecord
from transforms.batch_records import BatchRecords


def records(count: int, size: int = 1) -> list[RawRecord]:
    return [RawRecord("s", number % 2, number, number, b"k", b"v" * size, (("h", b"x"),)) for number in range(count)]


def offsets(batch: RawBatch) -> list[int]:
    return batch.data.column("offset").to_pylist()


def check(items: list[RawRecord], transform: BatchRecords, expected: list[list[int]]) -> None:
    with TestPipeline(runner="FnApiRunner") as pipeline:
        batches = pipeline | beam.Create(items, reshuffle=False) | transform
        assert_that(batches | beam.Map(offsets), equal_to(expected))


def test_by_count_and_at_the_end_of_the_bundle() -> None:
    check(records(7), BatchRecords(max_records=3), [[0, 1, 2], [3, 4, 5], [6]])


def test_by_bytes() -> None:
    check(records(4, size=100), BatchRecords(max_bytes=150), [[0, 1], [2, 3]])


def test_values_are_kept_byte_for_byte() -> None:
    tombstone = RawRecord("s", 1, 9, None, None, None)

    def rows(batch: RawBatch) -> list[dict[str, object]]:
        assert batch.data.schema == RAW_BATCH_SCHEMA
        found = batch.data.to_pylist()
        return [{**row, "timestamp": row["timestamp"] and row["timestamp"].microsecond} for row in found]

    with TestPipeline(runner="FnApiRunner") as pipeline:
        batches = pipeline | beam.Create([*records(2)[1:], tombstone], reshuffle=False) | BatchRecords()
        row = {"source": "s", "partition": 1, "offset": 1, "timestamp": 1, "key": b"k", "value": b"v"}
        nothing = {"source": "s", "partition": 1, "offset": 9, "timestamp": None, "key": None, "value": None}
        expected = [{**row, "headers": [{"key": "h", "value": b"x"}]}, {**nothing, "headers": []}]
        assert_that(batches | beam.Map(rows), equal_to([expected]))


def test_a_batch_has_the_timestamp_of_its_latest_record() -> None:
    with TestPipeline(runner="FnApiRunner") as pipeline:
        stamped = (
            pipeline
            | beam.Create(
                [TimestampedValue(record, second) for record, second in zip(records(3), (5, 9, 7), strict=True)],
                reshuffle=False,
            )
            | beam.Map(lambda value: value)
        )
        seconds = (
            stamped | BatchRecords() | beam.Map(lambda batch, time=beam.DoFn.TimestampParam: time.micros // 1_000_000)
        )
        assert_that(seconds, equal_to([9]))
