"""check_schema_safety: what is refused before anything is decoded."""

from __future__ import annotations

from typing import Any

import pytest

from k2beam import schemas
from k2beam.codec.safety import MAX_DEPTH, check_schema_safety
from k2beam.errors import SchemaError


def record(name: str, *types: Any, **more: Any) -> dict[str, Any]:
    fields = [{"name": f"f{index}", "type": kind} for index, kind in enumerate(types)]
    return {"type": "record", "name": name, "fields": fields, **more}


def nested(depth: int) -> Any:
    schema: Any = "long"
    for _ in range(depth - 1):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize("name", schemas.SCHEMA_NAMES)
def test_the_schemas_of_the_project_are_safe(name: str) -> None:
    check_schema_safety(schemas.avro_schema(name))


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (record("R", ["null", "R"]), "recursive"),
        (record("R", {"type": "array", "items": "R"}), "recursive"),
        (record("R", ["null", "x.R"], namespace="x"), "recursive"),
        (record("a.R", record("S", ["null", "R"])), "recursive"),
        ({"type": "array", "items": "null"}, "no bytes"),
        ({"type": "map", "values": {"type": "null"}}, "no bytes"),
        ({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}, "no bytes"),
        ({"type": "array", "items": record("E")}, "no bytes"),
        ({"type": "array", "items": record("E", "null", record("N", "null"))}, "no bytes"),
        (record("R", record("E", "null"), {"type": "array", "items": "E"}), "no bytes"),
        (nested(MAX_DEPTH + 1), "levels"),
        (nested(5000), "levels"),
        ("Missing", "does not define"),
        (record("R", {"type": "array"}), "without items"),
        (record("R", ["null", ["long"]]), "union"),
        (record("R", []), "union"),
        (record("R", record("R", "long")), "twice"),
        (record("long", "null"), "twice"),
        ({"type": "record", "name": "R"}, "fields"),
        ({"type": "record", "name": "R", "fields": [{"type": "long"}]}, "without name"),
        ({"type": "record", "fields": []}, "no name"),
        ({"type": "enum", "name": "E", "symbols": []}, "symbols"),
        ({"type": "fixed", "name": "F", "size": -1}, "size"),
        ({"type": "fixed", "name": "F", "size": True}, "size"),
        (7, "not an Avro type"),
        ({"name": "R"}, "not an Avro type"),
    ],
)
def test_unsafe_schemas_are_refused(schema: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        check_schema_safety(schema)


def test_depth_counts_through_names() -> None:
    inner = record("A", nested(40))
    check_schema_safety(record("R", inner))
    outer: Any = "A"
    for _ in range(30):
        outer = {"type": "array", "items": outer}
    with pytest.raises(SchemaError, match="levels"):
        check_schema_safety(record("R", inner, outer))


def test_names_do_not_multiply_without_bound() -> None:
    # a thousand nulls, thrice nested by name: a billion values for not a single byte
    first = record("A", *["null"] * 1000)
    second = record("B", first, *["A"] * 999)
    with pytest.raises(SchemaError, match="types"):
        check_schema_safety(record("R", second, *["B"] * 999))


def test_a_type_may_be_used_again() -> None:
    check_schema_safety(record("R", record("S", "long", namespace="n"), "n.S", {"type": "array", "items": "n.S"}))


def test_depth_limit_is_exact() -> None:
    check_schema_safety(nested(MAX_DEPTH))


def test_messages_stay_short() -> None:
    with pytest.raises(SchemaError) as caught:
        check_schema_safety("x" * 1_000_000)
    assert len(str(caught.value)) < 500
