"""The schema that fastavro is given: physical, and armed against what fastavro lets pass.

fastavro is lenient where Python is: index -1 of a union is its last branch, any byte but 0 is
true. Each such place is answered with a trap, so that a lenient reading fails or shows:

- unions end in branches that can't be read (an enum without symbols), for every wrong index that
  takes one byte, positive or negative;
- enums end in None, likewise; a column with None where none may be is looked at again;
- a boolean is an enum of which index 0 (byte 0x00) is False and index -1 (byte 0x01) is True.

An index of two bytes or more is longer than any that these schemas need, and so shows in the
length of the record.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import fastavro

from k2beam.codec.avro_schema import Array, AvroType, Enum, Fixed, Map, Primitive, Record, Union

_ONE_BYTE = 64
"""Zigzag varints of one byte are -64 to 63."""

_TRAP = {"type": "enum", "name": "k2trap", "symbols": []}


def armed_schema(schema: Record) -> dict[str, Any]:
    """The physical schema of ``schema``, parsed by fastavro and armed."""
    parsed: dict[str, Any] = fastavro.parse_schema(_plain(schema, (f"k2t{number}" for number in itertools.count())))
    _arm(parsed)
    return parsed


def _plain(avro_type: AvroType, names: Iterator[str]) -> Any:
    """JSON of the type without logical types, each named type with a name of its own."""
    match avro_type:
        case Primitive(name="boolean"):
            return {"type": "enum", "name": next(names), "symbols": ["k2false", "k2true"]}
        case Primitive(name=name):
            return name
        case Fixed(size=size):
            return {"type": "fixed", "name": next(names), "size": size}
        case Enum(symbols=symbols):
            return {"type": "enum", "name": next(names), "symbols": list(symbols)}
        case Array(items=items):
            return {"type": "array", "items": _plain(items, names)}
        case Map(values=values):
            return {"type": "map", "values": _plain(values, names)}
        case Union(branches=branches):
            return [_plain(branch, names) for branch in branches]
        case Record(fields=fields):
            named = next(names)
            types = [{"name": field.name, "type": _plain(field.type, names)} for field in fields]
            return {"type": "record", "name": named, "fields": types}


def _arm(schema: Any) -> None:
    """Adds the traps, in place: fastavro does not check a schema that it has parsed again."""
    if isinstance(schema, list):
        for branch in schema:
            _arm(branch)
        schema.extend([_TRAP] * _ONE_BYTE)
    elif isinstance(schema, dict):
        _arm_complex(schema)


def _arm_complex(schema: dict[str, Any]) -> None:
    match schema["type"]:
        case "enum" if schema["symbols"] == ["k2false", "k2true"]:
            schema["symbols"] = [False, *[None] * (2 * _ONE_BYTE), True]
        case "enum":
            schema["symbols"] = [*schema["symbols"], *[None] * _ONE_BYTE]
        case "array":
            _arm(schema["items"])
        case "map":
            _arm(schema["values"])
        case "record":
            for field in schema["fields"]:
                _arm(field["type"])
