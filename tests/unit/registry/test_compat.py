"""Which schemas read what others wrote: the specification's rules, and that decoding agrees."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.codec.avro_schema import record_type
from k2beam.codec.resolve import resolve
from k2beam.errors import SchemaError
from k2beam.registry.compat import unreadable
from k2beam.schemas import SCHEMA_NAMES, avro_schema
from tests.codec_samples import evolved


def record(field_type: Any, **field: Any) -> Any:
    return record_type({"type": "record", "name": "R", "fields": [{"name": "a", "type": field_type, **field}]})


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_a_schema_reads_itself(name: str) -> None:
    tree = record_type(avro_schema(name))
    assert unreadable(tree, tree) == ()


DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 8}
ENUM = {"type": "enum", "name": "E", "symbols": ["X", "Y"]}
INNER = {"type": "record", "name": "I", "fields": [{"name": "b", "type": "int"}]}


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        ("int", "long"),
        ("int", ["null", "long"]),
        (["null", "int"], ["null", "double"]),
        ("string", "bytes"),
        ({"type": "array", "items": "int"}, {"type": "array", "items": "float"}),
        ({"type": "map", "values": "int"}, {"type": "map", "values": "long"}),
        ({**ENUM, "symbols": ["X"]}, ENUM),
        ({"type": "fixed", "name": "F", "size": 4}, {"type": "fixed", "name": "F", "size": 4}),
        (
            {"type": "long", "logicalType": "timestamp-millis"},
            {"type": "long", "logicalType": "timestamp-micros"},
        ),
        (INNER, {**INNER, "fields": [*INNER["fields"], {"name": "c", "type": "int", "default": 1}]}),
    ],
)
def test_what_can_be_read(writer: Any, reader: Any) -> None:
    assert unreadable(record(writer), record(reader)) == ()


@pytest.mark.parametrize(
    ("writer", "reader", "said"),
    [
        ("long", "int", "a: long can't be read as int"),
        (["null", "long"], "long", "a: null can't be read as long"),
        ("string", ["null", "long"], "a: string has no branch in null or long"),
        (DECIMAL, {**DECIMAL, "scale": 6}, r"a: decimal\(18,8\) can't be read as decimal\(18,6\)"),
        ("bytes", DECIMAL, "a: bytes can't be read as decimal"),
        ("long", {"type": "long", "logicalType": "timestamp-micros"}, "a: long can't be read as timestamp"),
        (ENUM, {**ENUM, "symbols": ["X"]}, "a: enum E lacks Y"),
        (ENUM, {**ENUM, "name": "G"}, "a: enum E can't be read as enum G"),
        ({"type": "fixed", "name": "F", "size": 4}, {"type": "fixed", "name": "F", "size": 5}, "fixed"),
        ({"type": "array", "items": "long"}, {"type": "array", "items": "int"}, r"a\[\]: long"),
        ({"type": "map", "values": "long"}, {"type": "map", "values": "int"}, r"a\{\}: long"),
        ({"type": "array", "items": "long"}, {"type": "map", "values": "long"}, "a array can't be read as a map"),
        (INNER, {**INNER, "fields": [*INNER["fields"], {"name": "c", "type": "int"}]}, "a.c: is new"),
        (INNER, {**INNER, "name": "J"}, "a: record I can't be read as record J"),
    ],
)
def test_what_can_not_be_read_is_named(writer: Any, reader: Any, said: str) -> None:
    [problem] = unreadable(record(writer), record(reader))
    assert re.search(said, problem), problem


def test_every_field_that_can_not_be_read_is_named() -> None:
    new = evolved("trade_v2", price="string", side="long", desk={"name": "desk", "type": "string"})
    found = unreadable(record_type(avro_schema("trade_v2")), record_type(new))
    assert [problem.partition(":")[0] for problem in found] == ["price", "side", "desk"]


_TYPES = st.sampled_from(
    [
        "int",
        "long",
        "string",
        "bytes",
        "double",
        ["null", "string"],
        DECIMAL,
        {**DECIMAL, "scale": 6},
        {"type": "long", "logicalType": "timestamp-micros"},
        {"type": "long", "logicalType": "timestamp-millis"},
        {"type": "array", "items": "string"},
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["symbol", "price", "timestamp", "currency", "platform_sequence"]), _TYPES))
def test_what_is_called_readable_is_resolved_by_the_decoder(changes: dict[str, Any]) -> None:
    """Older data that passes this check never becomes dead letters of class schema_incompatible."""
    writer = record_type(json.loads(json.dumps(evolved("trade_v2", **changes))))
    readable = unreadable(writer, record_type(avro_schema("trade_v2"))) == ()
    try:
        resolve(writer, "trade_v2")
    except SchemaError:
        assert not readable
