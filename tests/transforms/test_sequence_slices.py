"""SequenceSlices: one small element for each key of a bundle."""

from __future__ import annotations

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import GlobalWindow, TimestampedValue
from apache_beam.utils.timestamp import MIN_TIMESTAMP

from k2beam.model import TIMESTAMP, EventBatch, Kind
from k2beam.sequence import Slice
from k2beam.sequence.rules import NO_RULES
from transforms import sequence_slices
from transforms.sequence_slices import GatheredMessages, SequenceSlices, SliceCoder

Row = tuple[str, str, int | None, int]


def batch(rows: list[Row], kind: Kind = "trades", element_time: list[int] | None = None) -> EventBatch:
    exchange, symbol, sequence, time = (list(column) for column in zip(*rows, strict=True)) if rows else ([],) * 4
    data = pa.RecordBatch.from_arrays(
        [
            pa.array(exchange, pa.string()),
            pa.array(symbol, pa.string()),
            pa.array(sequence, pa.int64()),
            pa.array(time, TIMESTAMP),
        ],
        names=["exchange", "symbol", "source_sequence", "timestamp"],
    )
    return EventBatch(kind, data, None if element_time is None else pa.array(element_time, TIMESTAMP))


ROWS: list[Row] = [
    ("X", "A", 7, 100),
    ("X", "B|C", 1, 200),
    ("Y", "A", 1, 300),
    ("X", "A", 8, 400),
    ("X", "A", None, 150),
]


def slices_of(batch: EventBatch, read_at: int | None = None) -> list[tuple[str, Slice]]:
    """Of one batch alone."""
    messages = GatheredMessages()
    messages.add(batch, read_at)
    return messages.slices()


def summary(slices: list[tuple[str, Slice]]) -> dict[str, tuple[int, int, list[tuple[int, ...]]]]:
    contents = {key: piece.read() for key, piece in slices}
    return {key: (c.messages, c.nulls, [tuple(run) for run in c.runs]) for key, c in contents.items()}


def test_each_key_of_a_batch_has_its_slice() -> None:
    assert summary(slices_of(batch(ROWS))) == {
        "X|A|trades": (3, 1, [(7, 7, 100, 100), (8, 8, 400, 400)]),
        "X|B%7CC|trades": (1, 0, [(1, 1, 200, 200)]),
        "Y|A|trades": (1, 0, [(1, 1, 300, 300)]),
    }


def test_dictionary_columns_and_slices_of_a_batch_work_too() -> None:
    plain = batch(ROWS)
    columns = [plain.data.column(0).dictionary_encode(), plain.data.column(1).dictionary_encode()]
    encoded = pa.RecordBatch.from_arrays([*columns, *plain.data.columns[2:]], names=plain.data.schema.names)
    assert slices_of(EventBatch("trades", encoded)) == slices_of(plain)
    assert summary(slices_of(EventBatch("trades", encoded.slice(3)))) == {"X|A|trades": (2, 1, [(8, 8, 400, 400)])}


def test_kinds_without_sequences_and_empty_batches_give_nothing() -> None:
    reference = pa.RecordBatch.from_arrays([pa.array(["X"]), pa.array(["A"])], names=["exchange", "symbol"])
    assert slices_of(EventBatch("reference_data", reference)) == []
    assert slices_of(batch([])) == []


def test_element_time_of_the_log_counts_where_there_is_one() -> None:
    slices = slices_of(batch(ROWS[:2], "quotes", [5000, 6000]))
    assert {key: piece.read().highest_element_time for key, piece in slices} == {
        "X|A|quotes": 5000,
        "X|B%7CC|quotes": 6000,
    }


def test_the_time_of_reading_counts_and_no_log_time_years_ahead() -> None:
    slices = slices_of(batch(ROWS[:2], "quotes", [5000, 253_402_300_799_000_000]), 5500)
    assert {key: piece.read().highest_element_time for key, piece in slices} == {
        "X|A|quotes": 5500,
        "X|B%7CC|quotes": 5500,
    }


def test_batches_of_all_kinds_make_one_slice_for_each_key() -> None:
    messages = GatheredMessages()
    messages.add(batch(ROWS[:3]), 5000)
    messages.add(batch(ROWS[1:], "quotes", [1, 2, 3, 4]))
    messages.add(batch(ROWS[3:]), 6000)
    slices = dict(messages.slices())
    assert messages.rows == 9
    assert {key: piece.read().messages for key, piece in slices.items()} == {
        "X|A|trades": 3,
        "X|B%7CC|trades": 1,
        "Y|A|trades": 1,
        "X|B%7CC|quotes": 1,
        "Y|A|quotes": 1,
        "X|A|quotes": 2,
    }
    whole, apart = dict(slices_of(batch(ROWS), 6000))["X|A|trades"].read(), slices["X|A|trades"].read()
    assert apart == whole._replace(lowest_element_time=5000)


def test_a_large_bundle_gives_slices_before_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence_slices, "ROWS_SLICED", 5)
    fn = sequence_slices._SliceBatches(NO_RULES)
    fn.start_bundle()
    early = [[element.value[0] for element in fn.process(batch(ROWS[:4]), MIN_TIMESTAMP)] for _ in range(3)]
    late = [element.value[0] for element in fn.finish_bundle()]
    keys = ["X|A|trades", "X|B%7CC|trades", "Y|A|trades"]
    assert (early, late) == ([[], keys, []], keys)


class _Stamp(beam.DoFn):  # type: ignore[misc]
    def process(self, element, timestamp=beam.DoFn.TimestampParam, window=beam.DoFn.WindowParam):  # type: ignore[no-untyped-def]
        yield element[0], timestamp.micros, window == GlobalWindow()


@pytest.mark.parametrize(("input_time", "expected"), [(None, (400, 200)), (0.0003, (300, 300))])
def test_slices_have_the_time_of_their_last_row_or_of_the_reading_of_their_batch(
    input_time: float | None, expected: tuple[int, int]
) -> None:
    with TestPipeline(runner="FnApiRunner") as pipeline:
        batches = pipeline | beam.Create([batch([ROWS[0], ROWS[1], ROWS[3]])])
        if input_time is not None:
            batches |= beam.Map(lambda b: TimestampedValue(b, input_time))
            batches |= beam.WindowInto(beam.window.FixedWindows(60))
        stamped = batches | SequenceSlices() | beam.ParDo(_Stamp())
        assert_that(stamped, equal_to([("X|A|trades", expected[0], True), ("X|B%7CC|trades", expected[1], True)]))


def test_the_coder_is_the_packed_form() -> None:
    [(_, piece), *_] = slices_of(batch(ROWS))
    coder = beam.coders.registry.get_coder(Slice)
    assert isinstance(coder, SliceCoder)
    assert coder.decode(coder.encode(piece)) == piece
    assert coder.estimate_size(piece) == len(coder.encode(piece)) == len(piece.data)
