"""The Avro schemas as fastavro reads them, and what is derived from them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from pyiceberg.types import DecimalType, ListType, MapType, TimestamptzType

from k2beam.errors import SchemaError
from k2beam.model import DECIMAL, KINDS, PROVENANCE_FIELDS, TIMESTAMP, Kind
from k2beam.schemas import (
    EVENT_TIME_COLUMN,
    SCHEMA_NAMES,
    arrow_type,
    avro_schema,
    event_arrow_schema,
    iceberg_schema,
    identify,
    latest_name,
    payload_arrow_schema,
    v2_name,
)

INSTANT = datetime(2026, 1, 5, 12, 30, 15, 123000, tzinfo=UTC)
"""Whole milliseconds: version 1 has no finer times."""

LOGICAL: dict[str, dict[str, Any]] = {
    "trade": {"exchange_timestamp": INSTANT, "price": Decimal("12.345678"), "ingestion_timestamp": INSTANT},
    "quote": {
        "exchange_timestamp": INSTANT,
        "bid_price": Decimal("-1.000001"),
        "ask_price": Decimal("0.5"),
        "ingestion_timestamp": INSTANT,
    },
    "reference_data": {},
    "trade_v2": {
        "timestamp": INSTANT,
        "price": Decimal("9999999999.99999999"),
        "quantity": Decimal("0.00000001"),
        "ingestion_timestamp": INSTANT,
    },
    "quote_v2": {
        "timestamp": INSTANT,
        "bid_price": Decimal("1.00000001"),
        "bid_quantity": Decimal("2"),
        "ask_price": Decimal("1.00000002"),
        "ask_quantity": Decimal("3"),
        "ingestion_timestamp": INSTANT,
    },
    "trade_v3": {
        "timestamp": INSTANT,
        "price": Decimal("0.000000000000000001"),
        "quantity": Decimal("18500000000"),
        "ingestion_timestamp": INSTANT,
    },
    "quote_v3": {
        "timestamp": INSTANT,
        "bid_price": Decimal("1.000012345"),
        "bid_quantity": Decimal("12345678901234567890"),
        "ask_price": Decimal("1.00000002"),
        "ask_quantity": Decimal("3"),
        "ingestion_timestamp": INSTANT,
    },
    "reference_data_v2": {"listing_date": INSTANT, "delisting_date": INSTANT, "ingestion_timestamp": INSTANT},
    "raw_record": {"timestamp": INSTANT},
}
"""Every field with a logical type, with a value that only it can carry."""

PLAIN: dict[str, Any] = {"string": "x", "int": 7, "long": 8, "boolean": True, "bytes": b"b"}


def value_of(field: dict[str, Any]) -> Any:
    kind = field["type"]
    if isinstance(kind, list):
        kind = kind[1]
    if isinstance(kind, dict):
        if kind["type"] == "enum":
            return kind["symbols"][0]
        return {"array": [], "map": {"k": "v"}}[kind["type"]]
    return PLAIN[kind]


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_fastavro_sees_datetimes_and_decimals(name: str) -> None:
    schema = avro_schema(name)
    logical = LOGICAL[name]
    with_logical_type = {field["name"] for field in schema["fields"] if "logicalType" in str(field["type"])}
    assert with_logical_type == set(logical)
    record = {field["name"]: logical.get(field["name"]) or value_of(field) for field in schema["fields"]}
    parsed = fastavro.parse_schema(schema)
    stream = BytesIO()
    fastavro.schemaless_writer(stream, parsed, record)
    stream.seek(0)
    found = fastavro.schemaless_reader(stream, parsed, None)
    assert isinstance(found, dict)
    for field, expected in logical.items():
        assert (field, type(found[field]), found[field]) == (field, type(expected), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_arrow_and_iceberg_follow_the_avro_schema(kind: Kind) -> None:
    fields = avro_schema(v2_name(kind))["fields"]
    arrow = event_arrow_schema(kind)
    assert arrow.names == [field["name"] for field in fields] + [field.name for field in PROVENANCE_FIELDS]
    iceberg = iceberg_schema(arrow)
    for field in fields:
        nullable = isinstance(field["type"], list)
        assert arrow.field(field["name"]).nullable is nullable
        assert iceberg.find_field(field["name"]).required is not nullable
    assert iceberg.find_type(EVENT_TIME_COLUMN[kind]) == TimestamptzType()


def test_types_are_real_ones() -> None:
    trade = event_arrow_schema("trades")
    assert (trade.field("price").type, trade.field("timestamp").type) == (DECIMAL, TIMESTAMP)
    assert trade.field("asset_class").type == pa.string()
    iceberg = iceberg_schema(trade)
    assert iceberg.find_type("quantity") == DecimalType(38, 18)
    assert isinstance(iceberg.find_type("trade_conditions"), ListType)
    assert isinstance(iceberg.find_type("vendor_data"), MapType)
    assert payload_arrow_schema("trade").field("price").type == DECIMAL


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_a_schema_is_known_by_its_full_name(name: str) -> None:
    known = identify(avro_schema(name))
    assert known.name == name
    base, _, version = name.partition("_v")
    assert known.version == (2 if name == "raw_record" else int(version or 1))
    assert known.kind == {"trade": "trades", "quote": "quotes", "reference_data": "reference_data"}.get(base)


@pytest.mark.parametrize("kind", ["trades", "quotes"])
def test_version_3_is_version_2_with_wider_decimals(kind: Kind) -> None:
    second, third = avro_schema(v2_name(kind)), avro_schema(latest_name(kind))
    assert third.pop("name") == second.pop("name").replace("2", "3")
    for field in second["fields"]:
        if "logicalType" in field["type"] and field["type"]["logicalType"] == "decimal":
            field["type"] |= {"precision": DECIMAL.precision, "scale": DECIMAL.scale}
    assert third == second


def test_each_call_gives_a_schema_of_its_own() -> None:
    avro_schema("trade")["fields"].clear()
    assert avro_schema("trade")["fields"]


def test_what_is_unknown_or_has_no_column_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"'candle'.*trade_v2"):
        avro_schema("candle")
    with pytest.raises(SchemaError, match=r"com\.other\.Trade.*com\.k2\.marketdata\.TradeV2"):
        identify({"type": "record", "name": "Trade", "namespace": "com.other", "fields": []})
    with pytest.raises(SchemaError, match="string"):
        identify("string")
    with pytest.raises(SchemaError, match="union"):
        arrow_type(["null", "string", "int"])
    with pytest.raises(SchemaError, match="'null'"):
        arrow_type("null")


FIELDS = {
    "trade": {
        "symbol": "string",
        "company_id": "int",
        "exchange": "string",
        "exchange_timestamp": "long timestamp-millis",
        "price": "bytes decimal(18,6)",
        "volume": "long",
        "qualifiers": "int",
        "venue": "string",
        "buyer_id": "null | string",
        "ingestion_timestamp": "long timestamp-millis",
        "sequence_number": "null | long",
    },
    "quote": {
        "symbol": "string",
        "company_id": "int",
        "exchange": "string",
        "exchange_timestamp": "long timestamp-millis",
        "bid_price": "bytes decimal(18,6)",
        "bid_volume": "long",
        "ask_price": "bytes decimal(18,6)",
        "ask_volume": "long",
        "ingestion_timestamp": "long timestamp-millis",
        "sequence_number": "null | long",
    },
    "reference_data": {
        "company_id": "int",
        "symbol": "string",
        "company_name": "string",
        "isin": "string",
        "start_date": "null | string",
        "end_date": "null | string",
    },
    "trade_v2": {
        "message_id": "string",
        "trade_id": "string",
        "symbol": "string",
        "exchange": "string",
        "asset_class": "enum equities crypto futures options fx bonds indices",
        "timestamp": "long timestamp-micros",
        "price": "bytes decimal(18,8)",
        "quantity": "bytes decimal(18,8)",
        "currency": "string",
        "side": "enum BUY SELL SELL_SHORT UNKNOWN",
        "trade_conditions": "array of string",
        "source_sequence": "null | long",
        "ingestion_timestamp": "long timestamp-micros",
        "platform_sequence": "null | long",
        "vendor_data": "null | map of string",
    },
    "quote_v2": {
        "message_id": "string",
        "quote_id": "string",
        "symbol": "string",
        "exchange": "string",
        "asset_class": "enum equities crypto futures options fx bonds indices",
        "timestamp": "long timestamp-micros",
        "bid_price": "bytes decimal(18,8)",
        "bid_quantity": "bytes decimal(18,8)",
        "ask_price": "bytes decimal(18,8)",
        "ask_quantity": "bytes decimal(18,8)",
        "currency": "string",
        "source_sequence": "null | long",
        "ingestion_timestamp": "long timestamp-micros",
        "platform_sequence": "null | long",
        "vendor_data": "null | map of string",
    },
    "reference_data_v2": {
        "message_id": "string",
        "company_id": "string",
        "symbol": "string",
        "exchange": "string",
        "company_name": "string",
        "isin": "null | string",
        "currency": "null | string",
        "listing_date": "null | long timestamp-micros",
        "delisting_date": "null | long timestamp-micros",
        "is_active": "boolean",
        "asset_class": "enum equities crypto futures options fx bonds indices",
        "ingestion_timestamp": "long timestamp-micros",
        "vendor_data": "null | map of string",
    },
    "raw_record": {
        "source": "string",
        "partition": "int",
        "offset": "long",
        "timestamp": "null | long timestamp-micros",
        "key": "null | bytes",
        "value": "null | bytes",
        "headers": "array of record of key string, value null | bytes",
    },
}
"""Every field of every schema, in order: written out, so that none is lost or changed unseen."""


def shown(avro_type: Any) -> str:
    """A type as :data:`FIELDS` writes it."""
    if isinstance(avro_type, str):
        return avro_type
    if isinstance(avro_type, list):
        return " | ".join(map(shown, avro_type))
    match avro_type["type"]:
        case "enum":
            return f"enum {' '.join(avro_type['symbols'])}"
        case "array":
            return f"array of {shown(avro_type['items'])}"
        case "map":
            return f"map of {shown(avro_type['values'])}"
        case "record":
            return "record of " + ", ".join(f"{field['name']} {shown(field['type'])}" for field in avro_type["fields"])
    logical = avro_type["logicalType"]
    digits = f"({avro_type['precision']},{avro_type['scale']})" if logical == "decimal" else ""
    return f"{avro_type['type']} {logical}{digits}"


def test_every_schema_has_its_fields() -> None:
    # Version 3 is held to version 2 by a test of its own.
    names = [name for name in SCHEMA_NAMES if not name.endswith("_v3")]
    found = {name: {field["name"]: shown(field["type"]) for field in avro_schema(name)["fields"]} for name in names}
    assert found == FIELDS
    assert {name: list(fields) for name, fields in found.items()} == {name: list(FIELDS[name]) for name in FIELDS}
