"""Columns of events to Avro records, whole columns at once.

Rules: Avro 1.11 specification, "Binary Encoding". Each field becomes a column of bytes, and a record is its fields
joined, so that one long text costs its own length only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2beam.archive.cells import Cells, decimal, long, wide_decimal
from k2beam.archive.varint import write_long
from k2beam.arrays import Ints
from k2beam.codec.decimals import NARROW_DIGITS, words_of
from k2beam.codec.frame import frame
from k2beam.errors import SchemaError
from k2beam.model import Kind, RawRecord, SchemaRef
from k2beam.schemas import avro_schema, latest_name, payload_arrow_schema

_EMPTY = b""
_SCHEMA_IDS: Mapping[Kind, int] = {"trades": 1, "quotes": 2}


def encode_events(kind: Kind, events: pa.RecordBatch) -> pa.BinaryArray:
    """The record of each row of ``events`` (no framing), by the schema :func:`k2beam.schemas.latest_name`.

    Columns that it lacks follow as unions of null and string.

    Raises SchemaError for a type that no schema of ours has.
    """
    fields = avro_schema(latest_name(kind))["fields"]
    encoded = [_encode(field["type"], events.column(field["name"])) for field in fields]
    encoded += [_encode(["null", "string"], column) for column in events.columns[len(fields) :]]
    return pc.binary_join_element_wise(*encoded, _EMPTY)


def archive_schemas() -> dict[SchemaRef, Any]:
    """The schemas that the messages of :func:`encode_messages` name, for the container that they go into."""
    return {number: avro_schema(latest_name(kind)) for kind, number in _SCHEMA_IDS.items()}


def encode_messages(kind: Kind, events: pa.RecordBatch, prefix: str = "") -> Iterator[RawRecord]:
    """Events, with their provenance, as messages of a log (:func:`archive_schemas`): trades or quotes.

    Each has the source, partition and offset of the event; ``prefix`` comes before the source.
    """
    payloads = encode_events(kind, events.select(payload_arrow_schema(latest_name(kind)).names))
    places = (events.column(name).to_pylist() for name in ("_source", "_partition", "_offset", "symbol"))
    for source, partition, offset, symbol, payload in zip(*places, payloads.to_pylist(), strict=True):
        value = frame(_SCHEMA_IDS[kind], payload)
        yield RawRecord(prefix + source, partition, offset, None, symbol.encode(), value)


def _encode(avro_type: Any, values: pa.Array) -> pa.BinaryArray:
    if isinstance(avro_type, list):
        return _optional(avro_type, values)
    if isinstance(avro_type, dict):
        return _complex(avro_type, values)
    if avro_type == "string":
        return _sized(values)
    if avro_type == "long":
        return _longs(np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.int64))
    if avro_type == "boolean":
        return _chosen([b"\x00", b"\x01"], values.cast(pa.int8()))
    raise SchemaError(f"Avro type {avro_type!r} can't be written from columns")


def _optional(branches: list[Any], values: pa.Array) -> pa.BinaryArray:
    """A union with null: the branch's index, then the value."""
    (other,) = (branch for branch in branches if branch != "null")
    null, there = (pa.scalar(write_long(branches.index(branch))) for branch in ("null", other))
    if values.null_count == len(values):
        return pa.repeat(null, len(values))
    known = values.is_valid()
    written = pc.binary_join_element_wise(there, _encode(other, _filled(values)), _EMPTY)
    return pc.if_else(known, written, null)


def _filled(values: pa.Array) -> pa.Array:
    """The values with something in place of the nulls: the first value that there is."""
    if not values.null_count:
        return values
    known = values.is_valid()
    some = pc.index(known, True).as_py()
    places = pc.if_else(known, pa.array(np.arange(len(values))), some)
    return values.take(places)


def _complex(avro_type: dict[str, Any], values: pa.Array) -> pa.BinaryArray:
    match avro_type:
        case {"logicalType": "decimal", "precision": precision, "scale": scale}:
            words = words_of(values.cast(pa.decimal128(precision, scale)))
            low, high = words[:, 0], words[:, 1]
            return _of_cells(wide_decimal(low, high) if precision > NARROW_DIGITS else decimal(low))
        case {"type": "long"}:
            return _longs(values.cast(pa.int64()).to_numpy())
        case {"type": "enum", "symbols": symbols}:
            places = pc.index_in(values, pa.array(symbols))
            return _chosen([write_long(place) for place in range(len(symbols))], places)
        case {"type": "array", "items": items}:
            return _blocks(pc.list_value_length(values).to_numpy(), _encode(items, values.flatten()))
        case {"type": "map", "values": item}:
            offsets = values.offsets.to_numpy()
            keys, items = (part.slice(offsets[0], offsets[-1] - offsets[0]) for part in (values.keys, values.items))
            pairs = pc.binary_join_element_wise(_sized(keys), _encode(item, items), _EMPTY)
            return _blocks(np.diff(offsets), pairs)
    raise SchemaError(f"Avro type {avro_type!r} can't be written from columns")


def _blocks(lengths: npt.NDArray[Any], items: pa.BinaryArray) -> pa.BinaryArray:
    """Items as one block (count, items) and the 0 that ends them; no items are that 0 alone."""
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, items), _EMPTY)
    counts = _longs(lengths.astype(np.int64))
    end = pa.scalar(b"\x00")
    return pc.if_else(pa.array(lengths == 0), end, pc.binary_join_element_wise(counts, joined, end, _EMPTY))


def _sized(texts: pa.StringArray) -> pa.BinaryArray:
    """Length and bytes."""
    lengths = np.asarray(pc.binary_length(texts).to_numpy(zero_copy_only=False), dtype=np.int64)
    return pc.binary_join_element_wise(_longs(lengths), texts.cast(pa.binary()), _EMPTY)


def _longs(values: Ints) -> pa.BinaryArray:
    return _of_cells(long(values))


def _chosen(written: list[bytes], places: pa.Array) -> pa.BinaryArray:
    return pa.array(written, pa.binary()).take(places)


def _of_cells(cells: Cells) -> pa.BinaryArray:
    offsets = np.concatenate([[0], np.cumsum(cells.lengths())]).astype(np.int32)
    return pa.BinaryArray.from_buffers(
        pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(cells.flat().tobytes())]
    )
