"""Decimals as columns: between the bytes of Avro, 64-bit words and Arrow's decimal128 buffers.

Avro writes a decimal as the big-endian two's complement of its unscaled value (1.11 specification, "Decimal"); Arrow
keeps 128 bits, little-endian. Eighteen digits fit into a word: then the low one is the value, the high one its sign.
"""

from __future__ import annotations

from decimal import Context, Decimal
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2beam.arrays import Ints, Mask
from k2beam.model import DECIMAL

NARROW_DIGITS = 18
"""So many digits fit into a word."""

WIDE_DIGITS = 38
WORD = 8
WIDEST_SHOWN = 1024
"""Bytes of a decimal that is out of range and yet shown as a number: Python writes out 4300 digits at most."""

_SHIFTED_PLACES = 12
_WORD_VALUES = 2.0**64
_EXACT = Context(prec=2 * WIDE_DIGITS)

DecimalWords = npt.NDArray[np.int64]
"""A row of two words for each value, the low one first."""


class Unscaled(NamedTuple):
    """Unscaled values (0 where bad or null), and masks of rows that overflow or have no bytes."""

    words: DecimalWords
    overflow: Mask
    empty: Mask


def column_type(precision: int, scale: int) -> pa.Decimal128Type:
    """The type of a column of a writer's decimals: of 18 digits, or of 38 where it may have more."""
    return pa.decimal128(NARROW_DIGITS if precision <= NARROW_DIGITS else WIDE_DIGITS, scale)


def widened(values: Ints) -> DecimalWords:
    """The words of values of one word."""
    words = np.empty((len(values), 2), dtype=np.int64)
    words[:, 0] = values
    words[:, 1] = values >> 63
    return words


def shifted(values: Ints, places: int) -> DecimalWords:
    """The words of values of at most 18 digits with ``places`` zeros after them, at most 12; faster than a cast."""
    words = np.empty((len(values), 2), dtype=np.int64)
    low = np.multiply(values, 10**places, out=words[:, 0])  # modulo 2**64, which is what the low word is
    # So what the product has above it is near a whole number, and a double is not wrong by more than 1e-5.
    words[:, 1] = np.rint(values * (10.0**places / _WORD_VALUES) - low.view(np.uint64) * (1 / _WORD_VALUES))
    return words


def of_words(words: DecimalWords, data_type: pa.Decimal128Type, validity: pa.Buffer | None = None) -> pa.Array:
    """A decimal128 array of unscaled values, which the caller has checked against its precision."""
    return pa.Array.from_buffers(data_type, len(words), [validity, pa.py_buffer(words)])


def words_of(array: pa.Array) -> DecimalWords:
    """The words of a decimal128 array; those of a null are anything."""
    words = np.frombuffer(array.buffers()[1], dtype=np.int64).reshape(-1, 2)
    return words[array.offset : array.offset + len(array)]


def overflows(words: DecimalWords, digits: int) -> Mask:
    """Which values have more digits: than 18, or than 38."""
    low, high = words[:, 0], words[:, 1]
    if digits <= NARROW_DIGITS:
        most = 10**NARROW_DIGITS - 1
        # Added to it, what is in range is from 0 to twice as much; all else is more, without a sign.
        return np.asarray(((low + most).view(np.uint64) > np.uint64(2 * most)) | (high != low >> 63))
    limit_high, limit_low = divmod(10**WIDE_DIGITS, 1 << 64)
    negated = high < 0
    # Of a negative value the words of its negation: all bits turned, and one added.
    positive_low = np.where(negated, ~low, low).view(np.uint64) + negated.astype(np.uint64)
    positive_high = np.where(negated, ~high, high) + (negated & (positive_low == 0))
    least = positive_high.view(np.uint64) == np.uint64(limit_high)
    more = positive_high.view(np.uint64) > np.uint64(limit_high)
    return np.asarray(more | (least & (positive_low >= np.uint64(limit_low))))


def to_column(array: pa.Array) -> tuple[pa.Array, Mask]:
    """Decimals of any precision and scale as :data:`k2beam.model.DECIMAL`, and which do not fit (anything there)."""
    bad = np.zeros(len(array), dtype=np.bool_)
    if array.type == DECIMAL:
        return array, bad
    places = DECIMAL.scale - array.type.scale
    if array.type.precision <= NARROW_DIGITS and 0 <= places <= _SHIFTED_PLACES and not array.offset:
        return of_words(shifted(words_of(array)[:, 0], places), DECIMAL, array.buffers()[0]), bad
    bad = without_room(array, DECIMAL)
    if bad.any():
        array = pc.if_else(pa.array(bad), pa.scalar(0, array.type), array)
    return array.cast(DECIMAL), bad


def without_room(array: pa.Array, data_type: pa.Decimal128Type) -> Mask:
    """Which values can't be had in a type with all their digits."""
    try:
        array.cast(data_type)
    except pa.ArrowInvalid:
        return np.array([not (value is None or _fits(value, data_type)) for value in array.to_pylist()])
    return np.zeros(len(array), dtype=np.bool_)


def _fits(value: Decimal, data_type: pa.Decimal128Type) -> bool:
    scaled = value.scaleb(data_type.scale, _EXACT)
    return abs(scaled) < 10**data_type.precision and scaled == scaled.to_integral_value(context=_EXACT)


def number_of(value: bytes, scale: int) -> Decimal | None:
    """The number that an Avro decimal's bytes stand for; None of so many that it could not be written out."""
    if len(value) > WIDEST_SHOWN:
        return None
    unscaled = int.from_bytes(value, "big", signed=True)
    return Decimal((int(unscaled < 0), tuple(map(int, str(abs(unscaled)))), -scale))


def read_unscaled(array: pa.BinaryArray, digits: int) -> Unscaled:
    """The unscaled values of Avro decimals: ``array`` (binary, offset 0, nulls read as 0) holds their bytes.

    Those of more than ``digits`` (18 or 38) overflow.
    """
    count = len(array)
    _, offset_buffer, data_buffer = array.buffers()
    data = bytes(data_buffer or b"")
    offsets = np.frombuffer(offset_buffer, dtype=np.int32)[: count + 1].astype(np.int64)
    lengths = np.diff(offsets)
    words: Ints = np.ndarray(shape=(len(data) + 1,), dtype=">i8", buffer=data + bytes(WORD), strides=(1,))
    # The eight bytes from the first on, shifted down by what isn't this value's; >> keeps the sign.
    shift = 8 * (WORD - np.clip(lengths, 1, WORD))
    found = widened(words[offsets[:-1]].astype(np.int64) >> shift)
    empty = lengths == 0
    found[empty] = 0
    overflow = overflows(found, NARROW_DIGITS) if digits <= NARROW_DIGITS else np.zeros(count, dtype=np.bool_)
    for row in np.flatnonzero(lengths > WORD):
        # Legal where the bytes beyond the digits are only sign.
        value = int.from_bytes(data[offsets[row] : offsets[row + 1]], "big", signed=True)
        overflow[row] = abs(value) >= 10 ** (NARROW_DIGITS if digits <= NARROW_DIGITS else WIDE_DIGITS)
        if not overflow[row]:
            found[row] = np.frombuffer(value.to_bytes(2 * WORD, "little", signed=True), np.int64)
    found[overflow] = 0
    return Unscaled(found, overflow, empty)
