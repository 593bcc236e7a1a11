"""The NumPy arrays of columns, and Arrow columns without nulls as such, for what is counted and compared there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]


def mask_of(array: pa.BooleanArray) -> Mask:
    """The rows that are true."""
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.bool_)


def whole_numbers(texts: pa.StringArray) -> Ints:
    """The numbers that texts of digits tell, in an array of their own. Raises ArrowInvalid beyond 64 bits."""
    return np.array(pc.cast(texts, pa.int64()), dtype=np.int64)


def text_bytes(texts: pa.StringArray) -> Ints:
    """The bytes that each text takes."""
    return np.asarray(pc.binary_length(texts).to_numpy(zero_copy_only=False), dtype=np.int64)
