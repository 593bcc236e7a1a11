"""The types of one value, read from all lanes at a time and made an Arrow array.

A leaf reads first (cursors move, numbers and spans are noted) and builds later, since items of arrays are put in
order in between. Whatever a leaf does not read as the strict decoder would, it drops.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2beam.arrays import Ints, Mask
from k2beam.codec.avro_schema import AvroType, Enum, Fixed, Primitive, decimal_digits
from k2beam.codec.columnar.lanes import Buffer, Lanes
from k2beam.codec.columnar.text import gather, gather_text, with_validity
from k2beam.codec.decimals import WORD, column_type, of_words, overflows, widened
from k2beam.model import MAX_TIMESTAMP, MIN_TIMESTAMP, TIMESTAMP

Raw = tuple[npt.NDArray[Any], ...]
"""What a leaf noted of each lane: arrays of one length."""

Built = tuple[pa.Array, Mask | None]
"""An array, and which of its values turned out bad (None: no one)."""

_INT_LIMIT = 1 << 31


def bitmap(mask: Mask) -> pa.Buffer:
    """One bit for each entry, as Arrow has them."""
    return pa.py_buffer(np.packbits(mask, bitorder="little"))


class Leaf(ABC):
    """One type: ``data_type`` is the Arrow type of :meth:`build`."""

    data_type: pa.DataType

    @abstractmethod
    def read(self, lanes: Lanes) -> Raw:
        """Moves each lane over one value."""

    def build(self, buffer: Buffer, raw: Raw, validity: pa.Buffer | None) -> Built:
        """The array of what was read; values that ``validity`` calls null are 0 or empty in ``raw``."""
        (values,) = raw
        return pa.Array.from_buffers(self.data_type, len(values), [validity, pa.py_buffer(values)]), None


class Text(Leaf):
    """Strings, or bytes."""

    def __init__(self, *, text: bool) -> None:
        self.data_type = pa.string() if text else pa.binary()

    def read(self, lanes: Lanes) -> Raw:
        length = lanes.sizes()
        return lanes.spans(length), length

    def build(self, buffer: Buffer, raw: Raw, validity: pa.Buffer | None) -> Built:
        start, length = raw
        if validity is not None:
            # Nulls have no start yet: that is the end of the one before, since starts must not fall.
            start = np.maximum.accumulate(start + length) - length
        if pa.types.is_string(self.data_type):
            array, bad = gather_text(buffer, start, length)
        else:
            array, bad = gather(buffer, start, length), None
        if validity is not None:
            array = with_validity(array, self.data_type, validity)
        return array, bad


class FixedBytes(Text):
    """``size`` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(text=False)
        self._size = size

    def read(self, lanes: Lanes) -> Raw:
        return lanes.take(self._size)


class Long(Leaf):
    """64 bits."""

    data_type = pa.int64()

    def read(self, lanes: Lanes) -> Raw:
        return (lanes.longs(),)


class Int(Leaf):
    """32 bits."""

    data_type = pa.int32()

    def read(self, lanes: Lanes) -> Raw:
        value = lanes.longs()
        lanes.drop((value < -_INT_LIMIT) | (value >= _INT_LIMIT))
        return (value.astype(np.int32),)


class Timestamp(Leaf):
    """Microseconds or milliseconds of the years 1 to 9999, as microseconds."""

    data_type = TIMESTAMP

    def __init__(self, unit: int) -> None:
        self._unit = unit

    def read(self, lanes: Lanes) -> Raw:
        value = lanes.longs()
        bad = (value < MIN_TIMESTAMP // self._unit) | (value > MAX_TIMESTAMP // self._unit)
        if lanes.drop(bad):
            value = np.where(bad, 0, value)
        return (value if self._unit == 1 else value * self._unit,)


class Boolean(Leaf):
    """One byte, 0 or 1."""

    data_type = pa.bool_()

    def read(self, lanes: Lanes) -> Raw:
        start, _ = lanes.take(1)
        value = lanes.buffer.data[start]
        lanes.drop(value > 1)
        return (value == 1,)

    def build(self, buffer: Buffer, raw: Raw, validity: pa.Buffer | None) -> Built:
        (values,) = raw
        return pa.Array.from_buffers(self.data_type, len(values), [validity, bitmap(values)]), None


class Float(Leaf):
    """32 bits, IEEE 754."""

    data_type = pa.float32()

    def read(self, lanes: Lanes) -> Raw:
        start, _ = lanes.take(4)
        return ((lanes.buffer.words[start] & 0xFFFF_FFFF).astype(np.uint32).view(np.float32),)


class Double(Leaf):
    """64 bits, IEEE 754."""

    data_type = pa.float64()

    def read(self, lanes: Lanes) -> Raw:
        start, _ = lanes.take(8)
        return (lanes.buffer.words[start].view(np.float64),)


class Symbol(Leaf):
    """An enum, as strings."""

    data_type = pa.string()

    def __init__(self, symbols: tuple[str, ...]) -> None:
        self._symbols = pa.array(symbols, type=pa.string())

    def read(self, lanes: Lanes) -> Raw:
        return (lanes.indices(len(self._symbols)),)

    def build(self, buffer: Buffer, raw: Raw, validity: pa.Buffer | None) -> Built:
        array = self._symbols.take(pa.array(raw[0]))
        if validity is not None:
            array = with_validity(array, self.data_type, validity)
        return array, None


class DecimalLeaf(Leaf):
    """A decimal of at most 38 digits in 1 to 16 bytes, big-endian two's complement (1.11 specification, "Decimal")."""

    def __init__(self, logical: str) -> None:
        precision, scale = decimal_digits(logical)
        self._digits = precision
        self.data_type = column_type(precision, scale)

    def read(self, lanes: Lanes) -> Raw:
        length = lanes.sizes(2 * WORD)
        start = lanes.spans(length)
        first = _big_endian(lanes.buffer, start)
        words = widened(first >> np.maximum(8 * WORD - 8 * length, 0))
        wide = np.flatnonzero(length > WORD)
        if len(wide):
            words[wide, 0] = _big_endian(lanes.buffer, start[wide] + length[wide] - WORD)
            words[wide, 1] = first[wide] >> 8 * (2 * WORD - length[wide])
        lanes.drop((length == 0) | overflows(words, self._digits))
        return (words,)

    def build(self, buffer: Buffer, raw: Raw, validity: pa.Buffer | None) -> Built:
        return of_words(raw[0], self.data_type, validity), None


def _big_endian(buffer: Buffer, start: Ints) -> Ints:
    return buffer.words[start].byteswap().view(np.int64)


_PRIMITIVES: dict[str, Leaf] = {
    "string": Text(text=True),
    "bytes": Text(text=False),
    "long": Long(),
    "int": Int(),
    "boolean": Boolean(),
    "float": Float(),
    "double": Double(),
}


def leaf_of(avro_type: AvroType) -> Leaf | None:
    """The leaf of a type, None for a type that is more than one value."""
    match avro_type:
        case Primitive(name="bytes", logical=logical) if logical:
            return DecimalLeaf(logical)
        case Primitive(logical=logical) if logical:
            return Timestamp(1000 if logical == "timestamp-millis" else 1)
        case Primitive(name=name):
            return _PRIMITIVES.get(name)
        case Enum(symbols=symbols):
            return Symbol(symbols)
        case Fixed(size=size) if size > 0:
            return FixedBytes(size)
    return None
