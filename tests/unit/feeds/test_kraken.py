"""Kraken's frames, version 2, as v2 records; the frames have the form that Kraken documents."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from k2beam.errors import BadFrame
from k2beam.feeds.feed import Heartbeat, Market, Reply
from k2beam.feeds.fields import parse_instruments, utc
from k2beam.feeds.kraken import KrakenFeed
from tests.unit.feeds.checks import RECEIVED, round_trip

FEED = KrakenFeed(parse_instruments("btc/usd,matic/usd,algo/usd", "/"))
TRADE = (
    '{"symbol": "MATIC/USD", "side": "sell", "price": 0.5117, "qty": 40.0, "ord_type": "market", '
    '"trade_id": 4665906, "timestamp": "2023-09-25T07:49:37.708706Z"}'
)
TICKER = (
    '{"symbol": "ALGO/USD", "bid": 0.10025, "bid_qty": 740.0, "ask": 0.10036, "ask_qty": 1361.44813783, '
    '"last": 0.10035, "volume": 997038.98383185, "vwap": 0.10148, "low": 0.09979, "high": 0.10285, '
    '"change": -0.00017, "change_pct": -0.17}'
)


def frame(channel: str, *items: str, kind: str = "update") -> str:
    return f'{{"channel": "{channel}", "type": "{kind}", "data": [{", ".join(items)}]}}'


def market(channel: str, item: str) -> Market:
    (found,) = FEED.read(frame(channel, item), RECEIVED)
    assert isinstance(found, Market)
    return found


def changed(item: str, **values: Any) -> str:
    return json.dumps({**json.loads(item), **values})


def test_a_trade_becomes_a_trade_v2() -> None:
    found = market("trade", TRADE)
    assert (found.kind, found.stream) == ("trades", "MATIC/USD@trade")
    assert round_trip(found) == found.record
    assert found.record["timestamp"] == datetime(2023, 9, 25, 7, 49, 37, 708_706, tzinfo=UTC)
    assert (found.record["symbol"], found.record["exchange"], found.record["currency"]) == (
        "MATIC/USD",
        "KRAKEN",
        "USD",
    )
    assert (found.record["price"], found.record["quantity"]) == (Decimal("0.5117"), Decimal(40))
    assert (found.record["trade_id"], found.record["source_sequence"]) == ("4665906", 4665906)
    assert (found.record["side"], found.record["vendor_data"]) == ("SELL", {"ord_type": "market"})


def test_numbers_keep_every_digit_that_was_sent() -> None:
    sent = TRADE.replace("0.5117", "12345678901.123456789").replace("40.0", "1.0e-8")
    found = market("trade", sent)
    assert round_trip(found) == found.record
    numbers = (found.record["price"], found.record["quantity"])
    assert numbers == (Decimal("12345678901.123456789"), Decimal("0.00000001"))


def test_a_frame_has_several_trades_and_a_snapshot_the_last_ones() -> None:
    items = [changed(TRADE, trade_id=number) for number in range(5)]
    for kind in ("snapshot", "update"):
        found = FEED.read(frame("trade", *items, kind=kind), RECEIVED)
        assert [one.record["source_sequence"] for one in found if isinstance(one, Market)] == [0, 1, 2, 3, 4]
    assert FEED.read(frame("trade"), RECEIVED) == []


def test_a_ticker_becomes_a_quote_v2() -> None:
    found = market("ticker", TICKER)
    assert (found.kind, found.stream) == ("quotes", "ALGO/USD@ticker")
    assert round_trip(found) == found.record
    names = ("bid_price", "bid_quantity", "ask_price", "ask_quantity")
    values = [Decimal(text) for text in ("0.10025", "740", "0.10036", "1361.44813783")]
    assert [found.record[name] for name in names] == values
    assert found.record["timestamp"] == found.record["ingestion_timestamp"] == utc(RECEIVED)
    assert found.record["vendor_data"] == {"timestamp_is": "received"}
    assert found.record["source_sequence"] is None


def test_a_ticker_with_a_time_has_that_and_is_the_same_whenever_it_comes() -> None:
    told = changed(TICKER, timestamp="2023-09-25T09:04:31.742648Z")
    (first,), (again,) = (FEED.read(frame("ticker", told), RECEIVED + late) for late in (0, 5_000_000))
    assert isinstance(first, Market)
    assert isinstance(again, Market)
    assert first.record["timestamp"] == datetime(2023, 9, 25, 9, 4, 31, 742_648, tzinfo=UTC)
    assert first.record["vendor_data"] == {}
    assert first.message_id == again.message_id != market("ticker", TICKER).message_id


def test_what_is_no_market_event() -> None:
    status = {"system": "online", "api_version": "v2", "connection_id": 12834909003929404748, "version": "2.0.4"}
    assert FEED.read('{"channel": "heartbeat"}', RECEIVED) == [Heartbeat()]
    assert FEED.read(json.dumps({"channel": "status", "type": "update", "data": [status]}), RECEIVED) == []
    assert FEED.read('{"method": "pong", "time_in": "x", "time_out": "y"}', RECEIVED) == []
    reply = {"method": "subscribe", "req_id": 2, "success": True, "time_in": "x"}
    result = {"channel": "ticker", "symbol": "ALGO/USD", "snapshot": True, "event_trigger": "bbo"}
    assert FEED.read(json.dumps({**reply, "result": result}), RECEIVED) == [
        Reply(2, None, frozenset({"ALGO/USD@ticker"}))
    ]
    error = {"error": "Currency pair not supported XX/YY", "method": "subscribe", "success": False, "symbol": "XX/YY"}
    assert FEED.read(json.dumps({**error, "req_id": 1}), RECEIVED) == [Reply(1, "Currency pair not supported XX/YY")]
    assert FEED.read(json.dumps(error), RECEIVED) == [Reply(None, "Currency pair not supported XX/YY")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("garbage", "json"),
        ("{}", "shape"),
        ('{"channel": "book", "data": []}', "shape"),
        ('{"channel": ["trade"], "data": []}', "shape"),
        ('{"channel": "trade", "data": {}}', "shape"),
        ('{"method": "subscribe", "success": true}', "shape"),
    ],
)
def test_a_bad_frame_has_a_reason_and_is_shown(text: str, reason: str) -> None:
    with pytest.raises(BadFrame) as raised:
        FEED.read(text, RECEIVED)
    assert raised.value.reason == reason
    assert repr(text[:20])[:-1] in str(raised.value)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("7", "shape"),
        (changed(TRADE, symbol="XX/YY"), "symbol"),
        (changed(TRADE, symbol=None), "symbol"),
        (changed(TRADE, price="0.5117"), "value"),
        (changed(TRADE, qty=-1), "value"),
        (changed(TRADE, trade_id=1.5), "value"),
        (changed(TRADE, side="SELL"), "value"),
        (changed(TRADE, timestamp="now"), "value"),
    ],
)
def test_of_a_frame_with_a_bad_trade_the_good_ones_are_taken(item: str, reason: str) -> None:
    """And the frame is kept once, however many of its trades are bad."""
    found = FEED.read(frame("trade", TRADE, item, item, changed(TRADE, trade_id=1)), RECEIVED)
    *good, bad = found
    assert [one.record["source_sequence"] for one in good if isinstance(one, Market)] == [4665906, 1]
    assert isinstance(bad, BadFrame)
    assert bad.reason == reason
    assert '{"channel": "trade"' in str(bad)


def test_a_channel_is_asked_for_by_itself_and_in_parts() -> None:
    trades, tickers = FEED.requests
    assert json.loads(trades.text) == {
        "method": "subscribe",
        "params": {"channel": "trade", "symbol": ["BTC/USD", "MATIC/USD", "ALGO/USD"], "snapshot": True},
        "req_id": 1,
    }
    assert json.loads(tickers.text)["params"]["event_trigger"] == "bbo"
    assert json.loads(tickers.text)["req_id"] == 2
    assert trades.streams | tickers.streams == set(FEED.streams)
    many = KrakenFeed(parse_instruments(",".join(f"c{number}/usd" for number in range(150)), "/"), ("ticker",))
    assert [len(one.streams) for one in many.requests] == [100, 50]
    assert many.kinds == ("quotes",)
