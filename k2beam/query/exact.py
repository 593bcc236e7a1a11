"""Exact sums of prices times quantities: in whole units where these fit into 64 bits, else in parts of their digits.

A decimal of the tables has 18 places. What exchanges quote has 8 at most, and then the number of its 10^-8 fits into
64 bits and a product into 128. What has more places, or is larger, is summed in parts: a product has 76 digits then,
more than any number of a database could hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction

import numpy as np
import pyarrow as pa

from k2beam.arrays import Ints
from k2beam.errors import LakeError, QueryFailed
from k2beam.model import DECIMAL
from k2beam.query import duck

PLACES = 8
"""Places of a value that is counted in whole units."""

SCALE = DECIMAL.scale
_WIDE = Context(prec=200)
_SHIFT = SCALE - PLACES
_UNIT = 10**_SHIFT
_ODD_INVERSE = pow(5**_SHIFT, -1, 2**64)
_PARTS = range(3)
_PART = 10**13
"""Three parts of thirteen digits are a column's value: products of two parts, and sums of them, fit into a HUGEINT."""


def units_of(values: pa.Array) -> Ints | None:
    """Decimals of 18 places as numbers of 10^-8, exactly; None where one has more places, or too many digits.

    A value v is q x 10^10. The low 64 bits of q are those of v / 2^10 times the inverse of 5^10 modulo 2^64; q is right
    where q x 10^10, which then equals v modulo 2^64, is also nearer to v than that.
    """
    words = np.frombuffer(values.buffers()[1], np.uint64)[2 * values.offset : 2 * (values.offset + len(values))]
    low, high = words[0::2], words[1::2]
    if (low & np.uint64(2**_SHIFT - 1)).any():
        return None
    shifted = (low >> np.uint64(_SHIFT)) | (high << np.uint64(64 - _SHIFT))
    units = (shifted * np.uint64(_ODD_INVERSE)).view(np.int64)
    wanted = high.view(np.int64).astype(np.float64) * 2.0**64 + low.astype(np.float64)
    if (np.abs(units.astype(np.float64) * 10.0**_SHIFT - wanted) >= 2.0**62).any():
        return None
    return units


def sum_up(session: duck.Session, statement: Callable[[Amounts], str]) -> Amounts:
    """Run the statement that sums amounts up, in units if all values and sums have room, else in parts.

    Raises QueryFailed where it fails for another reason.
    """
    units, parts = Amounts(units=True), Amounts(units=False)
    try:
        with session.function("units", _units_column, f"DECIMAL({DECIMAL.precision}, {SCALE})", "BIGINT"):
            session.run(statement(units))
    except QueryFailed:
        session.run(statement(parts))
        return parts
    return units


def _units_column(values: pa.ChunkedArray) -> pa.ChunkedArray:
    found = [units_of(chunk) for chunk in values.chunks]
    if any(chunk is None for chunk in found):
        raise ValueError("a value has more places or digits than its units")
    return pa.chunked_array([pa.array(chunk) for chunk in found], pa.int64())


def decimal_of(unscaled: int) -> Decimal:
    """The decimal of a number of 10^-18."""
    return Decimal(unscaled).scaleb(-SCALE, context=_WIDE)


_PART_SUMS = {
    **{f"volume_{j}": f"q_{j}" for j in _PARTS},
    **{f"notional_{i}_{j}": f"p_{i} * q_{j}" for i in _PARTS for j in _PARTS},
}


@dataclass(frozen=True, slots=True)
class Amounts:
    """How prices and quantities are summed: in ``units`` of 10^-8, or in parts."""

    units: bool

    def source(self, relation: str) -> str:
        """SQL for the rows of a relation, as the sums take them."""
        further = "units(price) AS _p, units(quantity) AS _q" if self.units else _ALL_PARTS
        return f"(SELECT *, {further} FROM {relation})"  # noqa: S608

    @property
    def sums(self) -> str:
        """SQL aggregates over :meth:`source`."""
        if self.units:
            return "coalesce(sum(_q), 0) AS _volume, coalesce(sum(CAST(_p AS HUGEINT) * _q), 0) AS _notional"
        return _sums_of_parts()

    @property
    def nothing(self) -> str:
        """SQL for the sums of no row."""
        names = ("_volume", "_notional") if self.units else _PART_SUMS
        return ", ".join(f"0 AS {name}" for name in names)

    @property
    def mean(self) -> str:
        """SQL over the sums: ``_vwap`` in 10^-18, rounded half to even, where 128 bits have room for the division."""
        if not self.units:
            return "NULL AS _vwap"
        whole, rest = (f"((_notional * {_UNIT}) {sign} _volume)" for sign in ("//", "%"))
        up = f"2 * {rest} > _volume OR 2 * {rest} = _volume AND {whole} % 2 = 1"
        room = f"_volume > 0 AND _notional BETWEEN 0 AND {10**28}"
        return f"CASE WHEN {room} THEN {whole} + CASE WHEN {up} THEN 1 ELSE 0 END END AS _vwap"


def pairs_of(found: pa.RecordBatch) -> Iterator[tuple[Decimal, Decimal | None]]:
    """Volume and VWAP of each row of sums, of any size; no VWAP where the volume is 0."""
    for row in found.to_pylist():
        if "_volume" in row:
            volume, notional = (int(row[name]) for name in ("_volume", "_notional"))
            yield _volume_and_mean(volume * _UNIT, notional * _UNIT**2)
        else:
            volume = sum(int(row[f"volume_{j}"]) * _PART**j for j in _PARTS)
            notional = sum(int(row[f"notional_{i}_{j}"]) * _PART ** (i + j) for i in _PARTS for j in _PARTS)
            yield _volume_and_mean(volume, notional)


def volume_and_vwap(found: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
    """The same as columns of decimals with 18 places, from rows of sums and means.

    Raises LakeError for a value of more than 20 digits before the point.
    """
    try:
        if "_volume" in found.schema.names and found.column("_vwap").null_count == 0:
            return _placed(found.column("_volume"), PLACES).cast(DECIMAL), _placed(found.column("_vwap"), SCALE)
        both = list(pairs_of(found))
        return pa.array([pair[0] for pair in both], DECIMAL), pa.array([pair[1] for pair in both], DECIMAL)
    except pa.ArrowInvalid as error:
        raise LakeError(f"a volume or a price has more digits than a decimal of 38 can have: {error}") from error


def _volume_and_mean(volume: int, notional: int) -> tuple[Decimal, Decimal | None]:
    """Of numbers of 10^-18, and products of two of them."""
    return decimal_of(volume), decimal_of(round(Fraction(notional, volume))) if volume else None


def _placed(whole: pa.Array, places: int) -> pa.Array:
    """Whole numbers of 128 bits as decimals of so many places: the same digits."""
    numbers = whole.cast(pa.decimal128(38, 0))
    return pa.Array.from_buffers(pa.decimal128(38, places), len(numbers), numbers.buffers(), offset=numbers.offset)


def _parts(column: str, name: str) -> str:
    """SQL: the parts of the digits of a decimal. By its text, since a product with 10^18 would have no room."""
    text = f"replace(CAST(CAST({column} AS DECIMAL(38, {SCALE})) AS VARCHAR), '.', '')"
    return ", ".join(f"CAST({text} AS HUGEINT) // {_PART**i} % {_PART} AS {name}_{i}" for i in _PARTS)


def _sums_of_parts() -> str:
    return ", ".join(f"CAST(coalesce(sum({sql}), 0) AS VARCHAR) AS {name}" for name, sql in _PART_SUMS.items())


_ALL_PARTS = f"{_parts('price', 'p')}, {_parts('quantity', 'q')}"
