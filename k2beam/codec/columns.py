"""Decoded values to typed Arrow columns, with the bytes that each value takes when encoded.

The lengths are those of the canonical encoding (shortest varints, one block for an array or map).
No encoding is shorter, so a record that used exactly the sum of them was canonical in every part:
that is how a whole batch is checked without decoding it twice.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2beam.arrays import Ints
from k2beam.codec.avro_schema import Array, AvroType, Enum, Fixed, Map, Primitive, decimal_digits, without_null
from k2beam.codec.decimals import column_type, of_words, read_unscaled
from k2beam.model import MAX_TIMESTAMP, MIN_TIMESTAMP, TIMESTAMP

_DOUBTFUL = -(1 << 40)
_VARINT_STEPS = np.array([1 << (7 * size) for size in range(1, 10)], dtype=np.uint64)


class Fault(NamedTuple):
    """A value that has no place in its column: the row, the class and the message of the error."""

    row: int
    error_class: str
    message: str


class Column(NamedTuple):
    """A column, its canonical lengths (negative sum: look again, strictly), and its faulty rows."""

    array: pa.Array
    lengths: Ints
    faults: tuple[Fault, ...] = ()


def is_columnar(avro_type: AvroType) -> bool:
    """Whether :func:`build_column` knows the type."""
    inner, _ = without_null(avro_type)
    match inner:
        case Primitive(name=name):
            return name != "null"
        case Fixed(size=size):
            return size > 0
        case Enum():
            return True
        case Array(items=items):
            return is_columnar(items)
        case Map(values=values):
            return is_columnar(values)
    return False


def build_column(values: list[Any], avro_type: AvroType) -> Column:
    """The column of ``values`` (physical Avro values, None for null) of a type that :func:`is_columnar`."""
    inner, nullable = without_null(avro_type)
    column = _build(values, inner)
    if not nullable:
        return column
    array, lengths, faults = column
    if array.null_count == 0:
        return Column(array, lengths + 1, faults)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    return Column(array, np.where(valid, lengths, 0) + 1, tuple(fault for fault in faults if valid[fault.row]))


def _build(values: list[Any], avro_type: AvroType) -> Column:
    match avro_type:
        case Primitive():
            return _build_primitive(values, avro_type)
        case Enum():
            return _trapped(values, pa.string())
        case Fixed(size=size):
            return _sized(values, pa.binary(), size)
        case Array(items=items):
            return _lists(values, items)
        case Map(values=items):
            return _maps(values, items)
    raise TypeError(f"{avro_type} is not a column type; is_columnar tells")


def _build_primitive(values: list[Any], primitive: Primitive) -> Column:
    if primitive.logical:
        build = _decimals if primitive.name == "bytes" else _timestamps
        return build(values, primitive.logical)
    return _PRIMITIVE_BUILDERS[primitive.name](values)


def varint_sizes(zigzag: npt.NDArray[np.uint64]) -> Ints:
    """Bytes of unsigned varints (1 to 10)."""
    if len(zigzag) and int(zigzag.max()) < 128:
        return np.ones(len(zigzag), dtype=np.int64)
    return np.searchsorted(_VARINT_STEPS, zigzag, side="right").astype(np.int64) + 1


def _count_sizes(counts: Ints) -> Ints:
    """Bytes of counts and lengths, which are not negative."""
    return varint_sizes(counts.astype(np.uint64) << np.uint64(1))


def _byte_lengths(array: pa.Array) -> Ints:
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int32)
    return np.diff(offsets[: len(array) + 1]).astype(np.int64)


def _text(values: list[Any], data_type: pa.DataType) -> Column:
    array = pa.array(values, type=data_type)
    lengths = _byte_lengths(array)
    return Column(array, lengths + _count_sizes(lengths))


def _sized(values: list[Any], data_type: pa.DataType, size: int) -> Column:
    return Column(pa.array(values, type=data_type), np.full(len(values), size, dtype=np.int64))


def _trapped(values: list[Any], data_type: pa.DataType) -> Column:
    """Enums and booleans: one byte, or None where a trap symbol was hit. (Indices from 64 on are looked at again.)"""
    array = pa.array(values, type=data_type)
    lengths = np.ones(len(values), dtype=np.int64)
    if array.null_count:
        lengths[array.is_null().to_numpy(zero_copy_only=False)] = _DOUBTFUL
    return Column(array, lengths)


def _longs(values: list[Any]) -> tuple[pa.Array, Ints]:
    array = pa.array(values, type=pa.int64())
    numbers = _numbers(array)
    zigzag = ((numbers << 1) ^ (numbers >> 63)).view(np.uint64)
    lengths = varint_sizes(zigzag)
    # Ten bytes can hide bits beyond the 64th, which the reader dropped.
    lengths[lengths == 10] = _DOUBTFUL
    return array, lengths


def _numbers(array: pa.Array) -> Ints:
    filled = array.fill_null(0) if array.null_count else array
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.int64)


def _ints(values: list[Any]) -> Column:
    array, lengths = _longs(values)
    numbers = _numbers(array)
    lengths[(numbers < -(1 << 31)) | (numbers >= 1 << 31)] = _DOUBTFUL
    return Column(array.cast(pa.int32(), safe=False), lengths)


def _timestamps(values: list[Any], logical: str) -> Column:
    array, lengths = _longs(values)
    numbers = _numbers(array)
    unit = 1000 if logical == "timestamp-millis" else 1
    bad = (numbers < MIN_TIMESTAMP // unit) | (numbers > MAX_TIMESTAMP // unit)
    faults = tuple(
        Fault(int(row), "timestamp_overflow", f"{numbers[row]} ({logical}) is outside the years 1 to 9999")
        for row in np.flatnonzero(bad)
    )
    if faults:
        numbers = np.where(bad, 0, numbers)
    if faults or unit != 1:
        nulls = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
        array = pa.array(numbers * unit, type=pa.int64(), mask=nulls)
    return Column(array.view(TIMESTAMP), lengths, faults)


def _decimals(values: list[Any], logical: str) -> Column:
    encoded, lengths, _ = _text(values, pa.binary())
    precision, scale = decimal_digits(logical)
    unscaled = read_unscaled(encoded, precision)
    faults = [
        Fault(int(row), "decimal_overflow", f"the value has more than the {precision} digits of {logical}")
        for row in np.flatnonzero(unscaled.overflow)
    ]
    faults += [
        Fault(int(row), "bad_decimal", f"the value ({logical}) has no bytes; zero is one byte")
        for row in np.flatnonzero(unscaled.empty & encoded.is_valid().to_numpy(zero_copy_only=False))
    ]
    validity = encoded.buffers()[0] if encoded.null_count else None
    array = of_words(unscaled.words, column_type(precision, scale), validity)
    return Column(array, lengths, tuple(faults))


class _Groups(NamedTuple):
    """Offsets (int32) of the items of each row, the mask of null rows (or None), and the lengths around items."""

    offsets: pa.Array
    nulls: pa.Array | None
    bounds: Ints
    around: Ints

    def lengths(self, items: Ints) -> Ints:
        sums = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(items)))
        return self.around + sums[self.bounds[1:]] - sums[self.bounds[:-1]]


def _groups(values: list[Any]) -> _Groups:
    counts = np.fromiter((len(value) if value else 0 for value in values), dtype=np.int64, count=len(values))
    bounds = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(counts)))
    around = np.where(counts > 0, _count_sizes(counts) + 1, 1)
    nulls = pa.array([value is None for value in values]) if None in values else None
    return _Groups(pa.array(bounds.astype(np.int32)), nulls, bounds, around)


def _lists(values: list[Any], items: AvroType) -> Column:
    groups = _groups(values)
    column = build_column(list(chain.from_iterable(filter(None, values))), items)
    nullable = without_null(items)[1]
    data_type = pa.list_(pa.field("element", column.array.type, nullable=nullable))
    array = pa.ListArray.from_arrays(groups.offsets, column.array, type=data_type, mask=groups.nulls)
    return Column(array, groups.lengths(column.lengths))


def _maps(values: list[Any], items: AvroType) -> Column:
    groups = _groups(values)
    filled = [value for value in values if value]
    keys = _text(list(chain.from_iterable(filled)), pa.string())
    column = build_column([item for value in filled for item in value.values()], items)
    data_type = pa.map_(pa.string(), pa.field("value", column.array.type, nullable=without_null(items)[1]))
    array = pa.MapArray.from_arrays(groups.offsets, keys.array, column.array, type=data_type, mask=groups.nulls)
    return Column(array, groups.lengths(keys.lengths + column.lengths))


_PRIMITIVE_BUILDERS: dict[str, Callable[[list[Any]], Column]] = {
    "string": lambda values: _text(values, pa.string()),
    "bytes": lambda values: _text(values, pa.binary()),
    "long": lambda values: Column(*_longs(values)),
    "int": _ints,
    "boolean": lambda values: _trapped(values, pa.bool_()),
    "float": lambda values: _sized(values, pa.float32(), 4),
    "double": lambda values: _sized(values, pa.float64(), 8),
}
