"""Confluent framing: the magic byte 0, four bytes of schema id (big-endian), then the Avro body.

The wire format is that of Confluent's Schema Registry ("Wire format"). Ids are read as unsigned. Newer clients may put
the id, or the schema's GUID, into a header of the message, and the body alone into the value.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2beam.arrays import Ints
from k2beam.errors import (
    BadMagicError,
    BadSchemaHeaderError,
    EmptyPayloadError,
    FrameError,
    ShortFrameError,
    TombstoneError,
)
from k2beam.model import SchemaRef

FRAME_MAGIC = 0
HEADER_BYTES = 5
SCHEMA_HEADER = "__value_schema_id"

_GUID_MAGIC = 1
_GUID_BYTES = 17

AnyFrameError = TombstoneError | EmptyPayloadError | BadMagicError | ShortFrameError | BadSchemaHeaderError


class Frames(NamedTuple):
    """Schema ids of framed rows (int64; -1 where a row has no frame) and the errors, by row."""

    schema_ids: Ints
    errors: tuple[tuple[int, AnyFrameError], ...]


def frame(schema_id: int, body: bytes) -> bytes:
    """``body`` in Confluent framing. Raises FrameError for an id that does not fit into 32 bits."""
    if not 0 <= schema_id < 1 << 32:
        raise FrameError(f"schema id {schema_id} does not fit into 32 bits")
    return bytes([FRAME_MAGIC]) + schema_id.to_bytes(4, "big") + body


def frame_error(value: bytes | None) -> AnyFrameError | None:
    """What is wrong with the frame of ``value``; None where it is good."""
    if value is None:
        return TombstoneError("the value is null (a tombstone); nothing to decode")
    if not value:
        return EmptyPayloadError("the value is empty; a frame has at least 5 bytes")
    if value[0] != FRAME_MAGIC:
        return BadMagicError(
            f"the value starts with 0x{value[0]:02x}, not with the magic byte 0x00 of Confluent framing"
        )
    if len(value) < HEADER_BYTES:
        return ShortFrameError(f"the value has {len(value)} bytes; a frame has at least {HEADER_BYTES}")
    return None


def unframe(value: bytes | None) -> tuple[int, bytes]:
    """Schema id and body of one framed value. Raises the FrameError of :func:`frame_error`."""
    error = frame_error(value)
    if error is not None or value is None:
        raise error or TombstoneError("the value is null")
    return int.from_bytes(value[1:HEADER_BYTES], "big"), value[HEADER_BYTES:]


def split_frames(values: pa.BinaryArray) -> Frames:
    """The schema ids of a column of framed values; no body is copied."""
    count = len(values)
    schema_ids = np.full(count, -1, dtype=np.int64)
    _, offset_buffer, data_buffer = values.buffers()
    if count == 0 or offset_buffer is None:
        return Frames(schema_ids, ())
    offsets = np.frombuffer(offset_buffer, dtype=np.int32)[values.offset : values.offset + count + 1].astype(np.int64)
    data = np.frombuffer(data_buffer or b"", dtype=np.uint8)
    good = np.diff(offsets) >= HEADER_BYTES
    if values.null_count:
        good &= values.is_valid().to_numpy(zero_copy_only=False)
    starts = offsets[:-1]
    if not good.all():
        starts = np.where(good, starts, 0)
    if good.any():
        good &= data[starts] == FRAME_MAGIC
        ids = sum(data[starts + 1 + byte].astype(np.int64) << (24 - 8 * byte) for byte in range(4))
        schema_ids = np.where(good, ids, -1)
    return Frames(schema_ids, tuple(_errors(values, np.flatnonzero(~good))))


def _errors(values: pa.BinaryArray, rows: npt.NDArray[np.intp]) -> list[tuple[int, AnyFrameError]]:
    found = ((int(row), frame_error(values[int(row)].as_py())) for row in rows)
    return [(row, error) for row, error in found if error is not None]


def header_schemas(headers: pa.ListArray) -> dict[int, SchemaRef | AnyFrameError]:
    """The rows whose headers name the writer's schema, and which; their values are bare Avro.

    The last header :data:`SCHEMA_HEADER` counts: byte 0 and an id of four bytes, or byte 1 and a GUID of sixteen
    (Confluent's documentation, "Wire format", schema ids in headers).
    """
    entries = headers.flatten()
    if not len(entries):
        return {}
    ours = np.flatnonzero(pc.equal(entries.field("key"), SCHEMA_HEADER).fill_null(False).to_numpy(zero_copy_only=False))
    rows = pc.list_parent_indices(headers).take(pa.array(ours)).to_pylist()
    return dict(zip(rows, map(_schema_in, entries.field("value").take(pa.array(ours)).to_pylist()), strict=True))


def schema_of(value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> SchemaRef | None:
    """What names the schema of one message, in its header or its frame; None where nothing good does."""
    for key, named in reversed(tuple(headers)):
        if key == SCHEMA_HEADER:
            found = _schema_in(named)
            return found if isinstance(found, int | str) else None
    return None if frame_error(value) is not None else unframe(value)[0]


def parse_ref(text: str) -> SchemaRef | None:
    """The id or GUID that ``str`` gave; None for another text."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return text if str(uuid.UUID(text)) == text else None
    except ValueError:
        return None


def ref_name(ref: SchemaRef) -> str:
    """It in the words of a message."""
    return f"id {ref}" if isinstance(ref, int) else f"GUID {ref}"


def _schema_in(value: bytes | None) -> SchemaRef | AnyFrameError:
    if value is not None and len(value) == HEADER_BYTES and value[0] == FRAME_MAGIC:
        return int.from_bytes(value[1:], "big")
    if value is not None and len(value) == _GUID_BYTES and value[0] == _GUID_MAGIC:
        return str(uuid.UUID(bytes=value[1:]))
    return BadSchemaHeaderError(f"the header {SCHEMA_HEADER} has {value!r:.60}, which is no schema id and no GUID")
