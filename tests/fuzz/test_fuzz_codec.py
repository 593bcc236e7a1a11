"""Mutated payloads: both decoders and the strict one must agree on every one of them."""

from __future__ import annotations

import math
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psutil
import pytest

from k2beam.codec.avro_schema import AvroType, Primitive, without_null
from k2beam.codec.columnar.decoder import ColumnarDecoder
from k2beam.codec.reference import ReferenceDecoder
from k2beam.codec.strict import decode_exact, decode_many
from k2beam.codec.writer_schema import Decoded, Decoder, WriterSchema
from k2beam.errors import StrictError
from k2beam.model import MAX_TIMESTAMP, MIN_TIMESTAMP
from tests.codec_samples import EVENT_SCHEMAS, MAKERS, encode_as, framed, mutated, writer

REFERENCE = ReferenceDecoder()
DECODERS = [pytest.param(REFERENCE, id="reference"), pytest.param(ColumnarDecoder(min_rows=0), id="columnar")]
BATCH = 500
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RSS_LIMIT = 300 << 20

SIZES = [pytest.param(3_000, id="short"), pytest.param(100_000, id="long", marks=pytest.mark.full)]


def value_of(value: Any, avro_type: AvroType) -> tuple[Any, str]:
    """What a column should hold for a physical value, or the class of its error."""
    inner, _ = without_null(avro_type)
    if value is None or not isinstance(inner, Primitive) or not inner.logical:
        return value, ""
    if inner.name == "bytes":
        if not value:
            return None, "bad_decimal"
        unscaled = int.from_bytes(value, "big", signed=True)
        if abs(unscaled) >= 10**18:
            return None, "decimal_overflow"
        return Decimal(unscaled).scaleb(-int(inner.logical[:-1].split(",")[1])), ""
    micros = value * (1000 if inner.logical == "timestamp-millis" else 1)
    if not MIN_TIMESTAMP <= micros <= MAX_TIMESTAMP:
        return None, "timestamp_overflow"
    return EPOCH + timedelta(microseconds=micros), ""


def expected_of(record: dict[str, Any], schema: WriterSchema) -> tuple[dict[str, Any], set[str]]:
    values = {field.name: value_of(record[field.name], field.type) for field in schema.tree.fields}
    return {name: value for name, (value, _) in values.items()}, {error for _, error in values.values() if error}


def compare(decoded: Decoded, expected: dict[int, tuple[dict[str, Any], set[str]]], row_count: int) -> None:
    """``expected``: record and error classes of each row that the strict decoder reads or refuses."""
    decoded.columns.validate(full=True)
    rows = dict(zip(decoded.rows.tolist(), decoded.columns.to_pylist(maps_as_pydicts="strict"), strict=True))
    errors = {error.row: error for error in decoded.errors}
    assert len(errors) == len(decoded.errors)
    assert not rows.keys() & errors.keys()
    assert rows.keys() | errors.keys() == set(range(row_count))
    for row, (record, classes) in expected.items():
        if classes:
            assert errors[row].error_class in classes, row
        else:
            assert rows[row] == record, row


def assert_equal(decoded: Decoded, reference: Decoded) -> None:
    """Row for row, and error for error with its message."""
    assert decoded.rows.tolist() == reference.rows.tolist()
    assert decoded.columns.equals(reference.columns)
    assert decoded.errors == reference.errors


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("name", EVENT_SCHEMAS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_mutated_payloads(decoder: Decoder, name: str, count: int) -> None:
    schema, make = writer(name), MAKERS[name]
    rng = random.Random(f"payloads of {name}")
    seeds = [encode_as(name, make(i)) for i in range(12)]
    process = psutil.Process()
    decoder.decode([framed(seed) for seed in seeds], 5, schema)
    before = process.memory_info().rss
    outcomes: Counter[str] = Counter()
    for _ in range(math.ceil(count / len(EVENT_SCHEMAS) / BATCH)):
        bodies = [rng.choice(seeds) if rng.random() < 0.2 else mutated(rng.choice(seeds), rng) for _ in range(BATCH)]
        decoded = decoder.decode([framed(body) for body in bodies], 5, schema)
        expected = {}
        for row, body in enumerate(bodies):
            try:
                expected[row] = expected_of(decode_exact(body, 0, len(body), schema.tree), schema)
            except StrictError as error:
                expected[row] = {}, {error.error_class}
            outcomes.update(expected[row][1] or {"good"})
        compare(decoded, expected, BATCH)
        assert_equal(decoded, REFERENCE.decode([framed(body) for body in bodies], 5, schema))
        assert all(error.payload == framed(bodies[error.row]) for error in decoded.errors)
    assert process.memory_info().rss - before < RSS_LIMIT
    assert outcomes["good"]
    assert {"truncated", "overlong_varint", "varint_overflow"} <= outcomes.keys()


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("name", ["trade_v2", "reference_data"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_mutated_blocks(decoder: Decoder, name: str, count: int) -> None:
    schema, make = writer(name), MAKERS[name]
    rng = random.Random(f"blocks of {name}")
    seeds = [encode_as(name, make(i)) for i in range(12)]
    for _ in range(count // 20 // BATCH or 1):
        blocks = [_block(seeds, rng) for _ in range(BATCH // 5)]
        decoded = decoder.decode_blocks(blocks, schema)
        assert_equal(decoded, REFERENCE.decode_blocks(blocks, schema))
        expected: dict[int, tuple[dict[str, Any], set[str]]] = {}
        first, whole = 0, 0
        for block, size in blocks:
            try:
                records, ends = decode_many(block, size, schema.tree)
                for i, record in enumerate(records):
                    start, end = (0, *ends)[i : i + 2]
                    read = (
                        ({}, {error_class(block, start, end, schema)})
                        if record is None
                        else expected_of(record, schema)
                    )
                    expected[first + i] = read
                whole += 1
            except StrictError:
                expected[first] = {}, {"broken_block"}
            first += size
        errors = {error.row for error in decoded.errors}
        rows = dict(zip(decoded.rows.tolist(), decoded.columns.to_pylist(maps_as_pydicts="strict"), strict=True))
        assert rows.keys() | errors == expected.keys()
        for row, (record, classes) in expected.items():
            assert (row in errors) == bool(classes), row
            if not classes:
                assert rows[row] == record, row
        for error in decoded.errors:
            if error.row in expected:
                assert error.error_class in expected[error.row][1]
        assert 0 < whole < len(blocks)


def error_class(data: bytes, start: int, end: int, schema: WriterSchema) -> str:
    with pytest.raises(StrictError) as caught:
        decode_exact(data, start, end, schema.tree)
    return caught.value.error_class


def _block(seeds: list[bytes], rng: random.Random) -> tuple[bytes, int]:
    size = rng.randint(1, 6)
    block = b"".join(rng.choice(seeds) for _ in range(size))
    return (block if rng.random() < 0.3 else mutated(block, rng)), size
