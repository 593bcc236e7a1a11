"""Confluent framing."""

from __future__ import annotations

import uuid

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.codec.frame import SCHEMA_HEADER, frame, frame_error, header_schemas, split_frames, unframe
from k2beam.errors import (
    BadMagicError,
    BadSchemaHeaderError,
    EmptyPayloadError,
    FrameError,
    ShortFrameError,
    TombstoneError,
)


@pytest.mark.parametrize(
    ("value", "error", "error_class"),
    [
        (None, TombstoneError, "tombstone"),
        (b"", EmptyPayloadError, "empty_payload"),
        (b"\x01\x00\x00\x00\x01x", BadMagicError, "bad_magic"),
        (b"{}", BadMagicError, "bad_magic"),
        (b"\x00\x00\x00\x00", ShortFrameError, "short_frame"),
    ],
)
def test_each_broken_frame_has_its_class(value: bytes | None, error: type[FrameError], error_class: str) -> None:
    with pytest.raises(error):
        unframe(value)
    found = frame_error(value)
    assert found is not None
    assert found.error_class == error_class


def test_the_id_is_big_endian_and_unsigned() -> None:
    assert unframe(b"\x00\xff\x00\x00\x01body") == (0xFF000001, b"body")
    assert frame(0xFF000001, b"body") == b"\x00\xff\x00\x00\x01body"


def test_an_id_of_more_than_32_bits_is_refused() -> None:
    with pytest.raises(FrameError, match="32 bits"):
        frame(1 << 32, b"")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.none() | st.binary(max_size=8) | st.builds(frame, st.integers(0, (1 << 32) - 1), st.binary(max_size=4)),
        max_size=20,
    ),
    st.integers(0, 5),
)
def test_a_column_splits_as_its_values_do(values: list[bytes | None], skipped: int) -> None:
    # A slice: the offsets of a batch need not start at 0.
    frames = split_frames(pa.array(values, type=pa.binary())[skipped:])
    errors = dict(frames.errors)
    for row, value in enumerate(values[skipped:]):
        expected = frame_error(value)
        if expected is None:
            assert frames.schema_ids[row] == unframe(value)[0]
            assert row not in errors
        else:
            assert frames.schema_ids[row] == -1
            assert errors[row].error_class == expected.error_class


GUID = uuid.UUID("12345678-1234-5678-1234-567812345678")


def test_a_header_names_the_schema_by_id_or_guid() -> None:
    headers = [
        [],
        None,
        [("other", b"x"), (SCHEMA_HEADER, b"\x00\x00\x00\x01\x00")],
        [(SCHEMA_HEADER, b"\x00\x00\x00\x00\x05"), (SCHEMA_HEADER, b"\x01" + GUID.bytes)],
        [(SCHEMA_HEADER, b"\x01short")],
        [(SCHEMA_HEADER, None)],
    ]
    kind = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
    column = pa.array(
        [None if one is None else [{"key": key, "value": value} for key, value in one] for one in headers], kind
    )
    found = header_schemas(column[1:])
    assert {row: ref for row, ref in found.items() if isinstance(ref, int | str)} == {1: 256, 2: str(GUID)}
    assert sorted(row for row, ref in found.items() if isinstance(ref, BadSchemaHeaderError)) == [3, 4]
    assert header_schemas(column[:1]) == {}
