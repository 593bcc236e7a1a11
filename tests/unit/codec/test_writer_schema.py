"""Writer schemas: what is refused, and how those that differ from ours are resolved."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from k2beam.codec.avro_schema import MAX_DEPTH, MAX_NODES, Array, Enum, Fixed, Map, Primitive, Union, record_type
from k2beam.codec.reference import ReferenceDecoder
from k2beam.codec.writer_schema import WriterSchema
from k2beam.errors import SchemaError
from k2beam.schemas import avro_schema
from tests.codec_samples import START, encode, evolved, trade, trade_v1

DECODER = ReferenceDecoder()
OPTIONAL_LONG = ["null", "long"]


def parse(schema: Any) -> WriterSchema:
    return WriterSchema.parse(schema if isinstance(schema, str) else json.dumps(schema))


def read(schema: Any, *records: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[int, str]]:
    decoded = DECODER.decode([encode(schema, record) for record in records], 0, parse(schema))
    decoded.columns.validate(full=True)
    rows = decoded.columns.to_pylist(maps_as_pydicts="strict")
    return rows, {error.row: error.error_class for error in decoded.errors}


def record(*fields: Any, name: str = "R") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": f"f{i}", "type": f} for i, f in enumerate(fields)]}


def test_a_schema_is_parsed_once() -> None:
    text = json.dumps(avro_schema("trade_v2"))
    assert WriterSchema.parse(text) is WriterSchema.parse(text)


def test_documentation_aliases_and_unknown_attributes_change_nothing() -> None:
    schema = avro_schema("trade_v2")
    schema["doc"] = "other"
    schema["aliases"] = ["T"]
    schema["fields"][2]["order"] = "ignore"
    assert parse(schema).tree == parse(avro_schema("trade_v2")).tree


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('"string"', "must be a record"),
        (" " * 1_000_001, "1000001 characters"),
        ({"type": "record", "name": "Other", "fields": []}, "not a market-data schema"),
        (avro_schema("raw_record"), "envelope"),
        (evolved("trade_v2", price=None), "lacks the field 'price'"),
        (
            evolved("trade_v2", price="string"),
            r"'price' \(string\) can't be read as that of trade_v2 \(decimal\(18,8\)\)",
        ),
        (evolved("trade_v2", price={"type": "bytes", "logicalType": "decimal", "precision": 39, "scale": 6}), "price"),
        (evolved("trade_v2", price="bytes"), "price"),
        (evolved("trade_v2", timestamp="long"), "timestamp"),
        (evolved("trade_v2", source_sequence=["null", "int", "long"]), "source_sequence"),
        (evolved("trade_v2", side={"type": "enum", "name": "Other", "symbols": ["BUY"]}), "side"),
        (evolved("trade_v2", trade_conditions={"type": "array", "items": ["null", "string"]}), "trade_conditions"),
        (evolved("trade_v2", x={"name": "x", "type": {"type": "array", "items": "null"}}), "no bytes"),
        (evolved("trade_v2", x={"name": "x", "type": "com.k2.marketdata.TradeV2"}), "recursive"),
        (evolved("trade_v2", x={"name": "x", "type": "Nowhere"}), "does not define"),
        (
            evolved("trade_v2", x={"name": "x", "type": {"type": "enum", "name": "E", "symbols": ["bad symbol"]}}),
            "valid Avro",
        ),
    ],
)
def test_what_can_not_be_read_is_refused(schema: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        parse(schema)


def test_depth_and_size_of_a_schema_are_bounded() -> None:
    deep: Any = "int"
    for _ in range(MAX_DEPTH + 1):
        deep = {"type": "array", "items": deep}
    with pytest.raises(SchemaError, match="deeper than"):
        record_type(record(deep))
    doubling: Any = {"type": "fixed", "name": "T0", "size": 1}
    for level in range(1, 20):
        doubling = record(doubling, f"T{level - 1}", name=f"T{level}")
    with pytest.raises(SchemaError, match=f"more than {MAX_NODES}"):
        record_type(doubling)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (record(5), "not an Avro type"),
        (record({"type": "array"}), "has no items"),
        (record({"type": "fixed", "name": "F", "size": -1}), "no valid size"),
        (record({"type": "enum", "name": "E", "symbols": []}), "no list of symbols"),
        (record({"type": "enum", "name": "E", "symbols": ["A", "A"]}), "symbol twice"),
        (record({"type": "enum", "symbols": ["A"]}), "has no name"),
        (record(*[{"type": "fixed", "name": "F", "size": 1}] * 2), "twice"),
        ({"type": "record", "name": "R"}, "no list of fields"),
        ({"type": "record", "name": "R", "fields": [{"name": "a"}]}, "not a field"),
        ({"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}] * 2}, "two fields"),
    ],
)
def test_malformed_schemas_are_named(schema: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        record_type(schema)


def test_names_are_resolved_in_their_namespace() -> None:
    schema = record(
        {"type": "enum", "name": "other.E", "symbols": ["A"]},
        {"type": "fixed", "name": "F", "size": 2},
        "other.E",
        ["null", "my.F"],
        {"type": "map", "values": {"type": {"type": "array", "items": "F"}}},
    )
    fields = record_type({**schema, "namespace": "my"}).fields
    enum, fixed = Enum("E", ("A",)), Fixed(2)
    assert [field.type for field in fields] == [
        enum,
        fixed,
        enum,
        Union((Primitive("null"), fixed)),
        Map(Array(fixed)),
    ]


def test_depth_counts_through_names() -> None:
    schema: Any = {"type": "fixed", "name": "T0", "size": 1}
    fields: list[Any] = [schema]
    for level in range(1, MAX_DEPTH + 2):
        fields.append({"type": "record", "name": f"T{level}", "fields": [{"name": "a", "type": f"T{level - 1}"}]})
    with pytest.raises(SchemaError, match="deeper than"):
        record_type(record(*fields))


def test_logical_types_that_do_not_fit_are_ignored() -> None:
    odd = [
        {"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 3},
        {"type": "long", "logicalType": "decimal", "precision": 2},
        {"type": "string", "logicalType": "uuid"},
    ]
    assert [field.type for field in record_type(record(*odd)).fields] == [
        Primitive("bytes"),
        Primitive("long"),
        Primitive("string"),
    ]


def test_an_added_field_is_a_column_of_text() -> None:
    schema = evolved("trade_v2", extra={"name": "extra", "type": "string", "default": "x"})
    assert read(schema, {**trade(1), "extra": "y"}) == ([{**trade(1), "extra": "y"}], {})


def test_a_missing_field_takes_its_default() -> None:
    schema = evolved("trade_v2", vendor_data=None, trade_conditions=None, source_sequence=None)
    given = {k: v for k, v in trade(1).items() if k not in ("vendor_data", "trade_conditions", "source_sequence")}
    assert read(schema, given) == (
        [{**trade(1), "vendor_data": None, "trade_conditions": [], "source_sequence": None}],
        {},
    )


def test_fields_in_another_order_are_matched_by_name() -> None:
    schema = avro_schema("trade_v2")
    schema["fields"].reverse()
    # The enum must be defined before it is used; trades use each of theirs once.
    assert read(schema, trade(1)) == ([trade(1)], {})


def test_narrower_types_widen() -> None:
    schema = evolved("trade_v2", source_sequence=["int", "null"], symbol="bytes", platform_sequence="int")
    given = {**trade(0), "source_sequence": 7, "symbol": b"B\xc3\xbc", "platform_sequence": 5}
    rows, errors = read(schema, given, {**given, "symbol": b"\xff"})
    assert rows == [{**trade(0), "source_sequence": 7, "symbol": "Bü", "platform_sequence": 5}]
    assert errors == {1: "unresolvable_value"}


def test_milliseconds_become_microseconds() -> None:
    schema = evolved("trade_v2", timestamp={"type": "long", "logicalType": "timestamp-millis"})
    assert read(schema, trade(0))[0][0]["timestamp"] == START


def test_null_where_ours_has_none_is_an_error_of_its_row() -> None:
    schema = evolved("trade_v2", currency=["null", "string"])
    assert read(schema, trade(0), {**trade(0), "currency": None}) == ([trade(0)], {1: "unresolvable_value"})


def test_a_null_decimal_or_boolean_is_no_zero_and_no_false() -> None:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 8}
    schema = evolved("trade_v2", price=["null", decimal])
    assert read(schema, {**trade(0), "price": None}, trade(0)) == ([trade(0)], {0: "unresolvable_value"})


def test_a_symbol_that_we_lack_is_an_error_of_its_row() -> None:
    symbols = ["NEW", "BUY", "SELL", "SELL_SHORT", "UNKNOWN"]
    schema = evolved("trade_v2", side={"type": "enum", "name": "TradeSide", "symbols": symbols})
    rows, errors = read(schema, trade(0, side="NEW"), trade(0, side="BUY"))
    assert rows == [trade(0, side="BUY")]
    assert errors == {0: "unresolvable_value"}


def test_version_1_resolves_to_version_1() -> None:
    schema = evolved("trade", volume="int", buyer_id=None)
    given = {k: v for k, v in trade_v1(2).items() if k != "buyer_id"}
    assert read(schema, given) == ([trade_v1(2, price=Decimal("36.510001"))], {})
