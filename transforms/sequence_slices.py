"""SequenceSlices: the sequence numbers of each batch, as a small slice for each key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.transforms.window import GlobalWindow, TimestampedValue
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp

from k2beam.model import EventBatch
from k2beam.schemas import EVENT_TIME_COLUMN
from k2beam.sequence import Slice, format_key, slice_runs
from transforms.coders import BatchCoder

SEQUENCE_COLUMN = "source_sequence"


class SliceCoder(BatchCoder):
    """A slice is its own packed form."""

    def encode(self, value: Slice) -> bytes:
        return value.data

    def decode(self, encoded: bytes) -> Slice:
        return Slice(encoded)

    def estimate_size(self, value: Slice) -> int:
        return len(value.data)

    def is_deterministic(self) -> bool:
        return True


beam.coders.registry.register_coder(Slice, SliceCoder)


class SequenceSlices(beam.PTransform):  # type: ignore[misc]
    """PCollection[EventBatch] -> PCollection[tuple[str, Slice]], keyed ``exchange|symbol|kind``, global window.

    Kinds without a ``source_sequence`` (reference data) give nothing. Where a batch has a Beam timestamp, the time of
    its reading, that is the element time of its rows: of a backlog, the grace begins when a message is read and not
    when it was logged, or each message would be folded before the one that a shuffle still holds; and a message whose
    log time lies years ahead must not hold its key back until then. A slice's Beam timestamp is its highest element
    time. Nothing is kept between batches: a batch that is processed again gives the same slices, and the fold takes a
    message that comes twice for one.

    Examples:
        >>> import apache_beam as beam
        >>> from transforms.decode_avro import DecodeAvro
        >>> from transforms.read_archive import ReadArchive
        >>> from transforms.sequence_slices import SequenceSlices
        >>> with beam.Pipeline(runner="FnApiRunner") as pipeline:
        ...     read = pipeline | ReadArchive(["samples/asx/trades.avro"])
        ...     slices = (read.batches | DecodeAvro()).events | SequenceSlices()
        ...     _ = slices | beam.Keys() | beam.combiners.ToList() | beam.Map(sorted) | beam.Map(print)
        ['ASX|DVN|trades', 'ASX|MWR|trades']
    """

    def expand(self, batches: beam.PCollection[EventBatch]) -> beam.PCollection[tuple[str, Slice]]:
        return (
            batches
            | "Slice" >> beam.ParDo(_SliceBatch()).with_output_types(tuple[str, Slice])
            | "Global" >> beam.WindowInto(beam.window.GlobalWindows())
        )


class _SliceBatch(beam.DoFn):  # type: ignore[misc]
    def process(self, batch: EventBatch, timestamp: Timestamp = beam.DoFn.TimestampParam) -> Iterator[TimestampedValue]:
        latest = GlobalWindow().max_timestamp()
        read_at = None if timestamp == MIN_TIMESTAMP else timestamp.micros
        for key, piece in slices_of(batch, read_at):
            element_time = Timestamp(micros=piece.read().highest_element_time)
            yield TimestampedValue((key, piece), min(element_time, latest))


def slices_of(batch: EventBatch, read_at: int | None = None) -> list[tuple[str, Slice]]:
    """The slices of one batch; none if its kind has no sequence numbers or it has no rows.

    ``read_at`` (microseconds) is the element time of all rows; without it each row's is the log's, or its event's.
    """
    data = batch.data
    if SEQUENCE_COLUMN not in data.schema.names or not data.num_rows:
        return []
    codes, keys = _keys(batch)
    sequence = data.column(SEQUENCE_COLUMN)
    times = _microseconds(data.column(EVENT_TIME_COLUMN[batch.kind]))
    if read_at is not None:
        element_times = np.full(len(times), read_at, dtype=np.int64)
    else:
        element_times = times if batch.element_time is None else _microseconds(batch.element_time)
    slices = slice_runs(
        codes,
        pc.fill_null(sequence, 0).to_numpy(zero_copy_only=False),
        times,
        valid=None if not sequence.null_count else sequence.is_valid().to_numpy(zero_copy_only=False),
        element_times=element_times,
    )
    return [(keys[code], piece) for code, piece in slices]


def _keys(batch: EventBatch) -> tuple[Any, list[str]]:
    """A code for each row, and the key of each code."""
    exchange, symbol = (_dictionary(batch.data.column(name)) for name in ("exchange", "symbol"))
    exchanges, symbols = exchange.dictionary.to_pylist(), symbol.dictionary.to_pylist()
    pairs = exchange.indices.to_numpy().astype(np.int64) * len(symbols) + symbol.indices.to_numpy()
    if len(exchanges) == 1:
        return pairs, [format_key(exchanges[0], name, batch.kind) for name in symbols]
    present, codes = np.unique(pairs, return_inverse=True)
    return codes, [format_key(exchanges[p // len(symbols)], symbols[p % len(symbols)], batch.kind) for p in present]


def _dictionary(column: pa.Array) -> pa.DictionaryArray:
    return column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)


def _microseconds(column: pa.Array) -> Any:
    return column.cast(pa.timestamp("us", tz="UTC")).view(pa.int64()).to_numpy(zero_copy_only=False)
