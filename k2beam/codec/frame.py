"""Confluent framing: the magic byte 0, four bytes of schema id (big-endian), then the Avro body.

The wire format is that of Confluent's Schema Registry ("Wire format"). Ids are read as unsigned.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2beam.arrays import Ints
from k2beam.errors import BadMagicError, EmptyPayloadError, FrameError, ShortFrameError, TombstoneError

FRAME_MAGIC = 0
HEADER_BYTES = 5


AnyFrameError = TombstoneError | EmptyPayloadError | BadMagicError | ShortFrameError


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
