"""The strict decoder on bytes made by hand."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pytest

from k2beam.codec.avro_schema import record_type
from k2beam.codec.strict import decode_exact, decode_many
from k2beam.errors import DecodeError, StrictError
from tests.codec_samples import EVENT_SCHEMAS, MAKERS, encode_as, text, trade_bytes, varint, writer

TRADE = writer("trade_v2").tree


def decode(data: bytes, schema: Any = TRADE) -> dict[str, Any]:
    return decode_exact(data, 0, len(data), schema)


def record_of(avro_type: Any) -> Any:
    return record_type({"type": "record", "name": "R", "fields": [{"name": "f", "type": avro_type}]})


@pytest.mark.parametrize("name", EVENT_SCHEMAS)
def test_it_reads_what_fastavro_writes(name: str) -> None:
    schema = writer(name)
    plain = json.loads(schema.text.replace('"logicalType"', '"was"'))
    for i in range(6):
        data = encode_as(name, MAKERS[name](i))
        expected = fastavro.schemaless_reader(io.BytesIO(data), plain, None)
        assert decode(data, schema.tree) == expected


def test_several_blocks_and_byte_sizes_are_legal() -> None:
    item = text("a")
    blocks = varint(1) + item + varint(-2) + varint(2 * len(item)) + item * 2 + varint(0)
    pairs = [text(key) + text("v") for key in "ab"]
    map_blocks = varint(1) + varint(-1) + varint(len(pairs[0])) + pairs[0] + varint(1) + pairs[1] + varint(0)
    record = decode(trade_bytes(trade_conditions=blocks, vendor_data=map_blocks))
    assert record["trade_conditions"] == ["a", "a", "a"]
    assert record["vendor_data"] == {"a": "v", "b": "v"}


@pytest.mark.parametrize(
    ("parts", "error_class"),
    [
        ({"source_sequence": varint(1) + varint(9, overlong=1)}, "overlong_varint"),
        ({"source_sequence": varint(1) + b"\xff" * 9 + b"\x03"}, "varint_overflow"),
        ({"source_sequence": varint(1) + b"\xff" * 11 + b"\x00"}, "varint_overflow"),
        ({"source_sequence": varint(-1) + varint(9)}, "bad_union_index"),
        ({"source_sequence": varint(2)}, "bad_union_index"),
        ({"side": varint(-1)}, "bad_enum_index"),
        ({"side": varint(4)}, "bad_enum_index"),
        ({"symbol": varint(-1)}, "negative_length"),
        ({"symbol": varint(2**62)}, "truncated"),
        ({"symbol": varint(2) + b"\xc3\x28"}, "invalid_utf8"),
        ({"symbol": varint(3) + b"\xed\xa0\x80"}, "invalid_utf8"),
        ({"trade_conditions": varint(2**62)}, "truncated"),
        ({"trade_conditions": varint(-(2**63)) + varint(0)}, "truncated"),
        ({"trade_conditions": varint(-1) + varint(3) + text("a") + varint(0)}, "bad_block_size"),
        ({"vendor_data": varint(1) + varint(2) + (text("k") + text("v")) * 2 + varint(0)}, "duplicate_key"),
        ({"vendor_data": varint(0) + b"\x00"}, "trailing_bytes"),
        ({"vendor_data": b""}, "truncated"),
    ],
)
def test_each_broken_rule_has_its_class(parts: dict[str, bytes], error_class: str) -> None:
    with pytest.raises(DecodeError, match=r".+") as caught:
        decode(trade_bytes(**parts))
    assert isinstance(caught.value, StrictError)
    assert caught.value.error_class == error_class


@pytest.mark.parametrize(
    ("avro_type", "data", "error_class"),
    [("boolean", b"\x02", "bad_boolean"), ("int", varint(2**31), "int_overflow"), ("double", b"\0" * 7, "truncated")],
)
def test_primitives_that_trades_lack(avro_type: str, data: bytes, error_class: str) -> None:
    with pytest.raises(StrictError) as caught:
        decode(data, record_of(avro_type))
    assert caught.value.error_class == error_class


def test_the_limits_of_int_and_long_are_read() -> None:
    assert decode(varint(-(2**31)), record_of("int")) == {"f": -(2**31)}
    assert decode(varint(-(2**63)), record_of("long")) == {"f": -(2**63)}
    assert decode(varint(2**63 - 1), record_of("long")) == {"f": 2**63 - 1}


def test_the_message_names_field_and_byte() -> None:
    with pytest.raises(StrictError, match=r"symbol: at byte 5: the length -1 is negative"):
        decode(trade_bytes(symbol=varint(-1)))


def test_a_count_beyond_the_bytes_is_refused_before_an_item_is_read() -> None:
    with pytest.raises(StrictError, match=r"trade_conditions: .* 1000 items are announced, 8 bytes are there"):
        decode(trade_bytes(trade_conditions=varint(1000), source_sequence=b"", vendor_data=b"")[:-1])


def test_records_in_a_row_end_where_they_end() -> None:
    one, two = trade_bytes(), trade_bytes(symbol=text("LONGER"))
    records, ends = decode_many(one + two, 2, TRADE)
    assert [record and record["symbol"] for record in records] == ["BHP", "LONGER"]
    assert ends == [len(one), len(one + two)]
    with pytest.raises(StrictError, match="left over after 1 records"):
        decode_many(one + two, 1, TRADE)


def test_a_record_with_a_bad_value_of_known_end_is_none_among_others() -> None:
    parts = [trade_bytes(), trade_bytes(side=varint(77)), trade_bytes(symbol=b"\x02\xff"), trade_bytes()]
    records, ends = decode_many(b"".join(parts), 4, TRADE)
    assert [record is None for record in records] == [False, True, True, False]
    assert ends == [sum(map(len, parts[: number + 1])) for number in range(4)]


@pytest.mark.parametrize(
    "odd", [{"symbol": varint(-1)}, {"source_sequence": varint(2)}, {"trade_id": varint(1, overlong=1)}]
)
def test_an_error_that_hides_the_end_of_its_record_is_raised(odd: dict[str, bytes]) -> None:
    with pytest.raises(StrictError, match=f"record 1: {next(iter(odd))}: "):
        decode_many(trade_bytes(side=varint(9)) + trade_bytes(**odd) + trade_bytes(), 3, TRADE)
