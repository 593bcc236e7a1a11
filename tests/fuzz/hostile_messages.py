"""Messages with values at every edge: legal and illegal records, frames, keys, headers, places and times."""

from __future__ import annotations

import io
import random
from typing import Any

import fastavro

from k2beam.model import MAX_TIMESTAMP, MIN_TIMESTAMP, RawRecord
from k2beam.schemas import avro_schema
from tests.codec_samples import EVENT_SCHEMAS, framed, mutated, varint

NOW = 1_700_000_000_000_000
IDS = dict(enumerate(EVENT_SCHEMAS, start=1)) | {2**31: "trade_v2", 2**32 - 1: "trade"}
"""Writer schemas by id."""

INT64_EDGES = (0, 1, -1, 63, 64, 2**31 - 1, 2**31, 2**62, 2**63 - 1, 2**63 - 2, -(2**62), -(2**63), 10**18, 10**10)
INT32_EDGES = (0, 1, -1, 2**31 - 1, -(2**31))
TIMES = (NOW, NOW + 1, 0, 1, -1, MIN_TIMESTAMP, MAX_TIMESTAMP, MIN_TIMESTAMP - 1, MAX_TIMESTAMP + 1, *INT64_EDGES)
TEXTS = (
    *("", " ", "a", "BHP", "BHP", "ASX", "\x00", "\n", "..", "/", "../../etc/x", "a|b", "a%7Cb|", "%", "%FF", "+", "="),
    *("\u202e.", "'; DROP TABLE trades; --", '"\\', "NaN", "null", "\ufeff", "\ufffd", "\ud7ff", "\U0010ffff", "é"),
    *("\ud7ff" * 20, "\U0010ffff" * 20, "x" * 15 + "\ud7ff" + "y", "株" * 30, "e" * 201, "e" * 5000, "\x00" * 70),
)
DATES = ("", "07/31/2014", "7/1/1900", "01/01/0001", "12/31/9999", "01/01/10000", "02/29/2023", "x", "\x00")
SOURCES = ("kafka:c/t/u", "kafka:c/t/v", "", "a\n\0b'; DROP", "\u202e.../..//", "\ud7ff" * 20)


def text(rng: random.Random) -> str:
    """A plain text, an odd one, a random one; now and then a very long one."""
    if rng.random() < 0.6:
        return rng.choice(("ASX", "BHP", "X"))
    if rng.random() < 0.8:
        return rng.choice(TEXTS)
    if rng.random() < 0.005:
        return rng.choice("a\x00株") * (1 << 20)
    return "".join(map(chr, (rng.randrange(0xD800) for _ in range(rng.randint(1, 40)))))


def decimal(rng: random.Random) -> bytes:
    if rng.random() < 0.9:
        return rng.randrange(1 << 40).to_bytes(6, "big")
    size = rng.choice([0, 1, 2, 6, 8, 9, 16, 17, 40, 1025, 3000])
    if rng.random() < 0.2:
        limit = 10**18
        return rng.choice([limit - 1, limit, 1 - limit, -limit, 2**63 - 1, -(2**63)]).to_bytes(9, "big", signed=True)
    return bytes([rng.choice([0, 0xFF, 0x7F, 0x80])] * size) if rng.random() < 0.2 else rng.randbytes(size)


def value(kind: Any, name: str, rng: random.Random) -> Any:
    """A physical value of an Avro type, for fastavro."""
    if isinstance(kind, list):
        return None if rng.random() < 0.3 else value(kind[1], name, rng)
    if isinstance(kind, dict):
        return _complex(kind, name, rng)
    if kind == "string":
        dates = DATES if rng.random() < 0.2 else DATES[:3]
        return rng.choice(dates) if name.endswith("_date") else text(rng)
    if kind == "boolean":
        return rng.random() < 0.5
    edges = INT32_EDGES if kind == "int" else INT64_EDGES
    return rng.randrange(50) if rng.random() < 0.8 else rng.choice(edges)


def _complex(kind: dict[str, Any], name: str, rng: random.Random) -> Any:
    match kind["type"]:
        case "enum":
            return rng.choice(kind["symbols"])
        case "array":
            return [value(kind["items"], name, rng) for _ in range(rng.choice([0, 1, 2, 40]))]
        case "map":
            return {text(rng): value(kind["values"], name, rng) for _ in range(rng.choice([0, 1, 2, 40]))}
        case "long":
            unit = 1000 if kind["logicalType"] == "timestamp-millis" else 1
            return (NOW if rng.random() < 0.93 else rng.choice(TIMES)) // unit
    return decimal(rng)


def body(name: str, rng: random.Random) -> bytes:
    """A record of schema ``name``, its bytes broken now and then."""
    schema = avro_schema(name)
    record = {field["name"]: value(field["type"], field["name"], rng) for field in schema["fields"]}
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), record)
    return stream.getvalue() if rng.random() < 0.9 else mutated(stream.getvalue(), rng)


def payload(rng: random.Random) -> bytes | None:
    """A framed record, or something like it."""
    number = rng.choice(list(IDS))
    whole = framed(body(IDS[number], rng), number)
    match rng.randrange(40):
        case 0:
            return None
        case 1:
            return whole[: rng.randrange(6)]
        case 2:
            return whole[:1] + rng.choice([0, 99, 2**31 - 1, 2**31 + 1, 2**32 - 2]).to_bytes(4, "big") + whole[5:]
        case 3:
            return mutated(whole, rng)
    return whole


def message(source: str, partition: int, offset: int, rng: random.Random) -> RawRecord:
    """A message with a payload of any kind, and whatever a log lets pass beside it."""
    return RawRecord(
        source=source,
        partition=partition,
        offset=offset,
        timestamp=rng.choice([None, NOW, *TIMES]),
        key=rng.choice([None, b"", b"\x00", b"\xff" * 20, text(rng).encode()]),
        value=payload(rng),
        headers=tuple((text(rng), rng.choice([None, b"", b"\xff\x00"])) for _ in range(rng.choice([0, 0, 1, 3]))),
    )


def messages(count: int, rng: random.Random) -> list[RawRecord]:
    """``count`` messages of odd sources, at small, large and greatest offsets, some twice."""
    firsts = (0, 2**40, 2**63 - 1 - count)
    places = [(rng.choice(SOURCES), rng.choice([0, 1, 2**31 - 1]), rng.choice(firsts)) for _ in range(3)]
    found = [
        message(source, partition, first + number, rng)
        for number in range(count)
        for source, partition, first in [rng.choice(places)]
    ]
    return found + found[:2]


def plain_container(rng: random.Random, count: int) -> tuple[bytes, int]:
    """A plain container of at least ``count`` records in small blocks, of which some are broken; and its records."""
    name = rng.choice(EVENT_SCHEMAS)
    empty = io.BytesIO()
    sync = rng.randbytes(16)
    fastavro.writer(empty, fastavro.parse_schema(avro_schema(name)), [], codec="null", sync_marker=sync)
    data, written = empty.getvalue(), 0
    while written < count:
        records = [body(name, rng) for _ in range(rng.choice([1, 5, 20]))]
        block = b"".join(records)
        data += varint(len(records)) + varint(len(block)) + block + sync
        written += len(records)
    return data, written
