"""SequenceSlices: the sequence numbers of batches, as a small slice for each key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.transforms.window import GlobalWindow, TimestampedValue
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from k2beam.model import EventBatch, Kind
from k2beam.schemas import EVENT_TIME_COLUMN
from k2beam.sequence import SequenceRules, Slice, format_key, slice_runs
from k2beam.sequence.rules import NO_RULES, values_of
from transforms.coders import BatchCoder

SEQUENCE_COLUMN = "source_sequence"
ROWS_SLICED = 1_000_000
"""Rows that are sliced together at most: 32 bytes are held of each."""


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

    A key's slice has its rows of a bundle, or of a million rows of a larger one: few elements cross the shuffle.
    Kinds without a ``source_sequence`` (reference data) give nothing. Where a batch has a Beam timestamp, the time of
    its reading, that is the element time of its rows: of a backlog, the grace begins when a message is read and not
    when it was logged, or each message would be folded before the one that a shuffle still holds; and a message whose
    log time lies years ahead must not hold its key back until then. A slice's Beam timestamp is its highest element
    time. Nothing is kept between bundles: one that is processed again gives the same slices, and the fold takes a
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

    def __init__(self, rules: SequenceRules = NO_RULES) -> None:
        super().__init__()
        self._rules = rules

    def expand(self, batches: beam.PCollection[EventBatch]) -> beam.PCollection[tuple[str, Slice]]:
        return (
            batches
            | "Global" >> beam.WindowInto(beam.window.GlobalWindows())
            | "Slice" >> beam.ParDo(_SliceBatches(self._rules)).with_output_types(tuple[str, Slice])
        )


class _SliceBatches(beam.DoFn):  # type: ignore[misc]
    def __init__(self, rules: SequenceRules) -> None:
        self._rules = rules

    def start_bundle(self) -> None:
        self._messages = GatheredMessages(self._rules)

    def process(self, batch: EventBatch, timestamp: Timestamp = beam.DoFn.TimestampParam) -> Iterator[TimestampedValue]:
        self._messages.add(batch, None if timestamp == MIN_TIMESTAMP else timestamp.micros)
        if self._messages.rows >= ROWS_SLICED:
            for element, moment in self._slices():
                yield TimestampedValue(element, moment)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for element, moment in self._slices():
            yield WindowedValue(element, moment, (GlobalWindow(),))

    def _slices(self) -> Iterator[tuple[tuple[str, Slice], Timestamp]]:
        messages, self._messages = self._messages, GatheredMessages(self._rules)
        latest = GlobalWindow().max_timestamp()
        for key, piece in messages.slices():
            yield (key, piece), min(Timestamp(micros=piece.highest_element_time), latest)


class GatheredMessages:
    """What the sequence numbers of batches need, gathered in order of arrival."""

    def __init__(self, rules: SequenceRules = NO_RULES) -> None:
        self.rows = 0
        self._rules = rules
        self._keys: dict[tuple[str, str, Kind], int] = {}
        self._columns: list[tuple[Any, Any, Any, Any]] = []

    def add(self, batch: EventBatch, read_at: int | None = None) -> None:
        """Take in a batch; nothing of it if its kind has no sequence numbers.

        ``read_at`` (microseconds) is the element time of all rows; without it each row's is the log's, or its event's.
        """
        data = batch.data
        if SEQUENCE_COLUMN not in data.schema.names or not data.num_rows:
            return
        times = _microseconds(data.column(EVENT_TIME_COLUMN[batch.kind]))
        # A negative number counts as none, as a null does.
        sequences = pc.fill_null(data.column(SEQUENCE_COLUMN), -1).to_numpy(zero_copy_only=False)
        rules = self._rules.of_kind(batch.kind)
        exchange, symbol = (_dictionary(data.column(name)) for name in ("exchange", "symbol"))
        codes, names, sequences = rules.number(exchange, symbol, times, sequences, values_of(data))
        keys = ((owner, name, batch.kind) for owner, name in names)
        numbers = np.array([self._keys.setdefault(key, len(self._keys)) for key in keys], dtype=np.int64)
        if read_at is not None:
            element_times = np.full(len(times), read_at, dtype=np.int64)
        else:
            element_times = times if batch.element_time is None else _microseconds(batch.element_time)
        self._columns.append((numbers[codes], sequences, times, element_times))
        self.rows += data.num_rows

    def slices(self) -> list[tuple[str, Slice]]:
        """The slice of each key that has rows."""
        if not self._columns:
            return []
        codes, sequences, times, element_times = map(np.concatenate, zip(*self._columns, strict=True))
        keys = [format_key(*key) for key in self._keys]
        return [(keys[code], piece) for code, piece in slice_runs(codes, sequences, times, element_times=element_times)]


def _dictionary(column: pa.Array) -> pa.DictionaryArray:
    return column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)


def _microseconds(column: pa.Array) -> Any:
    return column.cast(pa.timestamp("us", tz="UTC")).view(pa.int64()).to_numpy(zero_copy_only=False)
