"""Cutting a batch into chunks that are decoded together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


def chunk_bounds(offsets: npt.NDArray[np.int64], rows: int, size: int) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) row of chunks of at most ``rows`` rows and ``size`` bytes, or of one row."""
    first, count = 0, len(offsets) - 1
    while first < count:
        fitting = int(np.searchsorted(offsets, offsets[first] + size, side="right")) - 1
        last = min(max(fitting, first + 1), first + rows, count)
        yield first, last
        first = last
