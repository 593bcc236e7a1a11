"""Bytes to UUIDs (RFC 9562), many at once; uuid.UUID would make an object of each."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from k2beam.arrays import Bytes

TEXT_BYTES = 36
"""Bytes of a UUID as text."""

_GROUPS = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))


def uuid_texts(data: Bytes, *, version: int) -> pa.StringArray:
    """A column of the UUIDs that :func:`uuid_characters` writes."""
    count = len(data)
    offsets = np.arange(count + 1, dtype=np.int32) * TEXT_BYTES
    characters = uuid_characters(data, version=version)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(characters))


def uuid_characters(data: Bytes, *, version: int) -> Bytes:
    """The ASCII text, :data:`TEXT_BYTES` a row, of the 16 bytes of each row marked as a UUID of ``version``."""
    marked = data.copy()
    marked[:, 6] = (marked[:, 6] & 0x0F) | (version << 4)
    marked[:, 8] = (marked[:, 8] & 0x3F) | 0x80
    digits = np.frombuffer(marked.tobytes().hex().encode(), np.uint8).reshape(-1, 32)
    texts = np.full((len(marked), TEXT_BYTES), ord("-"), np.uint8)
    for dashes, (start, end) in enumerate(_GROUPS):
        texts[:, start + dashes : end + dashes] = digits[:, start:end]
    return texts
