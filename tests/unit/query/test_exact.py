"""Decimals as whole units, exactly or not at all."""

from __future__ import annotations

from decimal import Context, Decimal

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from k2beam.errors import LakeError
from k2beam.model import DECIMAL
from k2beam.query.exact import units_of, volume_and_vwap

WIDE = Context(prec=80)


def decimals(unscaled: list[int]) -> pa.Array:
    return pa.array([Decimal(number).scaleb(-18, WIDE) for number in unscaled], DECIMAL)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
@example([2**63 - 1, -(2**63), 0, -1, 1])
def test_what_fits_is_the_number_of_units(units: list[int]) -> None:
    found = units_of(decimals([number * 10**10 for number in units]))
    assert found is not None
    assert found.tolist() == units
    part = units_of(decimals([number * 10**10 for number in units])[1:])
    assert part is not None
    assert part.tolist() == units[1:]


@given(st.integers(-(10**38) + 1, 10**38 - 1))
@example((2**63) * 10**10)
@example((-(2**63) - 1) * 10**10)
@example(2**64 * 1024)
@example(1)
@example(10**9)
def test_what_does_not_fit_is_none(unscaled: int) -> None:
    fits = unscaled % 10**10 == 0 and -(2**63) <= unscaled // 10**10 < 2**63
    found = units_of(decimals([5 * 10**10, unscaled]))
    assert (found is not None) == fits


def test_a_volume_beyond_the_type_of_a_column_is_an_error() -> None:
    sums = pa.RecordBatch.from_pydict(
        {
            "_volume": pa.array([Decimal(10**29)], pa.decimal128(38, 0)),
            "_notional": pa.array([Decimal(1)], pa.decimal128(38, 0)),
            "_vwap": pa.array([Decimal(1)], pa.decimal128(38, 0)),
        }
    )
    with pytest.raises(LakeError, match="more digits"):
        volume_and_vwap(sums)
