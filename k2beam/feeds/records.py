"""Records of version 2 from what an exchange said, with the fields that no feed fills left empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from k2beam.feeds.feed import EventRecord
from k2beam.feeds.fields import utc


def instrument(symbol: str, exchange: str, asset_class: str, currency: str) -> EventRecord:
    """What is traded, and where."""
    return {"symbol": symbol, "exchange": exchange, "asset_class": asset_class, "currency": currency}


def trade_v2(
    traded: EventRecord,
    identifier: str,
    number: int,
    time: int,
    price: Decimal,
    quantity: Decimal,
    side: str,
    received_at: int,
    vendor_data: Mapping[str, str],
) -> EventRecord:
    """A trade whose id counts the trades of its symbol: it is the sequence. Times are microseconds, UTC.

    ``side`` is BUY or SELL, that of the aggressor.
    """
    return {
        "message_id": identifier,
        "trade_id": str(number),
        **traded,
        "timestamp": utc(time),
        "price": price,
        "quantity": quantity,
        "side": side,
        "trade_conditions": [],
        "source_sequence": number,
        "ingestion_timestamp": utc(received_at),
        "platform_sequence": None,
        "vendor_data": dict(vendor_data),
    }


def quote_v2(
    quoted: EventRecord,
    identifier: str,
    quote_id: str,
    time: int,
    values: Sequence[Decimal],
    received_at: int,
    vendor_data: Mapping[str, str],
) -> EventRecord:
    """A quote without a sequence; ``values`` are price and quantity of the bid, then of the ask."""
    names = ("bid_price", "bid_quantity", "ask_price", "ask_quantity")
    return {
        "message_id": identifier,
        "quote_id": quote_id,
        **quoted,
        "timestamp": utc(time),
        **dict(zip(names, values, strict=True)),
        "source_sequence": None,
        "ingestion_timestamp": utc(received_at),
        "platform_sequence": None,
        "vendor_data": dict(vendor_data),
    }
