"""Whether data written under one schema can be read with another: the check before a schema is registered.

Rules: Avro 1.11 specification, "Schema Resolution", for whole schemas: a new version must read what every
earlier one wrote (in registries: BACKWARD_TRANSITIVE). Stricter in what would change a value's meaning, as
decoding is: a decimal matches only its own precision and scale, a timestamp only a timestamp. A symbol that an
enum loses counts as unreadable even where the enum has a default.
"""

from __future__ import annotations

from collections.abc import Iterator

from k2beam.codec.avro_schema import Array, AvroType, Enum, Fixed, Map, Primitive, Record, Union
from k2beam.codec.resolve import promotes


def unreadable(writer: Record, reader: Record) -> tuple[str, ...]:
    """What of the data of ``writer`` can't be read as ``reader``, one text a field; empty where all can."""
    return tuple(_problems(writer, reader, ""))


def _problems(writer: AvroType, reader: AvroType, path: str) -> Iterator[str]:
    if isinstance(writer, Union):
        for branch in writer.branches:
            yield from _problems(branch, reader, path)
    elif isinstance(reader, Union):
        if all(any(True for _ in _problems(writer, branch, path)) for branch in reader.branches):
            yield f"{path}: {_name(writer)} has no branch in {_name(reader)}"
    else:
        yield from _same_shape(writer, reader, path)


def _same_shape(writer: AvroType, reader: AvroType, path: str) -> Iterator[str]:
    match writer, reader:
        case Record(), Record() if writer.name.rpartition(".")[2] == reader.name.rpartition(".")[2]:
            yield from _fields(writer, reader, path)
        case Array(), Array():
            yield from _problems(writer.items, reader.items, f"{path}[]")
        case Map(), Map():
            yield from _problems(writer.values, reader.values, f"{path}{{}}")
        case Enum(), Enum() if writer.name == reader.name:
            if lost := [symbol for symbol in writer.symbols if symbol not in reader.symbols]:
                yield f"{path}: enum {reader.name} lacks {', '.join(lost)}"
        case Fixed(), Fixed() if writer.size == reader.size:
            return
        case Primitive(), Primitive() if promotes(writer, reader):
            return
        case _:
            yield f"{path or 'the schema'}: {_name(writer)} can't be read as {_name(reader)}"


def _fields(writer: Record, reader: Record, path: str) -> Iterator[str]:
    written = {field.name: field for field in writer.fields}
    for field in reader.fields:
        name = f"{path}.{field.name}".lstrip(".")
        if field.name in written:
            yield from _problems(written[field.name].type, field.type, name)
        elif not field.has_default:
            yield f"{name}: is new and has no default"


def _name(avro_type: AvroType) -> str:
    match avro_type:
        case Primitive():
            return avro_type.logical or avro_type.name
        case Union():
            return " or ".join(map(_name, avro_type.branches)) or "a union of nothing"
        case Enum() | Record():
            return f"{type(avro_type).__name__.lower()} {avro_type.name}"
        case Fixed():
            return f"fixed({avro_type.size})"
    return f"a {type(avro_type).__name__.lower()}"
