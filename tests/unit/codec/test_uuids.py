"""Bytes to UUIDs, against Python's own."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

from k2beam.codec.uuids import uuid_texts


@pytest.mark.parametrize("version", [5, 8])
def test_texts_are_those_of_python(version: int) -> None:
    rows = np.random.default_rng(version).integers(0, 256, (50, 16), dtype=np.uint8)
    before = rows.copy()
    texts = uuid_texts(rows, version=version).to_pylist()

    assert [uuid.UUID(text).version for text in texts] == [version] * 50
    kept = ~((0xF << 76) | (0x3 << 62))  # all but version and variant
    for text, row in zip(texts, rows, strict=True):
        assert text == str(uuid.UUID(text))
        assert uuid.UUID(text).int & kept == int.from_bytes(row.tobytes()) & kept
        assert uuid.UUID(text).variant == uuid.RFC_4122
    assert (rows == before).all()


def test_no_rows() -> None:
    assert uuid_texts(np.empty((0, 16), np.uint8), version=5).to_pylist() == []
