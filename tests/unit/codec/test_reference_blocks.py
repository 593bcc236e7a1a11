"""The reference decoder on blocks of plain containers: what costs a record, and what its block."""

from __future__ import annotations

import json

import pytest

from k2beam.codec.reference import CHUNK_ROWS, ReferenceDecoder
from k2beam.codec.writer_schema import WriterSchema
from tests.codec_samples import classes, encode_as, evolved, rows_of, text, trade, trade_bytes, varint, writer

DECODER = ReferenceDecoder()
TRADE = writer("trade_v2")


def test_a_block_is_read_whole() -> None:
    records = [trade(i) for i in range(CHUNK_ROWS + 5)]
    block = b"".join(encode_as("trade_v2", record) for record in records)
    decoded = DECODER.decode_block(block, len(records), TRADE)
    assert decoded.errors == ()
    assert rows_of(decoded) == records


def test_an_empty_block_is_read() -> None:
    decoded = DECODER.decode_blocks([(b"", 0), (trade_bytes(), 1), (b"", 0)], TRADE)
    assert (decoded.columns.num_rows, decoded.errors) == (1, ())


GOOD = trade_bytes() * 3


@pytest.mark.parametrize(
    ("block", "count", "why"),
    [
        (GOOD[:-1], 3, "truncated"),
        (GOOD + b"\x00", 3, "trailing_bytes"),
        (GOOD, 4, "truncated"),
        (GOOD, 2, "trailing_bytes"),
        (GOOD, 2**40, "announces"),
        (GOOD, -1, "announces"),
        (trade_bytes() + trade_bytes(side=varint(-1), trade_conditions=varint(-1)) + trade_bytes(), 3, "record 1: "),
        (trade_bytes() + trade_bytes(symbol=varint(-1)), 2, "negative_length"),
    ],
)
def test_a_broken_block_is_one_error_between_good_ones(block: bytes, count: int, why: str) -> None:
    counted = max(count, 0)
    decoded = DECODER.decode_blocks([(GOOD, 3), (block, count), (GOOD, 3)], TRADE)
    (error,) = decoded.errors
    assert (error.row, error.error_class, error.payload) == (3, "broken_block", block)
    assert why in error.message
    assert decoded.rows.tolist() == [0, 1, 2, *(3 + counted + i for i in range(3))]
    assert len(rows_of(decoded)) == 6


def test_a_broken_block_takes_back_rows_of_earlier_chunks() -> None:
    count = CHUNK_ROWS + 100
    block = trade_bytes() * (count - 1) + trade_bytes(symbol=varint(-1))
    overflow = trade_bytes(price=varint(0))
    decoded = DECODER.decode_blocks([(overflow + block[len(trade_bytes()) :], count), (GOOD, 3)], TRADE)
    assert classes(decoded) == {0: "broken_block"}
    assert decoded.rows.tolist() == [count, count + 1, count + 2]


def test_a_lenient_reading_in_an_early_chunk_breaks_its_block() -> None:
    count = CHUNK_ROWS + 100
    odd = trade_bytes(source_sequence=varint(1) + varint(9, overlong=1))
    decoded = DECODER.decode_blocks([(odd + trade_bytes() * (count - 1), count), (GOOD, 3)], TRADE)
    assert classes(decoded) == {0: "broken_block"}
    assert decoded.errors[0].message.startswith("overlong_varint: record 0: source_sequence: ")
    assert decoded.rows.tolist() == [count, count + 1, count + 2]


def test_what_is_said_of_a_broken_block_does_not_depend_on_its_neighbours() -> None:
    odd = trade_bytes(source_sequence=varint(1) + varint(9, overlong=1))
    broken = (odd + trade_bytes()[:-1], 2)
    before = (trade_bytes() * (CHUNK_ROWS - 1), CHUNK_ROWS - 1)
    (alone,) = DECODER.decode_blocks([broken], TRADE).errors
    (after,) = DECODER.decode_blocks([before, broken], TRADE).errors
    assert after.message == alone.message


ENDS_WHERE_IT_SHOULD = {
    "bad_enum_index": ({"side": varint(9)}, {"side": varint(-1)}, {"asset_class": varint(2**40)}),
    "invalid_utf8": ({"symbol": b"\x06B\xffP"}, {"vendor_data": varint(1) + varint(1) + b"\x02\xff\x00" + varint(0)}),
    "duplicate_key": ({"vendor_data": varint(1) + varint(2) + (text("k") + text("v")) * 2 + varint(0)},),
}
"""Errors of a value whose end is known."""


@pytest.mark.parametrize(
    ("error_class", "parts"), [(name, parts) for name, several in ENDS_WHERE_IT_SHOULD.items() for parts in several]
)
def test_a_bad_value_whose_end_is_known_costs_its_record_alone(error_class: str, parts: dict[str, bytes]) -> None:
    bad = trade_bytes(**parts)
    decoded = DECODER.decode_blocks([(GOOD, 3), (GOOD + bad + GOOD, 7), (GOOD, 3)], TRADE)
    (error,) = decoded.errors
    assert (error.row, error.error_class, error.payload) == (6, error_class, bad)
    assert error.message.startswith(f"{next(iter(parts))}: at byte ")
    assert decoded.rows.tolist() == [row for row in range(13) if row != 6]
    assert rows_of(decoded) == rows_of(DECODER.decode_block(trade_bytes() * 12, 12, TRADE))


@pytest.mark.parametrize(
    ("extra", "stored", "error_class"),
    [("boolean", b"\x02", "bad_boolean"), ("boolean", b"\xff", "bad_boolean"), ("int", varint(2**31), "int_overflow")],
)
def test_bad_booleans_and_ints_cost_their_record_alone(extra: str, stored: bytes, error_class: str) -> None:
    schema = WriterSchema.parse(json.dumps(evolved("trade_v2", extra=extra)))
    good = trade_bytes() + b"\x00"
    decoded = DECODER.decode_block(good + trade_bytes() + stored + good, 3, schema)
    assert classes(decoded) == {1: error_class}
    assert decoded.errors[0].payload == trade_bytes() + stored
    assert decoded.rows.tolist() == [0, 2]


def test_an_error_that_hides_the_end_breaks_the_block_also_after_one_that_does_not() -> None:
    block = trade_bytes(side=varint(9)) + trade_bytes(symbol=varint(-1)) + trade_bytes()
    (error,) = DECODER.decode_block(block, 3, TRADE).errors
    assert (error.row, error.error_class, error.payload) == (0, "broken_block", block)
    assert error.message.startswith("negative_length: record 1: symbol: ")


def test_many_bad_records_of_many_blocks_are_each_told() -> None:
    bad = trade_bytes(side=varint(9))
    block = (GOOD + bad) * CHUNK_ROWS
    decoded = DECODER.decode_blocks([(block, 4 * CHUNK_ROWS), (GOOD, 3), (block, 4 * CHUNK_ROWS)], TRADE)
    bad_rows = [4 * number + 3 for number in range(CHUNK_ROWS)]
    after = 4 * CHUNK_ROWS + 3
    assert [error.row for error in decoded.errors] == bad_rows + [after + row for row in bad_rows]
    assert all(error.payload == bad for error in decoded.errors)
    assert len(decoded.rows) == 6 * CHUNK_ROWS + 3


def test_a_faulty_value_in_a_good_block_is_an_error_of_its_row() -> None:
    bad = trade_bytes(price=varint(9) + (10**18).to_bytes(9, "big"))
    decoded = DECODER.decode_blocks([(GOOD + bad + trade_bytes(), 5)], TRADE)
    (error,) = decoded.errors
    assert (error.row, error.error_class, error.payload) == (3, "decimal_overflow", bad)
    assert decoded.rows.tolist() == [0, 1, 2, 4]


def test_a_legal_encoding_in_several_blocks_does_not_break_a_container_block() -> None:
    odd = trade_bytes(trade_conditions=varint(-1) + varint(2) + text("a") + varint(0))
    decoded = DECODER.decode_blocks([(trade_bytes() + odd, 2)], TRADE)
    assert decoded.errors == ()
    assert decoded.columns.column("trade_conditions").to_pylist() == [["a", "b"], ["a"]]
