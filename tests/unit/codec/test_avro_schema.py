"""record_type: the schemas that are refused before anything is decoded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k2beam import schemas
from k2beam.codec.avro_schema import MAX_DEPTH, MAX_FIXED_BYTES, Enum, least_bytes, record_type
from k2beam.codec.columnar.decoder import ColumnarDecoder
from k2beam.codec.writer_schema import WriterSchema
from k2beam.errors import SchemaError
from tests.codec_samples import evolved, trade_bytes


def record(name: str, *types: Any, **more: Any) -> dict[str, Any]:
    fields = [{"name": f"f{index}", "type": kind} for index, kind in enumerate(types)]
    return {"type": "record", "name": name, "fields": fields, **more}


def nested(depth: int) -> Any:
    """A record of so many levels."""
    schema: Any = "long"
    for _ in range(depth - 2):
        schema = {"type": "array", "items": schema}
    return record("Nested", schema)


@pytest.mark.parametrize("name", schemas.SCHEMA_NAMES)
def test_the_schemas_of_the_project_are_safe(name: str) -> None:
    record_type(schemas.avro_schema(name))


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (record("R", ["null", "R"]), "recursive"),
        (record("R", {"type": "array", "items": "R"}), "recursive"),
        (record("R", ["null", "x.R"], namespace="x"), "recursive"),
        (record("a.R", record("S", ["null", "R"])), "recursive"),
        (record("R", {"type": "array", "items": "null"}), "items take no bytes"),
        (record("R", {"type": "map", "values": {"type": "null"}}), "values take no bytes"),
        (record("R", {"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}), "no bytes"),
        (record("R", {"type": "array", "items": record("E")}), "no bytes"),
        (record("R", {"type": "array", "items": record("E", "null", record("N", "null"))}), "no bytes"),
        (record("R", record("E", "null"), {"type": "array", "items": "E"}), "no bytes"),
        (nested(MAX_DEPTH + 1), "nested deeper"),
        (nested(5000), "nested deeper"),
        ("long", "must be a record"),
        ("Missing", "does not define"),
        (record("R", {"type": "array"}), "no items"),
        (record("R", ["null", ["long"]]), "union"),
        (record("R", ["null", {"type": ["long"]}]), "union"),
        (record("R", []), "union"),
        (record("R", record("R", "long")), "twice"),
        (record("long", "null"), "primitive"),
        (record("a.long", "null"), "primitive"),
        ({"type": "record", "name": "R"}, "fields"),
        ({"type": "record", "name": "R", "fields": [{"type": "long"}]}, "not a field"),
        ({"type": "record", "fields": []}, "no name"),
        (record("R", "long", namespace=["a"]), "no name"),
        ({"type": "enum", "name": "E", "symbols": []}, "symbols"),
        ({"type": "fixed", "name": "F", "size": -1}, "size"),
        ({"type": "fixed", "name": "F", "size": True}, "size"),
        (record("R", {"type": "fixed", "name": "F", "size": MAX_FIXED_BYTES + 1}), "'F' has 16777217 bytes; at most"),
        (record("R", {"type": "fixed", "name": "F", "size": 5_000_000_000}), "'F' has 5000000000 bytes; at most"),
        (7, "not an Avro type"),
        ({"name": "R"}, "not an Avro type"),
        ({"name": "R", "doc": nested(5000)}, "a dict is not an Avro type"),
    ],
)
def test_unsafe_schemas_are_refused(schema: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        record_type(schema)


def test_depth_counts_through_names() -> None:
    inner = record("A", nested(40))
    record_type(record("R", inner))
    outer: Any = "A"
    for _ in range(30):
        outer = {"type": "array", "items": outer}
    with pytest.raises(SchemaError, match="nested deeper"):
        record_type(record("R", inner, outer))


def test_names_do_not_multiply_without_bound() -> None:
    # a thousand nulls, thrice nested by name: a billion values for not a single byte
    first = record("A", *["null"] * 1000)
    second = record("B", first, *["A"] * 999)
    with pytest.raises(SchemaError, match="types"):
        record_type(record("R", second, *["B"] * 999))


def test_a_type_may_be_used_again() -> None:
    record_type(record("R", record("S", "long", namespace="n"), "n.S", {"type": "array", "items": "n.S"}))


def test_depth_limit_is_exact() -> None:
    record_type(nested(MAX_DEPTH))


def test_a_name_without_a_dot_is_one_of_its_namespace() -> None:
    # Avro 1.11 specification, "Names": in a namespace, one without can't be named.
    enum = {"type": "enum", "name": "E", "symbols": ["A"], "namespace": ""}
    with pytest.raises(SchemaError, match="'E', which it does not define"):
        record_type(record("R", enum, "E", namespace="a"))
    assert [field.type for field in record_type(record("R", enum, "E")).fields] == [Enum("E", ("A",))] * 2


@pytest.mark.parametrize(
    ("schema", "least"),
    [
        (record("R"), 0),
        (record("R", "null", {"type": "fixed", "name": "F", "size": 7}, "double"), 15),
        (record("R", ["null", "double"], {"type": "array", "items": "float"}, "string"), 3),
        (record("R", record("S", "long", "float"), "S", {"type": "enum", "name": "E", "symbols": ["A"]}), 11),
    ],
)
def test_the_least_bytes_of_a_record(schema: Any, least: int) -> None:
    assert least_bytes(record_type(schema)) == least


def test_messages_stay_short() -> None:
    with pytest.raises(SchemaError) as caught:
        record_type("x" * 1_000_000)
    assert len(str(caught.value)) < 500


def test_the_largest_fixed_has_a_plan_and_is_looked_for_in_the_bytes() -> None:
    extra = {"type": "fixed", "name": "F", "size": MAX_FIXED_BYTES}
    schema = WriterSchema.parse(json.dumps(evolved("trade_v2", extra=extra)))
    decoded = ColumnarDecoder(min_rows=0).decode([trade_bytes()] * 20, 0, schema)
    assert {error.error_class for error in decoded.errors} == {"truncated"}
    whole = trade_bytes() + bytes(MAX_FIXED_BYTES)
    assert ColumnarDecoder(min_rows=0).decode_block(whole, 1, schema).columns.num_rows == 1
