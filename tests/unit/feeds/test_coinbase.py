"""Coinbase's frames as v2 records; the frames have the form that Coinbase documents."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from k2beam.errors import BadFrame
from k2beam.feeds.coinbase import CoinbaseFeed
from k2beam.feeds.feed import FeedMessage, Heartbeat, Market, Reply
from k2beam.feeds.fields import parse_instruments
from tests.unit.feeds.checks import RECEIVED, round_trip

FEED = CoinbaseFeed(parse_instruments("btc-usd,eth-eur", "-"))
MATCH: dict[str, Any] = {
    "type": "match",
    "trade_id": 10,
    "sequence": 50,
    "maker_order_id": "ac928c66-ca53-498f-9c13-a110027a60e8",
    "taker_order_id": "132fb6ae-456b-4654-b4e0-d681ac05cea1",
    "time": "2014-11-07T08:19:27.028459Z",
    "product_id": "BTC-USD",
    "size": "5.23512",
    "price": "400.23",
    "side": "sell",
}
TICKER: dict[str, Any] = {
    "type": "ticker",
    "sequence": 37475248783,
    "product_id": "ETH-EUR",
    "price": "1285.22",
    "open_24h": "1310.79",
    "volume_24h": "245532.79269678",
    "best_bid": "1285.04",
    "best_bid_size": "0.46688654",
    "best_ask": "1285.27",
    "best_ask_size": "1.56637040",
    "side": "buy",
    "time": "2022-10-19T23:28:22.061769Z",
    "trade_id": 370843401,
    "last_size": "11.4396987",
}


def read(payload: object) -> FeedMessage:
    (found,) = FEED.read(json.dumps(payload), RECEIVED)
    return found


def market(payload: object) -> Market:
    found = read(payload)
    assert isinstance(found, Market)
    return found


@pytest.mark.parametrize("kind", ["match", "last_match"])
def test_a_match_becomes_a_trade_v2(kind: str) -> None:
    found = market({**MATCH, "type": kind})
    assert (found.kind, found.stream) == ("trades", "BTC-USD@matches")
    assert round_trip(found) == found.record
    assert found.record["timestamp"] == datetime(2014, 11, 7, 8, 19, 27, 28_459, tzinfo=UTC)
    assert (found.record["symbol"], found.record["exchange"], found.record["currency"]) == (
        "BTC-USD",
        "COINBASE",
        "USD",
    )
    assert (found.record["price"], found.record["quantity"]) == (Decimal("400.23"), Decimal("5.23512"))
    assert (found.record["trade_id"], found.record["source_sequence"]) == ("10", 10)
    assert found.record["vendor_data"] == {
        "sequence": "50",
        "maker_order_id": MATCH["maker_order_id"],
        "taker_order_id": MATCH["taker_order_id"],
    }
    assert found.message_id == market(MATCH).message_id


def test_the_side_is_that_of_the_taker() -> None:
    """Coinbase gives the maker's: a maker that sells is an up-tick."""
    assert [market({**MATCH, "side": side}).record["side"] for side in ("sell", "buy")] == ["BUY", "SELL"]


def test_a_ticker_becomes_a_quote_v2_without_a_sequence() -> None:
    found = market(TICKER)
    assert (found.kind, found.stream) == ("quotes", "ETH-EUR@ticker")
    assert round_trip(found) == found.record
    assert found.record["source_sequence"] is None
    assert found.record["vendor_data"] == {"sequence": "37475248783"}
    names = ("bid_price", "bid_quantity", "ask_price", "ask_quantity")
    values = [Decimal(text) for text in ("1285.04", "0.46688654", "1285.27", "1.5663704")]
    assert [found.record[name] for name in names] == values
    assert found.record["timestamp"] == datetime(2022, 10, 19, 23, 28, 22, 61_769, tzinfo=UTC)


def test_another_event_has_another_id() -> None:
    changed: list[dict[str, Any]] = [
        MATCH,
        {**MATCH, "trade_id": 11},
        {**MATCH, "product_id": "ETH-EUR"},
        TICKER,
        {**TICKER, "sequence": 1},
    ]
    assert len({market(event).message_id for event in changed}) == len(changed)


def test_what_is_no_market_event() -> None:
    beat = {"type": "heartbeat", "sequence": 90, "last_trade_id": 20, "product_id": "BTC-USD", "time": MATCH["time"]}
    assert read(beat) == Heartbeat()
    listed = [
        {"name": "matches", "product_ids": ["BTC-USD", "ETH-EUR"]},
        {"name": "heartbeat", "product_ids": ["BTC-USD"]},
    ]
    assert read({"type": "subscriptions", "channels": listed}) == Reply(
        None, None, frozenset({"BTC-USD@matches", "ETH-EUR@matches", "BTC-USD@heartbeat"})
    )
    error = {"type": "error", "message": "Failed to subscribe", "reason": "GIBBERISH-USD is not a valid product"}
    assert read(error) == Reply(None, "Failed to subscribe: GIBBERISH-USD is not a valid product")
    assert read({"type": "error"}) == Reply(None, "error")


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("garbage", "json"),
        ("{}", "shape"),
        (json.dumps({"type": ["match"]}), "shape"),
        (json.dumps({"type": "received"}), "shape"),
        (json.dumps({"type": "subscriptions", "channels": [{"name": "matches"}]}), "shape"),
        (json.dumps({"type": "subscriptions"}), "shape"),
        (json.dumps({**MATCH, "product_id": "DOGE-USD"}), "symbol"),
        (json.dumps({**MATCH, "side": "both"}), "value"),
        (json.dumps({**MATCH, "price": 400.23}), "value"),
        (json.dumps({**MATCH, "trade_id": "10"}), "value"),
        (json.dumps({**MATCH, "time": "2014-11-07"}), "value"),
        (json.dumps({name: value for name, value in TICKER.items() if name != "best_bid_size"}), "value"),
    ],
)
def test_a_bad_frame_has_a_reason_and_is_shown(frame: str, reason: str) -> None:
    with pytest.raises(BadFrame) as raised:
        FEED.read(frame, RECEIVED)
    assert raised.value.reason == reason
    assert repr(frame[:20])[:-1] in str(raised.value)


def test_products_are_asked_for_in_parts() -> None:
    (request,) = FEED.requests
    assert json.loads(request.text) == {
        "type": "subscribe",
        "product_ids": ["BTC-USD", "ETH-EUR"],
        "channels": ["matches", "ticker", "heartbeat"],
    }
    assert "ETH-EUR@heartbeat" in request.streams
    many = CoinbaseFeed(parse_instruments(",".join(f"c{number}-usd" for number in range(250)), "-"), ("matches",))
    assert [len(json.loads(one.text)["product_ids"]) for one in many.requests] == [100, 100, 50]
    assert len(many.streams) == 250
    assert many.kinds == ("trades",)
