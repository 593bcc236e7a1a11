"""The reference decoder: what it reads, and that nothing lenient gets through."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from k2beam.codec.columns import varint_sizes
from k2beam.codec.reference import CHUNK_ROWS, ReferenceDecoder
from k2beam.codec.strict import decode_exact
from k2beam.codec.writer_schema import WriterSchema
from k2beam.schemas import payload_arrow_schema
from tests.codec_samples import (
    EVENT_SCHEMAS,
    MAKERS,
    START,
    classes,
    encode,
    encode_as,
    evolved,
    framed,
    rows_of,
    text,
    trade,
    trade_bytes,
    varint,
    writer,
)

DECODER = ReferenceDecoder()
TRADE = writer("trade_v2")
MIN_INT64 = -(2**63)


@pytest.mark.parametrize("name", EVENT_SCHEMAS)
def test_every_field_of_every_schema_comes_back(name: str) -> None:
    records = [MAKERS[name](i) for i in range(7)]
    decoded = DECODER.decode([framed(encode_as(name, record)) for record in records], 5, writer(name))
    assert decoded.errors == ()
    assert decoded.rows.tolist() == list(range(7))
    assert decoded.columns.schema == payload_arrow_schema(name)
    assert rows_of(decoded) == [{key: record[key] for key in decoded.columns.schema.names} for record in records]


def test_no_payload_gives_no_row() -> None:
    decoded = DECODER.decode([], 5, TRADE)
    assert decoded.columns.num_rows == 0
    assert decoded.columns.schema == payload_arrow_schema("trade_v2")


def test_a_slice_of_a_column_is_read_from_its_offset() -> None:
    column = pa.array([framed(encode_as("trade_v2", trade(i))) for i in range(6)], type=pa.binary())
    assert [row["message_id"] for row in rows_of(DECODER.decode(column[2:5], 5, TRADE))] == ["m-2", "m-3", "m-4"]


def test_rows_and_errors_keep_their_place_over_many_chunks() -> None:
    count = 2 * CHUNK_ROWS + 10
    payloads = [framed(trade_bytes(message_id=text(str(i)))) for i in range(count)]
    bad = {0, 7, CHUNK_ROWS, count - 1}
    for row in bad:
        payloads[row] += b"\x00"
    decoded = DECODER.decode(payloads, 5, TRADE)
    assert classes(decoded) == dict.fromkeys(sorted(bad), "trailing_bytes")
    assert all(error.payload == payloads[error.row] for error in decoded.errors)
    assert decoded.rows.tolist() == [i for i in range(count) if i not in bad]
    assert decoded.columns.column("message_id").to_pylist() == [str(row) for row in decoded.rows]


@pytest.mark.parametrize(
    ("parts", "error_class"),
    [
        ({"source_sequence": varint(1) + varint(9, overlong=1)}, "overlong_varint"),
        ({"source_sequence": varint(1) + b"\xff" * 9 + b"\x03"}, "varint_overflow"),
        ({"source_sequence": varint(-1) + varint(9)}, "bad_union_index"),
        ({"source_sequence": varint(-64) + varint(9)}, "bad_union_index"),
        ({"source_sequence": varint(-65) + varint(9)}, "bad_union_index"),
        ({"source_sequence": varint(-66)}, "bad_union_index"),
        ({"source_sequence": varint(2)}, "bad_union_index"),
        ({"side": varint(-1)}, "bad_enum_index"),
        ({"side": varint(4)}, "bad_enum_index"),
        ({"side": varint(-65)}, "bad_enum_index"),
        ({"symbol": varint(-1)}, "negative_length"),
        ({"symbol": varint(MIN_INT64)}, "negative_length"),
        ({"symbol": varint(2**62)}, "truncated"),
        ({"symbol": varint(2) + b"\xc3\x28"}, "invalid_utf8"),
        ({"symbol": varint(3, overlong=1) + b"BHP"}, "overlong_varint"),
        ({"trade_conditions": varint(2**62)}, "truncated"),
        ({"trade_conditions": varint(MIN_INT64) + varint(0) + varint(0)}, "truncated"),
        ({"trade_conditions": varint(-1) + varint(3) + text("a") + varint(0)}, "bad_block_size"),
        ({"vendor_data": varint(1) + varint(2) + (text("k") + text("v")) * 2 + varint(0)}, "duplicate_key"),
        ({"vendor_data": varint(0) + b"\x00"}, "trailing_bytes"),
        ({"vendor_data": b""}, "truncated"),
        ({"price": varint(9) + (10**18).to_bytes(9, "big")}, "decimal_overflow"),
        ({"price": varint(8) + (10**18).to_bytes(8, "big")}, "decimal_overflow"),
        ({"price": varint(8) + (-(10**18)).to_bytes(8, "big", signed=True)}, "decimal_overflow"),
        ({"price": varint(0)}, "bad_decimal"),
        ({"timestamp": varint(253_402_300_800_000_000)}, "timestamp_overflow"),
        ({"timestamp": varint(-62_135_596_800_000_001)}, "timestamp_overflow"),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_what_fastavro_lets_pass_is_an_error(parts: dict[str, bytes], error_class: str, last: bool) -> None:
    good, bad = framed(trade_bytes()), framed(trade_bytes(**parts))
    payloads = [good, bad] if last else [good, bad, good]
    decoded = DECODER.decode(payloads, 5, TRADE)
    assert classes(decoded) == {1: error_class}
    assert decoded.errors[0].payload == bad
    assert len(rows_of(decoded)) == len(payloads) - 1


def test_a_string_cut_short_by_the_end_of_all_input_is_truncated() -> None:
    # Reference data ends in a string: nothing comes after it that would run out of bytes.
    body = encode_as("reference_data", MAKERS["reference_data"](end_date="07/31/2015"))
    assert classes(DECODER.decode([framed(body[:-4])], 5, writer("reference_data"))) == {0: "truncated"}


def test_a_record_that_borrows_the_next_one_s_first_byte_is_an_error() -> None:
    # One byte too long in a number and one short at the end: only the position after it gives it away.
    bad = trade_bytes(source_sequence=varint(1) + varint(9, overlong=1), vendor_data=b"")
    assert len(bad) == len(trade_bytes(vendor_data=varint(0)))
    decoded = DECODER.decode([framed(bad), framed(trade_bytes())], 5, TRADE)
    assert classes(decoded) == {0: "overlong_varint"}


def test_enums_of_more_symbols_than_one_byte_can_tell() -> None:
    symbols = ["BUY", "SELL", "SELL_SHORT", "UNKNOWN", *(f"S{i}" for i in range(100))]
    side = {"type": "enum", "name": "TradeSide", "symbols": symbols}
    schema = evolved("trade_v2", side=side)
    payloads = [trade_bytes(side=varint(index)) for index in (3, 4, 103, 104, -1, -65, -104)]
    decoded = DECODER.decode(payloads, 0, WriterSchema.parse(json.dumps(schema)))
    assert decoded.columns.column("side").to_pylist() == ["UNKNOWN"]
    assert list(classes(decoded).values()) == ["unresolvable_value"] * 2 + ["bad_enum_index"] * 4


def test_a_payload_shorter_than_its_frame_is_an_error() -> None:
    assert classes(DECODER.decode([b"\x00\x00", framed(trade_bytes())], 5, TRADE)) == {0: "truncated"}


def test_booleans_are_one_byte_0_or_1() -> None:
    schema = writer("reference_data_v2")
    false, true = (encode_as("reference_data_v2", MAKERS["reference_data_v2"](0, is_active=b)) for b in (False, True))
    (at,) = [i for i in range(len(true)) if true[i] != false[i]]
    payloads = [true, false, *(true[:at] + bytes([byte]) + true[at + 1 :] for byte in (2, 3, 127, 128, 255))]
    decoded = DECODER.decode(payloads, 0, schema)
    assert decoded.columns.column("is_active").to_pylist() == [True, False]
    assert set(classes(decoded)) == {2, 3, 4, 5, 6}


def test_a_legal_encoding_in_several_blocks_is_read() -> None:
    blocks = varint(1) + text("a") + varint(-2) + varint(4) + text("b") * 2 + varint(0)
    decoded = DECODER.decode([trade_bytes(), trade_bytes(trade_conditions=blocks)], 0, TRADE)
    assert decoded.errors == ()
    assert decoded.columns.column("trade_conditions").to_pylist() == [["a", "b"], ["a", "b", "b"]]


def test_int32_is_checked() -> None:
    good = encode_as("trade", MAKERS["trade"](qualifiers=2**31 - 1))
    decoded = DECODER.decode([good, good.replace(varint(2**31 - 1), varint(2**31))], 0, writer("trade"))
    assert classes(decoded) == {1: "int_overflow"}
    assert decoded.columns.column("qualifiers").to_pylist() == [2**31 - 1]


def test_decimals_of_every_width_and_sign() -> None:
    values = [0, 1, -1, 127, 128, -128, -129, 2**31, -(2**47), 10**18 - 1, -(10**18) + 1]
    encodings = [
        value.to_bytes(size, "big", signed=True)
        for value in values
        for size in (1, 2, 5, 6, 7, 8, 9, 16)
        if _fits(value, size)
    ]
    decoded = DECODER.decode([trade_bytes(price=varint(len(part)) + part) for part in encodings], 0, TRADE)
    assert decoded.errors == ()
    expected = [Decimal(int.from_bytes(part, "big", signed=True)).scaleb(-8) for part in encodings]
    assert decoded.columns.column("price").to_pylist() == expected


def _fits(value: int, size: int) -> bool:
    return -(1 << 8 * size - 1) <= value < 1 << 8 * size - 1


def test_millis_beyond_microseconds_are_an_error() -> None:
    body = encode_as("trade", MAKERS["trade"]())
    millis = varint(int(START.timestamp()) * 1000)
    far = varint(2**61)
    bad = body.replace(millis, far, 1)
    decoded = DECODER.decode([body, bad], 0, writer("trade"))
    assert classes(decoded) == {1: "timestamp_overflow"}
    assert decoded.columns.column("exchange_timestamp").to_pylist() == [START]


def test_a_value_out_of_range_comes_with_the_record() -> None:
    payload = trade_bytes(price=varint(9) + (-(10**18)).to_bytes(9, "big", signed=True))
    (error,) = DECODER.decode([payload], 0, TRADE).errors
    assert error.message.startswith("price: ")
    assert error.record is not None
    assert error.record["price"] == Decimal("-10000000000.00000000")
    assert error.record["symbol"] == "BHP"
    assert error.record["timestamp"].year == 2023


def test_a_decimal_of_more_digits_than_python_writes_out_is_told_as_its_bytes() -> None:
    wide = b"\x7f" + bytes(2999)
    payload = trade_bytes(price=varint(3000) + wide)
    (error,) = DECODER.decode([payload], 0, TRADE).errors
    assert (error.error_class, error.payload) == ("decimal_overflow", payload)
    assert error.record is not None
    assert error.record["price"] == wide


def test_writers_with_types_that_no_column_has_are_read() -> None:
    extra = {
        "name": "extra",
        "type": [
            "null",
            "int",
            "string",
            {"type": "record", "name": "X", "fields": [{"name": "b", "type": "boolean"}]},
        ],
    }
    schema = evolved("trade_v2", extra=extra)
    parsed = WriterSchema.parse(json.dumps(schema))
    assert not parsed.columnar
    payloads = [encode(schema, {**trade(i), "extra": value}) for i, value in enumerate([None, 5, "x", {"b": True}])]
    texts = [None, "5", "x", '{"b": true}']
    expected = [{**trade(i), "extra": text} for i, text in enumerate(texts)]
    decoded = DECODER.decode([*payloads, payloads[0] + b"\x00"], 0, parsed)
    assert rows_of(decoded) == expected
    assert classes(decoded) == {4: "trailing_bytes"}
    assert rows_of(DECODER.decode_block(b"".join(payloads), 4, parsed)) == expected


def test_extra_fields_of_every_column_type_are_measured() -> None:
    """Their lengths count in the check; an overlong varint in any of them must show."""
    types: dict[str, tuple[Any, Any, str | None]] = {
        "a": ("float", 1.5, "1.5"),
        "b": ("double", 1.5, "1.5"),
        "c": ({"type": "fixed", "name": "F", "size": 3}, b"abc", "YWJj"),
        "d": (["null", "boolean"], True, "true"),
        "e": (["string", "null"], None, None),
        "f": ({"type": "array", "items": ["null", "long"]}, [None, -(2**40), 64], f"[null, {-(2**40)}, 64]"),
        "g": ({"type": "map", "values": {"type": "array", "items": "int"}}, {"x": [1], "y": []}, '{"x": [1], "y": []}'),
        "h": ({"type": "bytes", "logicalType": "decimal", "precision": 50, "scale": 2}, Decimal("1e30"), f"{10**30}"),
        "i": ({"type": "long", "logicalType": "timestamp-millis"}, START, START.strftime("%Y-%m-%dT%H:%M:%S.%fZ")),
    }
    schema = evolved("trade_v2", **{name: {"name": name, "type": kind} for name, (kind, _, _) in types.items()})
    parsed = WriterSchema.parse(json.dumps(schema))
    assert parsed.columnar
    body = encode(schema, {**trade(), **{name: value for name, (_, value, _) in types.items()}})
    decoded = DECODER.decode([body, body.replace(varint(-(2**40)), varint(-(2**40), overlong=1))], 0, parsed)
    assert rows_of(decoded) == [trade() | {name: text for name, (_, _, text) in types.items()}]
    assert classes(decoded) == {1: "overlong_varint"}


def test_the_fast_path_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Good rows must not reach the strict decoder, at thirty times the price."""
    payloads = [encode_as("trade_v2", trade(i)) for i in range(50)]
    seen: list[bytes] = []

    def spy(data: bytes, start: int, end: int, schema: Any) -> dict[str, Any]:
        seen.append(data[start:end])
        return decode_exact(data, start, end, schema)

    monkeypatch.setattr("k2beam.codec.assemble.decode_exact", spy)
    odd = trade_bytes(side=varint(-1))
    DECODER.decode([*payloads, odd], 0, TRADE)
    assert seen == [odd]


def test_varint_sizes_at_their_steps() -> None:
    edges = [0, *(edge for size in range(1, 10) for edge in ((1 << 7 * size) - 1, 1 << 7 * size)), 2**64 - 1]
    expected = [max(1, (edge.bit_length() + 6) // 7) for edge in edges]
    assert varint_sizes(np.array(edges, dtype=np.uint64)).tolist() == expected
