"""BatchRecords: the messages of a bundle become columnar batches."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue

import transforms.coders  # noqa: F401 - registers the coders of the batches
from k2beam.model import RAW_BATCH_SCHEMA, RawBatch, RawRecord


class BatchRecords(beam.PTransform):  # type: ignore[misc]
    """PCollection of RawRecord -> PCollection of RawBatch.

    A batch is closed at ``max_records``, at ``max_bytes`` of payload, and at the end of the bundle:
    no record outlives its bundle here, so nothing is lost when a bundle is retried. A batch's
    element timestamp is that of its latest record.
    """

    def __init__(self, max_records: int = 50_000, max_bytes: int = 32 << 20) -> None:
        super().__init__()
        self._max_records = max_records
        self._max_bytes = max_bytes

    def expand(self, records: beam.PCollection) -> beam.PCollection:
        fn = _BatchRecordsFn(self._max_records, self._max_bytes)
        return records | "Batch" >> beam.ParDo(fn).with_output_types(RawBatch)


class _BatchRecordsFn(beam.DoFn):  # type: ignore[misc]
    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._records: list[RawRecord] = []
        self._nbytes = 0
        self._latest = Timestamp(0)

    def start_bundle(self) -> None:
        self._records, self._nbytes = [], 0

    def process(self, record: RawRecord, timestamp: Timestamp = beam.DoFn.TimestampParam) -> Iterator[RawBatch]:
        self._latest = max(self._latest, timestamp) if self._records else timestamp
        self._records.append(record)
        self._nbytes += len(record.value or b"") + len(record.key or b"")
        if len(self._records) >= self._max_records or self._nbytes >= self._max_bytes:
            yield self._flush()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._records:
            latest = self._latest
            yield WindowedValue(self._flush(), latest, (GlobalWindow(),))

    def _flush(self) -> RawBatch:
        records, self._records, self._nbytes = self._records, [], 0
        return raw_batch(records)


def raw_batch(records: list[RawRecord]) -> RawBatch:
    """The columns of some records, in their order."""
    columns = [
        [record.source for record in records],
        [record.partition for record in records],
        [record.offset for record in records],
        [record.timestamp for record in records],
        [record.key for record in records],
        [record.value for record in records],
        [[{"key": key, "value": value} for key, value in record.headers] for record in records],
    ]
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, RAW_BATCH_SCHEMA, strict=True)]
    return RawBatch(pa.RecordBatch.from_arrays(arrays, schema=RAW_BATCH_SCHEMA))
