"""Events, their encodings and hand-made bytes for the tests of the codec."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import fastavro

from k2beam.codec.writer_schema import Decoded, WriterSchema
from k2beam.model import Kind
from k2beam.schemas import avro_schema, v2_name

START = datetime(2024, 3, 5, 10, 0, tzinfo=UTC)
V1 = {"trades": "trade", "quotes": "quote", "reference_data": "reference_data"}
EVENT_SCHEMAS = ("trade", "quote", "reference_data", "trade_v2", "quote_v2", "reference_data_v2")


def writer(name: str) -> WriterSchema:
    return WriterSchema.parse(json.dumps(avro_schema(name)))


def rows_of(decoded: Decoded) -> list[dict[str, Any]]:
    decoded.columns.validate(full=True)
    rows: list[dict[str, Any]] = decoded.columns.to_pylist(maps_as_pydicts="strict")
    return rows


def classes(decoded: Decoded) -> dict[int, str]:
    return {error.row: error.error_class for error in decoded.errors}


def evolved(name: str, **changes: Any) -> dict[str, Any]:
    """The schema with fields changed (a type), left out (None) or added (a whole field)."""
    schema = avro_schema(name)
    fields = {field["name"]: field for field in schema["fields"]}
    for field, change in changes.items():
        if change is None:
            del fields[field]
        elif isinstance(change, dict) and "name" in change and change.get("name") == field:
            fields[field] = change
        else:
            fields[field] = {"name": field, "type": change}
    schema["fields"] = list(fields.values())
    return schema


def encode(schema: Any, record: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), record)
    return stream.getvalue()


def encode_event(kind: Kind, record: Mapping[str, Any]) -> bytes:
    """A record of Python values as v2 Avro, without framing. Raises ValueError where it does not fit."""
    return encode_as(v2_name(kind), dict(record))


def encode_as(name: str, record: dict[str, Any]) -> bytes:
    return encode(avro_schema(name), record)


def trade(i: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "message_id": f"m-{i}",
        "trade_id": f"t-{i}",
        "symbol": "BHP",
        "exchange": "ASX",
        "asset_class": "equities",
        "timestamp": START + timedelta(microseconds=i),
        "price": Decimal("45.12345678"),
        "quantity": Decimal("100.00000000"),
        "currency": "AUD",
        "side": "SELL_SHORT",
        "trade_conditions": ["XT", "OPEN"][: i % 3],
        "source_sequence": None if i % 4 == 3 else 1000 + i,
        "ingestion_timestamp": START + timedelta(seconds=1),
        "platform_sequence": None,
        "vendor_data": {"venue": "X", "ü": "ñ"} if i % 2 else None,
        **changes,
    }


def quote(i: int = 0, **changes: Any) -> dict[str, Any]:
    record = trade(i)
    for name in ("trade_id", "price", "quantity", "side", "trade_conditions"):
        del record[name]
    return {
        **record,
        "quote_id": f"q-{i}",
        "bid_price": Decimal("45.10000000"),
        "bid_quantity": Decimal("5.00000000"),
        "ask_price": Decimal("45.20000000"),
        "ask_quantity": Decimal("7.50000000"),
        **changes,
    }


def reference(i: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "message_id": f"r-{i}",
        "company_id": str(i),
        "symbol": "BHP",
        "exchange": "ASX",
        "company_name": "BHP Group",
        "isin": None if i % 2 else "AU000000BHP4",
        "currency": "AUD",
        "listing_date": datetime(1885, 8, 13, tzinfo=UTC),
        "delisting_date": None,
        "is_active": bool(i % 2),
        "asset_class": "equities",
        "ingestion_timestamp": START,
        "vendor_data": None,
        **changes,
    }


def trade_v1(i: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "symbol": "BHP",
        "company_id": 7078,
        "exchange": "ASX",
        "exchange_timestamp": START + timedelta(milliseconds=i),
        "price": Decimal("36.510001"),
        "volume": 1000 + i,
        "qualifiers": i % 3,
        "venue": "X",
        "buyer_id": "b" if i % 2 else None,
        "ingestion_timestamp": START,
        "sequence_number": None if i % 4 == 3 else i,
        **changes,
    }


def quote_v1(i: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "symbol": "BHP",
        "company_id": 7078,
        "exchange": "NYSE",
        "exchange_timestamp": START,
        "bid_price": Decimal("36.510000"),
        "bid_volume": 10,
        "ask_price": Decimal("36.520000"),
        "ask_volume": 20,
        "ingestion_timestamp": START,
        "sequence_number": i,
        **changes,
    }


def reference_v1(i: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "company_id": i,
        "symbol": "BHP",
        "company_name": "BHP Group",
        "isin": "AU000000BHP4",
        "start_date": "07/31/2014",
        "end_date": None,
        **changes,
    }


MAKERS = {
    "trade": trade_v1,
    "quote": quote_v1,
    "reference_data": reference_v1,
    "trade_v2": trade,
    "quote_v2": quote,
    "reference_data_v2": reference,
}


def varint(value: int, *, overlong: int = 0) -> bytes:
    """The zigzag varint of ``value``, with ``overlong`` bytes more than it needs."""
    zigzag = (value << 1) if value >= 0 else ((-value << 1) - 1)
    groups = [zigzag & 0x7F]
    while zigzag := zigzag >> 7:
        groups.append(zigzag & 0x7F)
    groups += [0] * overlong
    return bytes([group | 0x80 for group in groups[:-1]] + [groups[-1]])


def text(value: str) -> bytes:
    return varint(len(value.encode())) + value.encode()


def trade_bytes(**parts: bytes) -> bytes:
    """A TradeV2 made by hand, field by field, so that any part can be made wrong."""
    fields = {
        "message_id": text("m"),
        "trade_id": text("t"),
        "symbol": text("BHP"),
        "exchange": text("ASX"),
        "asset_class": varint(0),
        "timestamp": varint(1_700_000_000_000_000),
        "price": b"\x02\x05",
        "quantity": b"\x02\x07",
        "currency": text("AUD"),
        "side": varint(0),
        "trade_conditions": varint(2) + text("a") + text("b") + varint(0),
        "source_sequence": varint(1) + varint(9),
        "ingestion_timestamp": varint(1_700_000_000_000_000),
        "platform_sequence": varint(0),
        "vendor_data": varint(1) + varint(1) + text("k") + text("v") + varint(0),
    }
    assert not parts.keys() - fields.keys()
    return b"".join({**fields, **parts}.values())


def framed(body: bytes, schema_id: int = 1) -> bytes:
    return b"\x00" + schema_id.to_bytes(4, "big") + body


def mutated(payload: bytes, rng: random.Random) -> bytes:
    """``payload`` with one to three changes of the kind that break decoders."""
    data = bytearray(payload)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(8):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:]
            case 2:
                data[at:at] = rng.randbytes(rng.randint(1, 4))
            case 3:
                del data[at : at + rng.randint(1, 4)]
            case 4:
                data[at : at + 1] = varint(rng.choice([-1, -2, -64, -65, 2**62, -(2**63), 2**63 - 1, 2**31]))
            case 5:
                data[at : at + 1] = varint(rng.randrange(64), overlong=rng.randint(1, 9))
            case 6:
                data[at : at + 1] = bytes([0x80 | rng.randrange(128)]) * rng.choice([1, 9, 12, 200])
            case _:
                start = rng.randrange(len(data) + 1)
                data[at:at] = data[start : start + rng.randint(1, 40)]
    return bytes(data)
