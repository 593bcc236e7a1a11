"""The raw_record envelope; fastavro is the referee for what is valid."""

from __future__ import annotations

import io
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.archive.envelope import decode_envelopes
from k2beam.archive.varint import read_long, write_long
from k2beam.errors import BrokenBlock
from k2beam.model import MAX_TIMESTAMP, MIN_TIMESTAMP, RAW_BATCH_SCHEMA
from tests.archive_files import ENVELOPE, encode, envelope, long

INT64 = st.integers(-(2**63), 2**63 - 1)
optional_bytes = st.none() | st.binary(max_size=200)
records = st.fixed_dictionaries(
    {
        "source": st.text(max_size=80),
        "partition": st.integers(0, 2**31 - 1),
        "offset": st.integers(0, 2**63 - 1),
        "timestamp": st.none() | INT64,
        "key": optional_bytes,
        "value": optional_bytes,
        "headers": st.lists(st.fixed_dictionaries({"key": st.text(max_size=9), "value": optional_bytes}), max_size=3),
    }
)


def plain(batch: Any) -> list[dict[str, Any]]:
    index = batch.schema.get_field_index("timestamp")
    return batch.set_column(index, "timestamp", batch.column(index).cast("int64")).to_pylist()


def tabled(record: dict[str, Any]) -> dict[str, Any]:
    """The record as tables can hold it: a time outside the years 1 to 9999 is none."""
    timestamp = record["timestamp"]
    told = timestamp is not None and MIN_TIMESTAMP <= timestamp <= MAX_TIMESTAMP
    return {**record, "timestamp": timestamp if told else None}


@pytest.mark.parametrize("far", [MIN_TIMESTAMP - 1, MAX_TIMESTAMP + 1, 2**63 - 1, -(2**63)])
def test_a_time_that_no_calendar_has_is_none_and_the_message_is_kept(far: int) -> None:
    times = [far, MIN_TIMESTAMP, MAX_TIMESTAMP, None, -1, 0]
    data = b"".join(encode(ENVELOPE, envelope(i, timestamp=time)) for i, time in enumerate(times))
    batch = decode_envelopes(data, len(times)).to_arrow()
    assert [row["timestamp"] for row in plain(batch)] == [None, *times[1:]]
    assert batch.column("timestamp").to_pylist()[1:3] == [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ]
    assert batch.column("offset").to_pylist() == list(range(len(times)))


@given(st.lists(records, max_size=5))
@settings(max_examples=150, deadline=None)
def test_decodes_what_fastavro_wrote(given_records: list[dict[str, Any]]) -> None:
    data = b"".join(encode(ENVELOPE, record) for record in given_records)
    batch = decode_envelopes(data, len(given_records)).to_arrow()
    assert batch.schema == RAW_BATCH_SCHEMA
    batch.validate(full=True)
    assert plain(batch) == [tabled(record) for record in given_records]


@given(st.lists(records, min_size=1, max_size=3), st.floats(0, 0.999), st.integers(1, 255), st.booleans())
@settings(max_examples=200, deadline=None)
def test_damage_is_broken_or_what_fastavro_reads(
    given_records: list[dict[str, Any]], place: float, bits: int, delete: bool
) -> None:
    data = bytearray(b"".join(encode(ENVELOPE, record) for record in given_records))
    at = int(place * len(data))
    if delete:
        del data[at]
    else:
        data[at] ^= bits
    try:
        batch = decode_envelopes(bytes(data), len(given_records)).to_arrow()
    except BrokenBlock:
        return
    batch.validate(full=True)
    stream = io.BytesIO(bytes(data))
    schema = fastavro.parse_schema(
        {**ENVELOPE, "fields": [{**field, "type": _physical(field["type"])} for field in ENVELOPE["fields"]]}
    )
    assert plain(batch) == [tabled(fastavro.schemaless_reader(stream, schema)) for _ in given_records]


def _physical(kind: Any) -> Any:
    return ["null", "long"] if isinstance(kind, list) and isinstance(kind[1], dict) else kind


@given(INT64)
@settings(max_examples=200, deadline=None)
def test_numbers(value: int) -> None:
    stored = write_long(value)
    assert stored == long(value)
    assert read_long(b"x" + stored + b"x", 1) == (value, 1 + len(stored))
    with pytest.raises(IndexError):
        read_long(stored[:-1], 0)


@pytest.mark.parametrize("stored", [b"\x80" * 10 + b"\x00", b"\xff" * 9 + b"\x02", b"\xff" * 1000])
def test_numbers_of_more_than_64_bits(stored: bytes) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        read_long(stored, 0)


@given(st.lists(records, max_size=6), st.integers(0, 6), st.integers(0, 6))
@settings(max_examples=50, deadline=None)
def test_slices_and_joins(given_records: list[dict[str, Any]], start: int, stop: int) -> None:
    columns = decode_envelopes(b"".join(encode(ENVELOPE, record) for record in given_records), len(given_records))
    given_records = [tabled(record) for record in given_records]
    assert plain(columns.slice(start, stop).to_arrow()) == given_records[start:stop]
    joined = columns.slice(start, stop)
    joined.extend(columns)
    assert plain(joined.to_arrow()) == given_records[start:stop] + given_records


def test_hostile_headers_stay_small() -> None:
    count = 200_000
    data = bytes(6) + long(count) + bytes(2 * count) + long(0)
    tracemalloc.start()
    try:
        decode_envelopes(data, 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * len(data)


def test_headers_in_several_blocks() -> None:
    whole = encode(ENVELOPE, envelope(5, headers=[{"key": "a", "value": b"1"}, {"key": "b", "value": None}]))
    first, second = b"\x02a\x02\x02" + b"1", b"\x02b\x00"
    tail = long(2) + first + second + long(0)
    assert whole.endswith(tail)
    split = whole.removesuffix(tail) + long(-1) + long(len(first)) + first + long(1) + second + long(0)
    assert plain(decode_envelopes(split, 1).to_arrow()) == plain(decode_envelopes(whole, 1).to_arrow())


GOOD = encode(ENVELOPE, envelope(5))


@pytest.mark.parametrize(
    ("data", "count", "message"),
    [
        (GOOD + b"x", 1, "1 bytes follow"),
        (GOOD, 2, "record 1 of 2 .* reaches past its end"),
        (GOOD[:-1], 1, "reaches past its end"),
        (long(-4) + GOOD[1:], 1, "negative length"),
        (long(1 << 50) + GOOD, 1, "reaches past its end"),
        (GOOD.replace(b"\x02\x02k", b"\x02\x01k"), 1, "negative length"),
        (GOOD.replace(b"\x02\x02k", b"\x02\x7ek"), 1, "reaches past its end"),
        (GOOD.replace(b"\x02\x02k", b"\x02\x81\x00k"), 1, "negative length"),
        (GOOD.replace(b"\x02\x02k", b"\x02\xfe\x7fk"), 1, "reaches past its end"),
        (b"\x80" * 11 + GOOD, 1, "64 bits"),
        (encode(ENVELOPE, envelope(5, timestamp=None)).replace(b"\x00\x02\x02k", b"\x03\x02\x02k"), 1, "union index"),
        (encode(ENVELOPE, envelope(5, partition=-1)), 1, "partition -1"),
        (encode(ENVELOPE, envelope(-5)), 1, "offset -5"),
        (b"\x02\xff" + GOOD[17:], 1, "damaged"),
        (GOOD[:-1] + long(1 << 62), 1, "reaches past its end"),
    ],
)
def test_hostile_envelopes(data: bytes, count: int, message: str) -> None:
    with pytest.raises(BrokenBlock, match=message):
        decode_envelopes(data, count)
