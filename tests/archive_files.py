"""Containers for the tests, written byte by byte, so that each byte can be damaged on purpose."""

from __future__ import annotations

import io
import json
import zlib
from typing import Any

import cramjam
import fastavro
import zstandard

from k2beam import schemas

SYNC = bytes(range(200, 216))
TRADE = schemas.avro_schema("trade_v2")
ENVELOPE = schemas.avro_schema("raw_record")


def long(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def sized(data: bytes) -> bytes:
    return long(len(data)) + data


def header(schema: Any = TRADE, codec: str | None = "null", **metadata: bytes) -> bytes:
    entries = {"avro.schema": json.dumps(schema).encode(), **{key.replace("__", "."): v for key, v in metadata.items()}}
    if codec is not None:
        entries["avro.codec"] = codec.encode()
    body = b"".join(sized(key.encode()) + sized(value) for key, value in entries.items())
    return b"Obj\x01" + long(len(entries)) + body + long(0) + SYNC


def compress(codec: str, data: bytes) -> bytes:
    if codec == "deflate":
        stream = zlib.compressobj(6, zlib.DEFLATED, -15)
        return stream.compress(data) + stream.flush()
    if codec == "snappy":
        return bytes(cramjam.snappy.compress_raw(data)) + zlib.crc32(data).to_bytes(4, "big")
    if codec == "zstandard":
        return zstandard.ZstdCompressor().compress(data)
    return data


def block(count: int, content: bytes, codec: str = "null") -> bytes:
    return long(count) + sized(compress(codec, content)) + SYNC


def contents_of(sizes: list[int]) -> list[bytes]:
    """Blocks of the given numbers of records; each record is 8 bytes that tell block and place."""
    return [b"".join(f"b{n:03}r{row:03}".encode() for row in range(size)) for n, size in enumerate(sizes)]


def blocks_of(sizes: list[int], codec: str = "null") -> list[bytes]:
    """The same as they are stored."""
    return [block(size, content, codec) for size, content in zip(sizes, contents_of(sizes), strict=True)]


def trade(number: int) -> dict[str, Any]:
    return {
        "message_id": f"m{number}",
        "trade_id": f"t{number}",
        "symbol": "BTCUSDT",
        "exchange": "BINANCE",
        "asset_class": "crypto",
        "timestamp": 1_700_000_000_000_000 + number,
        "price": b"\x01\x00",
        "quantity": b"\x02",
        "currency": "USDT",
        "side": "BUY",
        "trade_conditions": [],
        "source_sequence": number,
        "ingestion_timestamp": 1_700_000_000_000_500 + number,
        "platform_sequence": None,
        "vendor_data": {"venue": "x"},
    }


def physical(schema: Any) -> Any:
    """The schema without decimals, so that bytes are written as they are."""
    return json.loads(json.dumps(schema).replace('"logicalType": "decimal"', '"x": "decimal"'))


def encode(schema: Any, record: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(physical(schema)), record)
    return out.getvalue()


def trades(first: int, count: int) -> list[bytes]:
    return [encode(TRADE, trade(number)) for number in range(first, first + count)]


def envelope(offset: int, **fields: Any) -> dict[str, Any]:
    base = {"source": "kafka:c/trades/t", "partition": 1, "offset": offset, "timestamp": 1_700_000_000_000_000 + offset}
    return {**base, "key": b"k", "value": b"\x00\x00\x00\x00\x01v", "headers": [], **fields}
