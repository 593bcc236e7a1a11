"""Decimals as columns: between unscaled int64 values and Arrow's decimal128 buffers.

Avro writes a decimal as the big-endian two's complement of its unscaled value (1.11
specification, "Decimal"); Arrow keeps 128 bits, little-endian. Eighteen digits fit into int64, so
that the low word is the value and the high word its sign.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from k2beam.arrays import Ints, Mask
from k2beam.model import DECIMAL

LIMIT = 10**18
"""Unscaled values of decimal(18, s) are below this in magnitude."""

_WORD = 8


class Unscaled(NamedTuple):
    """Unscaled values (int64; 0 where bad or null), and masks of rows that overflow or have no bytes."""

    values: Ints
    overflow: Mask
    empty: Mask


def decimal_array(unscaled: Ints, data_type: pa.Decimal128Type = DECIMAL) -> pa.Array:
    """A decimal128 array (no nulls) of unscaled values, which the caller has checked against its precision."""
    words = np.empty((len(unscaled), 2), dtype=np.int64)
    words[:, 0] = unscaled
    words[:, 1] = unscaled >> 63
    return pa.Array.from_buffers(data_type, len(unscaled), [None, pa.py_buffer(words)])


def unscaled_words(array: pa.Array) -> Ints:
    """The unscaled values of a decimal128 array (no nulls, precision up to 18) as int64."""
    words = np.frombuffer(array.buffers()[1], dtype=np.int64)
    return words[2 * array.offset : 2 * (array.offset + len(array)) : 2]


def read_unscaled(array: pa.BinaryArray) -> Unscaled:
    """The unscaled values of Avro decimals: ``array`` (binary, offset 0, nulls read as 0) holds their bytes."""
    count = len(array)
    _, offset_buffer, data_buffer = array.buffers()
    data = bytes(data_buffer or b"")
    offsets = np.frombuffer(offset_buffer, dtype=np.int32)[: count + 1].astype(np.int64)
    lengths = np.diff(offsets)
    words: Ints = np.ndarray(shape=(len(data) + 1,), dtype=">i8", buffer=data + bytes(_WORD), strides=(1,))
    # The eight bytes from the first on, shifted down by what isn't this value's; >> keeps the sign.
    shift = 8 * (_WORD - np.clip(lengths, 1, _WORD))
    values = words[offsets[:-1]].astype(np.int64) >> shift
    empty = lengths == 0
    values[empty] = 0
    overflow = (values >= LIMIT) | (values <= -LIMIT)
    for row in np.flatnonzero(lengths > _WORD):
        # Legal where the extra bytes are only sign.
        value = int.from_bytes(data[offsets[row] : offsets[row + 1]], "big", signed=True)
        overflow[row] = abs(value) >= LIMIT
        values[row] = 0 if overflow[row] else value
    values[overflow] = 0
    return Unscaled(values, overflow, empty)
