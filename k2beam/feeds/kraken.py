"""Frames of Kraken's websocket interface, version 2, as v2 records, and the requests that ask for them.

The rules are those of "Spot WebSocket v2" of Kraken's API documentation: "Trade", "Ticker", "Heartbeat", "Status" and
"Ping" for the messages, and "Reconnection and resilience" for how a connection is known to be dead.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from k2beam.errors import BadFrame
from k2beam.feeds.channels import ChannelFeed
from k2beam.feeds.feed import FeedMessage, Heartbeat, Market, Reply, Request
from k2beam.feeds.fields import (
    SHOWN,
    decimal_number,
    integer,
    iso_time,
    json_object,
    known,
    message_id,
    show,
    shown,
    stream_of,
)
from k2beam.feeds.records import quote_v2, trade_v2
from k2beam.model import Kind

_SYMBOLS_A_REQUEST = 100
_SNAPSHOT = 50
"""So many trades a subscription begins with."""

_NAMESPACE = uuid.UUID("b3d9a3c7-51a2-5b0e-8f51-2d1a4f1c9e84")
_SIDES = {"buy": "BUY", "sell": "SELL"}
_PARAMS: dict[str, dict[str, Any]] = {"trade": {"snapshot": True}, "ticker": {"snapshot": True, "event_trigger": "bbo"}}


@dataclass(frozen=True)
class KrakenFeed(ChannelFeed):
    """Kraken's spot market. Symbols are pairs such as BTC/USD; trade ids count the trades of a book.

    ``ticker`` gives the best quotes whenever their prices change. A subscription begins with the last 50 trades, so
    that a short loss of the connection leaves no gap. Where nothing else is sent there is a heartbeat every second.
    """

    channels: tuple[str, ...] = ("trade", "ticker")
    addresses: tuple[str, ...] = ("wss://ws.kraken.com/v2",)
    exchange = "KRAKEN"
    channel_kinds: ClassVar[Mapping[str, Kind]] = {"trade": "trades", "ticker": "quotes"}
    numbered: ClassVar[tuple[Kind, ...]] = ("trades",)
    silence = 15.0
    lifetime = math.inf
    repeats = _SNAPSHOT

    @property
    def requests(self) -> tuple[Request, ...]:
        """A channel of some pairs each, numbered from 1. Each pair has a reply of its own."""
        parts = [(channel, part) for channel in self.channels for part in self.parts(_SYMBOLS_A_REQUEST)]
        return tuple(_request(channel, part, number) for number, (channel, part) in enumerate(parts, start=1))

    def read(self, frame: str | bytes, received_at: int) -> list[FeedMessage]:
        with shown(frame):
            payload = json_object(frame)
            if "method" in payload:
                return _replies(payload)
            channel = payload.get("channel")
            if channel == "heartbeat":
                return [Heartbeat()]
            if channel == "status":
                return []
            if channel not in tuple(self.channel_kinds) or not isinstance(payload.get("data"), list):
                raise BadFrame("shape", "no trade, ticker, heartbeat, status or reply")
        read = self._trade if channel == "trade" else self._quote
        return _each(payload["data"], read, frame, received_at)

    def _trade(self, payload: Mapping[str, Any], received_at: int) -> Market:
        """trade_v2. ``side`` is that of the taker."""
        symbol = known(payload, "symbol", self.currencies)
        number = integer(payload, "trade_id")
        if payload.get("side") not in ("buy", "sell"):
            raise BadFrame("value", "side is not buy or sell")
        record = trade_v2(
            self.traded(symbol),
            message_id(_NAMESPACE, "trades", symbol, number),
            number,
            iso_time(payload, "timestamp", received_at),
            decimal_number(payload, "price"),
            decimal_number(payload, "qty"),
            _SIDES[payload["side"]],
            received_at,
            {"ord_type": str(payload["ord_type"])} if "ord_type" in payload else {},
        )
        return Market("trades", stream_of(symbol, "trade"), record)

    def _quote(self, payload: Mapping[str, Any], received_at: int) -> Market:
        """quote_v2. A ticker has no number; one without a time has that of its receipt, as vendor_data says."""
        symbol = known(payload, "symbol", self.currencies)
        values = [decimal_number(payload, name) for name in ("bid", "bid_qty", "ask", "ask_qty")]
        told = "timestamp" in payload
        moment = iso_time(payload, "timestamp", received_at) if told else received_at
        identifier = message_id(_NAMESPACE, "quotes", symbol, moment, *values)
        vendor_data = {} if told else {"timestamp_is": "received"}
        record = quote_v2(self.traded(symbol), identifier, identifier, moment, values, received_at, vendor_data)
        return Market("quotes", stream_of(symbol, "ticker"), record)


def _request(channel: str, symbols: list[str], number: int) -> Request:
    params = {"channel": channel, "symbol": symbols, **_PARAMS[channel]}
    text = json.dumps({"method": "subscribe", "params": params, "req_id": number})
    return Request(text, frozenset(stream_of(symbol, channel) for symbol in symbols))


def _replies(payload: Mapping[str, Any]) -> list[FeedMessage]:
    """The reply to a request about one of its pairs; a pong is none. Raises BadFrame."""
    if payload["method"] == "pong":
        return []
    number = payload.get("req_id")
    request = number if type(number) is int else None
    if payload.get("success") is not True:
        return [Reply(request, str(payload.get("error"))[:SHOWN])]
    result = payload.get("result")
    if not isinstance(result, dict) or not {"symbol", "channel"} <= result.keys():
        raise BadFrame("shape", "a reply without its channel and symbol")
    return [Reply(request, None, frozenset({stream_of(str(result["symbol"]), str(result["channel"]))}))]


def _each(
    items: list[Any], read: Callable[[Mapping[str, Any], int], Market], frame: str | bytes, received_at: int
) -> list[FeedMessage]:
    """The events of a frame; those that can't be used are one BadFrame behind them, and the frame is kept once."""
    found: list[FeedMessage] = []
    bad: BadFrame | None = None
    for item in items:
        try:
            if not isinstance(item, dict):
                raise BadFrame("shape", "data has something else than objects")
            found.append(read(item, received_at))
        except BadFrame as error:
            bad = bad or show(error, frame)
    return found if bad is None else [*found, bad]
