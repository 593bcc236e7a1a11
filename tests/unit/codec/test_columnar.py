"""The columnar decoder: it equals the reference in every outcome, and takes the common rows itself."""

from __future__ import annotations

import json
import random
import tracemalloc
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.codec.columnar import decoder as columnar
from k2beam.codec.columnar.decoder import MIN_ROWS, ColumnarDecoder
from k2beam.codec.columnar.lanes import Buffer, Lanes
from k2beam.codec.columnar.plan import MAX_ITEMS
from k2beam.codec.reference import ReferenceDecoder
from k2beam.codec.writer_schema import Decoded, WriterSchema
from tests.codec_samples import (
    EVENT_SCHEMAS,
    MAKERS,
    START,
    encode,
    encode_as,
    evolved,
    framed,
    mutated,
    text,
    trade,
    trade_bytes,
    varint,
    writer,
)
from tests.columnar_helpers import MIN_INT64, Spy, assert_same, rows_of

REFERENCE = ReferenceDecoder()
COLUMNAR = ColumnarDecoder(min_rows=0)
TRADE = writer("trade_v2")
RANDOM_BATCHES = settings(max_examples=40, deadline=None)


def assert_decodes_as_reference(payloads: list[bytes], schema: WriterSchema, body_offset: int = 0) -> Decoded:
    decoded = COLUMNAR.decode(payloads, body_offset, schema)
    assert_same(decoded, REFERENCE.decode(payloads, body_offset, schema))
    return decoded


def given_to_reference(payloads: list[bytes], schema: WriterSchema = TRADE) -> list[bytes]:
    """The payloads that the columnar decoder does not take itself; its answer is checked on the way."""
    spy = Spy()
    assert_same(ColumnarDecoder(spy, min_rows=0).decode(payloads, 0, schema), REFERENCE.decode(payloads, 0, schema))
    return spy.rows


@pytest.mark.parametrize("name", EVENT_SCHEMAS)
def test_rows_of_every_schema_are_taken_without_the_reference(name: str) -> None:
    assert COLUMNAR.supports(writer(name))
    assert given_to_reference([encode_as(name, MAKERS[name](i)) for i in range(25)], writer(name)) == []


@pytest.mark.parametrize("name", EVENT_SCHEMAS)
def test_generated_rows_decode_as_in_the_reference(name: str) -> None:
    schema = writer(name)
    rows = st.one_of(rows_of(schema, odd=False), rows_of(schema, odd=True))
    good = bad = 0

    @RANDOM_BATCHES
    @given(st.lists(rows, min_size=1, max_size=12))
    def check(payloads: list[bytes]) -> None:
        nonlocal good, bad
        decoded = assert_decodes_as_reference(payloads, schema)
        good, bad = good + len(decoded.rows), bad + len(decoded.errors)

    check()
    assert good > 10
    assert bad > 10


@RANDOM_BATCHES
@given(st.sampled_from(EVENT_SCHEMAS), st.randoms(use_true_random=False), st.integers(0, 6))
def test_mutated_rows_decode_as_in_the_reference(name: str, rng: random.Random, body_offset: int) -> None:
    seeds = [encode_as(name, MAKERS[name](i)) for i in range(4)]
    bodies = [mutated(rng.choice(seeds), rng) if rng.random() < 0.7 else rng.choice(seeds) for _ in range(30)]
    payloads = [rng.randbytes(body_offset) + body for body in bodies]
    assert_decodes_as_reference([*payloads, b"", b"\x00"], writer(name), body_offset)


@pytest.mark.parametrize("name", EVENT_SCHEMAS)
def test_a_row_cut_anywhere_is_the_reference_s(name: str) -> None:
    body = encode_as(name, MAKERS[name](1))
    decoded = assert_decodes_as_reference([body[:length] for length in range(len(body) + 1)] + [body], writer(name))
    assert decoded.rows.tolist() == [len(body), len(body) + 1]


@pytest.mark.parametrize(
    "parts",
    [
        {"source_sequence": varint(1) + varint(9, overlong=1)},
        {"source_sequence": varint(1) + varint(2**56, overlong=1)},
        {"source_sequence": varint(1) + b"\xff" * 8 + b"\x00"},
        {"source_sequence": varint(1) + b"\xff" * 9 + b"\x00"},
        {"source_sequence": varint(1) + b"\xff" * 9 + b"\x02"},
        {"source_sequence": varint(1) + b"\xff" * 10},
        {"source_sequence": varint(-1) + varint(9)},
        {"source_sequence": varint(2)},
        {"source_sequence": varint(1, overlong=1) + varint(9)},
        {"side": varint(-1)},
        {"side": varint(4)},
        {"side": varint(4000)},
        {"symbol": varint(-1)},
        {"symbol": varint(MIN_INT64)},
        {"symbol": varint(2**63 - 1)},
        {"symbol": varint(3, overlong=1) + b"BHP"},
        {"symbol": varint(2) + b"\xc3\x28"},
        {"price": varint(0)},
        {"price": varint(-1)},
        {"price": varint(8) + (10**18).to_bytes(8, "big")},
        {"price": varint(9) + (10**18).to_bytes(9, "big")},
        {"price": varint(16) + b"\x01" + bytes(15)},
        {"price": varint(9) + b"\xff" + bytes(8)},
        {"timestamp": varint(253_402_300_800_000_000)},
        {"trade_conditions": varint(2**62)},
        {"trade_conditions": varint(MIN_INT64) + varint(0) + varint(0)},
        {"trade_conditions": varint(-1) + varint(3) + text("a") + varint(0)},
        {"trade_conditions": varint(-1) + varint(-2) + text("a") + varint(0)},
        {"trade_conditions": varint(1) + varint(1) + b"\xff" + varint(0)},
        {"vendor_data": varint(1) + varint(2) + (text("k") + text("v")) * 2 + varint(0)},
        {"vendor_data": varint(1) + varint(1) + text("k") + varint(1) + b"\xff" + varint(0)},
        {"vendor_data": varint(0) + b"\x00"},
        {"vendor_data": b""},
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_a_bad_row_is_an_error_among_good_ones(parts: dict[str, bytes], last: bool) -> None:
    good, bad = trade_bytes(), trade_bytes(**parts)
    payloads = [good, bad] if last else [good, bad, good, good]
    assert given_to_reference(payloads) == [bad]
    assert [error.row for error in COLUMNAR.decode(payloads, 0, TRADE).errors] == [1]


@pytest.mark.parametrize(
    "parts",
    [
        *({"source_sequence": varint(1) + varint(sign * 2**bits)} for bits in range(0, 63, 3) for sign in (1, -1)),
        {"source_sequence": varint(1) + varint(MIN_INT64)},
        {"source_sequence": varint(1) + varint(2**63 - 1)},
        *({"price": varint(size) + (-5).to_bytes(size, "big", signed=True)} for size in (1, 7, 8, 9, 15, 16)),
        {"price": varint(16) + (10**18 - 1).to_bytes(16, "big")},
        {"symbol": text("größer €")},
        {"symbol": text("x" * 5000)},
        {"symbol": text("")},
        {"trade_conditions": varint(-2) + varint(4) + text("a") + text("b") + varint(0)},
        {"trade_conditions": varint(MAX_ITEMS) + text("ä") * MAX_ITEMS + varint(0)},
        {"vendor_data": varint(1) + varint(2) + text("k") + text("v") + text("l") + text("v") + varint(0)},
        {"vendor_data": varint(1) + varint(0)},
    ],
)
def test_less_common_encodings_are_taken_without_the_reference(parts: dict[str, bytes]) -> None:
    assert given_to_reference([trade_bytes(), trade_bytes(**parts), trade_bytes()]) == []


def test_rare_encodings_are_read_by_the_reference_and_keep_their_place() -> None:
    rare = [
        trade_bytes(trade_conditions=varint(1) + text("a") + varint(1) + text("b") + varint(0)),
        trade_bytes(trade_conditions=varint(MAX_ITEMS + 1) + text("a") * (MAX_ITEMS + 1) + varint(0)),
        trade_bytes(price=varint(17) + bytes(16) + b"\x05"),
    ]
    common = [trade_bytes(symbol=text(str(i))) for i in range(3)]
    payloads = [common[0], rare[0], rare[1], common[1], rare[2], common[2]]
    assert given_to_reference(payloads) == rare
    decoded = assert_decodes_as_reference(payloads, TRADE)
    assert decoded.rows.tolist() == list(range(6))
    assert decoded.columns.column("symbol").to_pylist() == ["0", "BHP", "BHP", "1", "BHP", "2"]


def test_rows_and_errors_keep_their_place_over_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columnar, "_CHUNK_ROWS", 7)
    payloads = [framed(encode_as("trade_v2", trade(i))) for i in range(40)]
    for row in (0, 6, 7, 20, 39):
        payloads[row] += b"\x00"
    decoded = assert_decodes_as_reference(payloads, TRADE, 5)
    assert [error.row for error in decoded.errors] == [0, 6, 7, 20, 39]


def test_a_slice_of_a_column_is_read_from_its_offset() -> None:
    column = pa.array([framed(encode_as("trade_v2", trade(i))) for i in range(60)], type=pa.binary())
    decoded = COLUMNAR.decode(column[20:45], 5, TRADE)
    assert_same(decoded, REFERENCE.decode(column[20:45], 5, TRADE))
    assert decoded.columns.column("message_id").to_pylist() == [f"m-{i}" for i in range(20, 45)]


def test_no_good_row_and_no_row_at_all() -> None:
    assert assert_decodes_as_reference([b"", b"\x02", b"\xff" * 40], TRADE).columns.num_rows == 0
    assert assert_decodes_as_reference([], TRADE).columns.num_rows == 0


@pytest.mark.parametrize("body_offset", [5, 200])
def test_a_payload_shorter_than_its_frame_is_an_error(body_offset: int) -> None:
    good = bytes(body_offset) + trade_bytes()
    decoded = assert_decodes_as_reference([b"\x00\x00", good, b""], TRADE, body_offset)
    assert [error.row for error in decoded.errors] == [0, 2]


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**62])
def test_int32_is_checked(value: int) -> None:
    schema = writer("trade")
    limits = [encode_as("trade", MAKERS["trade"](qualifiers=limit)) for limit in (2**31 - 1, -(2**31))]
    bad = limits[0].replace(varint(2**31 - 1), varint(value))
    assert given_to_reference([*limits, bad], schema) == [bad]


def test_a_few_rows_go_to_the_reference_at_once() -> None:
    spy = Spy()
    decoder = ColumnarDecoder(spy)
    decoder.decode([trade_bytes()] * (MIN_ROWS - 1), 0, TRADE)
    assert len(spy.rows) == MIN_ROWS - 1
    decoder.decode([trade_bytes()] * MIN_ROWS, 0, TRADE)
    assert len(spy.rows) == MIN_ROWS - 1


def test_lengths_that_are_not_there_allocate_nothing() -> None:
    huge = [
        trade_bytes(symbol=varint(2**40)),
        trade_bytes(price=varint(2**30)),
        trade_bytes(trade_conditions=varint(2**40)),
        trade_bytes(trade_conditions=varint(-(2**40)) + varint(2**40)),
        trade_bytes(vendor_data=varint(1) + varint(2**50)),
    ] * 200
    COLUMNAR.decode(huge, 0, TRADE)
    held = pa.total_allocated_bytes()
    tracemalloc.start()
    decoded = COLUMNAR.decode(huge, 0, TRADE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(decoded.errors) == len(huge)
    assert peak < 16 << 20
    assert pa.total_allocated_bytes() - held < 1 << 20


def test_fields_of_every_column_type_that_is_read_and_left_out() -> None:
    types: dict[str, tuple[Any, Any]] = {
        "a": ("float", 1.5),
        "b": ("double", -2.5),
        "c": ({"type": "fixed", "name": "F", "size": 3}, b"abc"),
        "d": (["null", "boolean"], True),
        "e": (["string", "null"], None),
        "f": ({"type": "array", "items": "double"}, [0.5, 2.0]),
        "g": ({"type": "map", "values": {"type": "enum", "name": "E", "symbols": ["P", "Q"]}}, {"x": "P", "y": "Q"}),
        "h": ({"type": "bytes", "logicalType": "decimal", "precision": 50, "scale": 2}, Decimal("1e30")),
        "i": (["null", {"type": "array", "items": "long"}], [1, -(2**40)]),
        "j": ({"type": "array", "items": "boolean"}, [True, False]),
    }
    schema = evolved("trade_v2", **{name: {"name": name, "type": kind} for name, (kind, _) in types.items()})
    parsed = WriterSchema.parse(json.dumps(schema))
    extra = {name: value for name, (_, value) in types.items()}
    body = encode(schema, {**trade(), **extra})
    assert COLUMNAR.supports(parsed)
    assert given_to_reference([body] * 3, parsed) == []
    assert_decodes_as_reference([body[:length] for length in range(len(body) + 1)], parsed)
    overlong = body.replace(varint(-(2**40)), varint(-(2**40), overlong=1))
    assert given_to_reference([body, overlong], parsed) == [overlong]
    rng = random.Random("extra fields")
    assert_decodes_as_reference([mutated(body, rng) for _ in range(600)], parsed)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("double", 1.0),
        ("boolean", True),
        (["null", "long"], None),
        ({"type": "array", "items": "string"}, []),
        ({"type": "fixed", "name": "F", "size": 9}, bytes(9)),
        ({"type": "enum", "name": "E", "symbols": ["P"]}, "P"),
    ],
)
def test_no_cursor_leaves_the_buffer_when_many_fields_are_missing(kind: Any, value: Any) -> None:
    named = kind if isinstance(kind, dict) and "name" in kind else None
    fields = {f"f{i}": {"name": f"f{i}", "type": kind if i == 0 or named is None else kind["name"]} for i in range(60)}
    schema = evolved("trade_v2", **fields)
    parsed = WriterSchema.parse(json.dumps(schema))
    body = encode(schema, {**trade(), **dict.fromkeys(fields, value)})
    without = len(encode_as("trade_v2", trade()))
    for length in (without, without + 1, len(body) - 1):
        assert given_to_reference([body, body[:length]], parsed) == [body[:length]]


@pytest.mark.parametrize(
    "items", [["null", "long"], {"type": "array", "items": "int"}, {"type": "map", "values": "string"}]
)
def test_schemas_with_nested_items_go_to_the_reference_whole(items: Any) -> None:
    schema = evolved("trade_v2", extra={"name": "extra", "type": {"type": "array", "items": items}})
    parsed = WriterSchema.parse(json.dumps(schema))
    assert parsed.columnar
    assert not COLUMNAR.supports(parsed)
    body = encode(schema, {**trade(), "extra": []})
    assert given_to_reference([body] * 20, parsed) == [body] * 20


def test_a_schema_that_is_not_columnar_is_not_supported() -> None:
    parsed = WriterSchema.parse(
        json.dumps(evolved("trade_v2", extra={"name": "extra", "type": ["null", "int", "string"]}))
    )
    assert not COLUMNAR.supports(parsed)


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"source_sequence": "int"}, [{"source_sequence": 5}]),
        ({"symbol": "bytes"}, [{"symbol": b"BHP"}, {"symbol": "é".encode()}, {"symbol": b"\xff"}]),
        ({"symbol": ["null", "string"]}, [{"symbol": "BHP"}, {"symbol": None}]),
        ({"vendor_data": None, "trade_conditions": None}, [{}]),
        ({"timestamp": {"type": "long", "logicalType": "timestamp-millis"}}, [{"timestamp": START}]),
        (
            {"side": {"type": "enum", "name": "TradeSide", "symbols": ["BUY", "HOLD", *(f"S{i}" for i in range(90))]}},
            [{"side": "BUY"}, {"side": "HOLD"}, {"side": "S80"}],
        ),
    ],
)
def test_other_writers_are_resolved_as_by_the_reference(changes: Any, values: list[dict[str, Any]]) -> None:
    schema = evolved("trade_v2", **changes)
    parsed = WriterSchema.parse(json.dumps(schema))
    assert COLUMNAR.supports(parsed)
    bodies = [encode(schema, {**trade(i), **value}) for i, value in enumerate(values)]
    decoded = assert_decodes_as_reference(bodies * 4, parsed)
    assert decoded.columns.num_rows


def test_a_cursor_at_the_end_of_its_lane_stays_there() -> None:
    lanes = Lanes(Buffer(memoryview(b"\x02ab" + b"\x80" * 8)), np.array([0, 3, 11]), np.array([3, 11, 11]))
    assert lanes.small().tolist()[0] == 1
    lanes.longs()
    assert lanes.bad.tolist() == [False, True, True]
    assert lanes.position.tolist() == [2, 11, 11]
