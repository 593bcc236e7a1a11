"""Schema resolution, by column: from the writer's schema to the project's own of the same name.

Rules: Avro 1.11 specification, "Schema Resolution". Fields match by name, or by an alias where the writer says that its
field once had our name; a field that we lack is read as text; one of ours that the writer lacks takes its default; int
widens to long, and so on. Other than the specification in what would change a value's meaning: a decimal of any
precision and scale keeps its value, or is refused where the column has no room for it, and a timestamp matches only
another timestamp (millis become micros). Not resolved, although it could be: a union of several types besides null.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2beam.codec.avro_schema import (
    NULL,
    Array,
    AvroType,
    Enum,
    Field,
    Fixed,
    Map,
    Primitive,
    Record,
    Union,
    decimal_digits,
    record_type,
    without_null,
)
from k2beam.codec.columns import Fault, is_columnar
from k2beam.codec.decimals import WIDE_DIGITS, to_column
from k2beam.codec.extras import as_text
from k2beam.errors import SchemaError
from k2beam.model import DECIMAL
from k2beam.schemas import avro_schema, payload_arrow_schema

_WIDENS = {
    "int": ("long", "float", "double"),
    "long": ("float", "double"),
    "float": ("double",),
    "string": ("bytes",),
    "bytes": ("string",),
}


_BEYOND = (
    f"the value has more than {DECIMAL.precision - DECIMAL.scale} digits before the point or {DECIMAL.scale} behind"
)


def promotes(writer: Primitive, reader: Primitive) -> bool:
    """Whether a value of ``writer`` can be read as ``reader`` without a change of its meaning."""
    if writer.logical or reader.logical:
        both_times = writer.logical.startswith("timestamp") and reader.logical.startswith("timestamp")
        return both_times or writer == reader
    return writer.name == reader.name or reader.name in _WIDENS.get(writer.name, ())


@dataclass(frozen=True, slots=True)
class ColumnRule:
    """How one of our columns comes about: from the writer's ``field`` (None: it has none), or as ``default``."""

    name: str
    data_type: pa.DataType
    nullable: bool
    field: str | None
    default: Any = None
    symbols: tuple[str, ...] = ()
    """Our symbols of an enum to which the writer has added others."""

    text_of: AvroType | None = None
    """The type of a field of the writer that we lack; the column is its text."""

    def apply(self, column: pa.Array | None, count: int) -> tuple[pa.Array, tuple[Fault, ...]]:
        """Our column (``count`` rows) from the writer's, and the rows that have no value in it."""
        if column is None:
            return pa.repeat(pa.scalar(self.default, type=self.data_type), count), ()
        if self.text_of is not None:
            return as_text(column, self.text_of), ()
        if column.type == self.data_type and not self.symbols and (self.nullable or not column.null_count):
            return column, ()
        bad = np.zeros(count, dtype=np.bool_)
        if column.null_count and not self.nullable:
            bad |= column.is_null().to_numpy(zero_copy_only=False)
        if self.symbols:
            bad |= ~pc.is_in(column, pa.array(self.symbols)).to_numpy(zero_copy_only=False)
        faults: tuple[Fault, ...] = ()
        if pa.types.is_decimal(column.type):
            column, beyond = to_column(column)
            faults = tuple(Fault(int(row), "decimal_overflow", _BEYOND) for row in np.flatnonzero(beyond))
        elif column.type != self.data_type:
            column, unreadable = _cast(column, self.data_type)
            bad |= unreadable
        faults += tuple(
            Fault(int(row), "unresolvable_value", f"the writer's value has no place in our type {self.data_type}")
            for row in np.flatnonzero(bad)
        )
        return column, faults


def _cast(column: pa.Array, data_type: pa.DataType) -> tuple[pa.Array, np.ndarray[Any, np.dtype[np.bool_]]]:
    unreadable = np.zeros(len(column), dtype=np.bool_)
    if not (pa.types.is_binary(column.type) and pa.types.is_string(data_type)):
        # Longs above 2**53 lose digits as doubles: the specification allows that.
        return column.cast(data_type, safe=False), unreadable
    try:
        return column.cast(data_type), unreadable
    except pa.ArrowInvalid:
        values = [_utf8(value) for value in column.to_pylist()]
        unreadable = np.array([value is None for value in values]) & column.is_valid().to_numpy(zero_copy_only=False)
        return pa.array(values, type=data_type), unreadable


def _utf8(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return None


@functools.cache
def _reader(name: str) -> Record:
    return record_type(avro_schema(name))


def resolve(writer: Record, name: str) -> tuple[ColumnRule, ...]:
    """One rule for each column of our schema ``name``, in order.

    Raises SchemaError, naming the field, where the writer's schema can't be read as ours.
    """
    fields = {alias: field for field in reversed(writer.fields) for alias in field.aliases}
    fields |= {field.name: field for field in writer.fields}
    rules = tuple(_rule(name, field, fields.get(field.name)) for field in _reader(name).fields)
    for field, columns in Counter(rule.field for rule in rules).items():
        if field is not None and columns > 1:
            raise SchemaError(f"the writer's field {field!r} has, by name and aliases, {columns} fields of {name}")
    return rules


def _rule(name: str, reader: Field, writer: Field | None) -> ColumnRule:
    arrow_field = payload_arrow_schema(name).field(reader.name)
    if writer is None:
        if not reader.has_default:
            raise SchemaError(f"the writer's schema lacks the field {reader.name!r} of {name}, which has no default")
        return ColumnRule(reader.name, arrow_field.type, arrow_field.nullable, None, reader.default)
    writer_type, reader_type = without_null(writer.type)[0], without_null(reader.type)[0]
    if not is_columnar(writer_type) or not _resolves(writer_type, reader_type):
        ours = "that" if writer.name == reader.name else f"the field {reader.name!r}"
        raise SchemaError(
            f"the writer's field {writer.name!r} ({_describe(writer.type)}) can't be read as {ours} of {name}"
            f" ({_describe(reader.type)})"
        )
    symbols: tuple[str, ...] = ()
    if isinstance(writer_type, Enum) and isinstance(reader_type, Enum):
        symbols = reader_type.symbols if set(writer_type.symbols) - set(reader_type.symbols) else ()
    return ColumnRule(reader.name, arrow_field.type, arrow_field.nullable, writer.name, symbols=symbols)


def _resolves(writer: AvroType, reader: AvroType) -> bool:
    match writer, reader:
        case Primitive(), Primitive():
            return promotes(writer, reader) or (_holds_decimal(writer) and _holds_decimal(reader))
        case Enum(), Enum():
            return writer.name == reader.name
        case Array(), Array():
            return writer == reader or (
                _same_null(writer.items, reader.items) and _resolves(writer.items, reader.items)
            )
        case Map(), Map():
            return writer == reader or (
                _same_null(writer.values, reader.values) and _resolves(writer.values, reader.values)
            )
    return False


def _holds_decimal(primitive: Primitive) -> bool:
    """Whether it is a decimal that Arrow has room for."""
    return primitive.logical.startswith("decimal(") and decimal_digits(primitive.logical)[0] <= WIDE_DIGITS


def _same_null(writer: AvroType, reader: AvroType) -> bool:
    return not without_null(writer)[1] and not without_null(reader)[1]


def _describe(avro_type: AvroType) -> str:
    match avro_type:
        case Primitive(name=name, logical=logical):
            return logical or name
        case Fixed(size=size):
            return f"fixed({size})"
        case Enum(name=name):
            return f"enum {name}"
        case Array(items=items):
            return f"array of {_describe(items)}"
        case Map(values=values):
            return f"map of {_describe(values)}"
        case Union(branches=branches):
            return " or ".join(_describe(branch) for branch in branches if branch != NULL) + (
                " or null" if NULL in branches else ""
            )
        case Record(name=name):
            return f"record {name}"
