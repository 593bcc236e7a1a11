"""Decimals of one word as those of two."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from k2beam.codec.decimals import of_words, shifted, to_column, widened
from k2beam.model import DECIMAL

MOST = 10**18 - 1
NUMBERS = st.one_of(
    st.integers(-MOST, MOST),
    st.integers(-1000, 1000),
    # Products of ten that lie next to a multiple of 2**64, where the upper word turns.
    st.builds(
        lambda many, by: max(min((many << 64) // 10**10 + by, MOST), -MOST),
        st.integers(-(10**8), 10**8),
        st.integers(-2, 2),
    ),
)


@given(st.lists(NUMBERS, min_size=1), st.integers(0, 12))
def test_zeros_are_put_after_numbers_of_18_digits_exactly(numbers: list[int], places: int) -> None:
    words = shifted(np.array(numbers, dtype=np.int64), places)
    products = [int(high) * 2**64 + int(low.view(np.uint64)) for low, high in words]
    assert products == [number * 10**places for number in numbers]


@given(st.lists(NUMBERS, min_size=1), st.integers(0, 18), st.data())
def test_a_column_of_18_digits_becomes_what_a_cast_makes_of_it(
    numbers: list[int], scale: int, data: st.DataObject
) -> None:
    nulls = data.draw(st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers)))
    column = of_words(widened(np.array(numbers, dtype=np.int64)), pa.decimal128(18, scale))
    column = pa.array(
        [None if null else value for null, value in zip(nulls, column.to_pylist(), strict=True)], column.type
    )
    for part in (column, column.slice(1)):
        made, beyond = to_column(part)
        assert made.equals(part.cast(DECIMAL))
        made.validate(full=True)
        assert not beyond.any()
