"""Fields of a writer that our schemas do not know: kept as text in ``vendor_data``, or as columns of their own.

A field becomes an entry of its name; one that is null has none. Text and symbols of enums are as they are, numbers in
decimal digits, times in ISO 8601, UTC, bytes in base64, and arrays, maps and records JSON.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2beam.arrays import mask_of
from k2beam.codec.avro_schema import AvroType, Enum, Fixed, Primitive, decimal_digits, without_null
from k2beam.codec.decimals import number_of
from k2beam.errors import SchemaError
from k2beam.jsonable import jsonable
from k2beam.model import DECIMAL, MAX_TIMESTAMP, MIN_TIMESTAMP, TIMESTAMP

_VENDOR = "vendor_data"
_PLAIN = {
    "string": pa.string(),
    "bytes": pa.binary(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
}
_WIDENS = {(pa.int32(), pa.int64()), (pa.float32(), pa.float64())}
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def plain_type(avro_type: AvroType) -> pa.DataType | None:
    """The type of the column that a writer's field can be; None for a field that can only be text."""
    inner, _ = without_null(avro_type)
    match inner:
        case Primitive(logical=logical) if logical.startswith("decimal("):
            return DECIMAL if decimal_digits(logical)[0] <= DECIMAL.precision else None
        case Primitive(logical=logical) if logical:
            return TIMESTAMP
        case Primitive(name=name):
            return _PLAIN.get(name)
        case Enum():
            return pa.string()
        case Fixed(size=size) if size:
            return pa.binary()
    return None


def as_text(column: pa.Array, avro_type: AvroType) -> pa.StringArray:
    """The physical values of a writer's field as text, null where they are null."""
    inner, _ = without_null(avro_type)
    if pa.types.is_string(column.type):
        return column
    if isinstance(inner, Primitive) and inner.logical.startswith("decimal("):
        scale = decimal_digits(inner.logical)[1]
        return _mapped(column, lambda value: _decimal_text(value, scale))
    if isinstance(inner, Primitive) and inner.logical.startswith("timestamp-"):
        return _times(column, 1000 if inner.logical == "timestamp-millis" else 1)
    if isinstance(inner, Fixed) or pa.types.is_binary(column.type):
        return _mapped(column, lambda value: base64.b64encode(value).decode())
    if pa.types.is_nested(column.type):
        return pa.array(map(text_of, column.to_pylist(maps_as_pydicts="strict")), pa.string())
    return column.cast(pa.string())


def together(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    """The rows of some batches, one after the other, with all columns that any of them has; where one lacks it, null.

    A number may have been widened, as Iceberg widens columns. Raises SchemaError for any other difference of types.
    """
    schema = _common([batch.schema for batch in batches])
    return pa.Table.from_batches([_in_columns(batch, schema) for batch in batches], schema)


def _in_columns(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    if batch.schema.equals(schema):
        return batch
    names = batch.schema.names
    arrays = [
        batch.column(field.name).cast(field.type) if field.name in names else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _common(schemas: Sequence[pa.Schema]) -> pa.Schema:
    fields: dict[str, pa.Field] = {}
    for field in (field for schema in schemas for field in schema):
        known = fields.setdefault(field.name, field)
        if field.type == known.type or (field.type, known.type) in _WIDENS:
            continue
        if (known.type, field.type) not in _WIDENS:
            raise SchemaError(f"the field {field.name} is {known.type} in one schema and {field.type} in another")
        fields[field.name] = field
    return pa.schema(fields.values())


def text_of(value: Any) -> str | None:
    """A Python value of a type that has no column, such as a record, as JSON; None for null."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(jsonable(value), ensure_ascii=False)


def with_extras(columns: pa.RecordBatch, extras: pa.RecordBatch) -> pa.RecordBatch:
    """``columns`` (version 2) with the texts of ``extras`` (as many rows) as further entries of ``vendor_data``.

    Where a message has an entry of the same name, the field's is called ``<name>.field``.
    """
    if not extras.num_columns:
        return columns
    place = columns.schema.get_field_index(_VENDOR)
    merged = _merged(columns.column(place), extras)
    return columns.set_column(place, columns.schema.field(place), merged)


def _merged(vendor: pa.MapArray, extras: pa.RecordBatch) -> pa.MapArray:
    own_counts = np.where(mask_of(vendor.is_valid()), np.diff(vendor.offsets.to_numpy()), 0).astype(np.int64)
    own_keys, own_items = _entries(vendor)
    owner = np.repeat(np.arange(len(vendor)), own_counts)
    counts = own_counts + sum(mask_of(text.is_valid()) for text in extras.columns)
    first = np.cumsum(counts) - counts
    order = np.empty(int(counts.sum()), dtype=np.int64)
    order[first[owner] + np.arange(len(owner)) - (np.cumsum(own_counts) - own_counts)[owner]] = np.arange(len(owner))
    keys, items, filled, size = [own_keys], [own_items], own_counts.copy(), len(owner)
    for name, texts in zip(extras.schema.names, extras.columns, strict=True):
        rows = np.flatnonzero(mask_of(texts.is_valid()))
        taken = np.isin(rows, owner[mask_of(pc.equal(own_keys, name))])
        keys.append(pa.array([name, f"{name}.field"]).take(pa.array(taken.astype(np.int8))))
        items.append(texts.take(pa.array(rows)))
        order[first[rows] + filled[rows]] = size + np.arange(len(rows))
        filled[rows] += 1
        size += len(rows)
    found = pa.array(order)
    offsets = pa.array(np.concatenate(([0], np.cumsum(counts))).astype(np.int32))
    none = None if not vendor.null_count else pa.array(mask_of(vendor.is_null()) & (counts == 0))
    return pa.MapArray.from_arrays(
        offsets, pa.concat_arrays(keys).take(found), pa.concat_arrays(items).take(found), type=vendor.type, mask=none
    )


def _entries(vendor: pa.MapArray) -> tuple[pa.Array, pa.Array]:
    """Keys and values of all rows that are not null, one after the other."""
    flat = vendor.drop_null()
    start, end = (flat.offsets[0].as_py(), flat.offsets[-1].as_py()) if len(flat) else (0, 0)
    return flat.keys.slice(start, end - start), flat.items.slice(start, end - start)


def _mapped(column: pa.Array, text: Any) -> pa.StringArray:
    return pa.array([None if value is None else text(value) for value in column.to_pylist()], pa.string())


def _decimal_text(value: bytes, scale: int) -> str:
    number = number_of(value, scale) if value else None
    return base64.b64encode(value).decode() if number is None else str(jsonable(number))


def _times(column: pa.Array, factor: int) -> pa.StringArray:
    """Times as text; a number that is no time of the years 1 to 9999 stays one."""
    values = column.fill_null(0).to_numpy()
    good = (values <= MAX_TIMESTAMP // factor) & (values >= -(-MIN_TIMESTAMP // factor))
    times = pa.array(np.where(good, values, 0) * factor).cast(TIMESTAMP)
    texts = pc.if_else(pa.array(good), pc.strftime(times, _TIME_FORMAT), column.cast(pa.string()))
    return pc.if_else(column.is_valid(), texts, pa.scalar(None, pa.string()))
