"""Strings and bytes of many payloads to Arrow arrays: one gather, and one look at the UTF-8."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from k2beam.arrays import Ints, Mask
from k2beam.codec.columnar.lanes import Buffer


def gather(buffer: Buffer, start: Ints, length: Ints) -> pa.BinaryArray:
    """The spans of ``buffer`` as a binary array (no nulls).

    Arrow copies them: the buffer is shown to it as an array of twice as many values, of which every second one is
    what lies between two spans.
    """
    count = len(start)
    offsets = np.empty(2 * count + 1, dtype=np.int32)
    offsets[0:-1:2] = start
    offsets[1::2] = start + length
    offsets[-1] = offsets[-2] if count else 0
    both = pa.Array.from_buffers(pa.binary(), 2 * count, [None, pa.py_buffer(offsets), pa.py_buffer(buffer.data)])
    return both.take(pa.array(np.arange(0, 2 * count, 2, dtype=np.int32)))


def gather_text(buffer: Buffer, start: Ints, length: Ints) -> tuple[pa.StringArray, Mask | None]:
    """As :func:`gather`, as strings; those that are no UTF-8 are empty, and marked in the mask."""
    values = gather(buffer, start, length)
    if _is_ascii(values):
        return with_validity(values, pa.string(), None), None
    try:
        return values.cast(pa.string()), None
    except pa.ArrowInvalid:
        bad = np.fromiter((not _is_utf8(value) for value in values.to_pylist()), dtype=np.bool_, count=len(values))
        return with_validity(gather(buffer, start, np.where(bad, 0, length)), pa.string(), None), bad


def with_validity(values: pa.Array, data_type: pa.DataType, validity: pa.Buffer | None) -> pa.Array:
    """An array over the buffers of ``values``, which has no nulls and starts at its buffers' start."""
    return pa.Array.from_buffers(data_type, len(values), [validity, *values.buffers()[1:]])


def _is_ascii(values: pa.BinaryArray) -> bool:
    _, offsets, data = values.buffers()
    total = int(np.frombuffer(offsets, dtype=np.int32)[len(values)])
    return not total or int(np.frombuffer(data, dtype=np.uint8, count=total).max()) < 0x80


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
