"""Frames of Coinbase Exchange's websocket feed as v2 records, and the requests that ask for them.

The rules are those of "Exchange WebSocket Overview" (subscribing, errors, sequence numbers) and "Exchange WebSocket
Channels" (heartbeat, ticker, matches) of Coinbase's developer documentation.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from k2beam.errors import BadFrame
from k2beam.feeds.channels import ChannelFeed
from k2beam.feeds.feed import FeedMessage, Heartbeat, Market, Reply, Request
from k2beam.feeds.fields import (
    SHOWN,
    decimal_text,
    integer,
    iso_time,
    json_object,
    known,
    message_id,
    shown,
    stream_of,
)
from k2beam.feeds.records import quote_v2, trade_v2
from k2beam.model import Kind

_HEARTBEAT = "heartbeat"
_PRODUCTS_A_REQUEST = 100
_NAMESPACE = uuid.UUID("6a1f0f0e-2b7c-5c58-9d1b-7f7a5f0c3f52")
_OTHER_SIDE = {"buy": "SELL", "sell": "BUY"}


@dataclass(frozen=True)
class CoinbaseFeed(ChannelFeed):
    """Coinbase Exchange. Symbols are products such as BTC-USD; trade ids count the trades of a product.

    ``ticker`` gives the best quotes after a trade. A subscription begins with the last trade (``last_match``). Each
    product has a heartbeat every second.
    """

    channels: tuple[str, ...] = ("matches", "ticker")
    addresses: tuple[str, ...] = ("wss://ws-feed.exchange.coinbase.com",)
    exchange = "COINBASE"
    channel_kinds: ClassVar[Mapping[str, Kind]] = {"matches": "trades", "ticker": "quotes"}
    numbered: ClassVar[tuple[Kind, ...]] = ("trades",)
    silence = 15.0
    lifetime = math.inf
    repeats = 1

    @property
    def requests(self) -> tuple[Request, ...]:
        """Of some products each. A reply lists all that is subscribed to by then."""
        return tuple(self._request(part) for part in self.parts(_PRODUCTS_A_REQUEST))

    def _request(self, symbols: list[str]) -> Request:
        asked = {"type": "subscribe", "product_ids": symbols, "channels": [*self.channels, _HEARTBEAT]}
        streams = {stream_of(symbol, channel) for symbol in symbols for channel in (*self.channels, _HEARTBEAT)}
        return Request(json.dumps(asked), frozenset(streams))

    def read(self, frame: str | bytes, received_at: int) -> tuple[FeedMessage, ...]:
        with shown(frame):
            return (self._message(json_object(frame), received_at),)

    def _message(self, payload: Mapping[str, Any], received_at: int) -> FeedMessage:
        match payload.get("type"):
            case "match" | "last_match":
                return self._trade(payload, received_at)
            case "ticker":
                return self._quote(payload, received_at)
            case "heartbeat":
                return Heartbeat()
            case "subscriptions":
                return Reply(None, None, frozenset(_listed_streams(payload)))
            case "error":
                told = (str(payload[name]) for name in ("message", "reason") if name in payload)
                return Reply(None, ": ".join(told)[:SHOWN] or "error")
        raise BadFrame("shape", "no match, ticker, heartbeat or reply")

    def _trade(self, payload: Mapping[str, Any], received_at: int) -> Market:
        """trade_v2. ``side`` is that of the maker's order, so the aggressor's is the other one."""
        symbol = known(payload, "product_id", self.currencies)
        number = integer(payload, "trade_id")
        side = payload.get("side")
        if side not in ("buy", "sell"):
            raise BadFrame("value", "side is not buy or sell")
        names = ("sequence", "maker_order_id", "taker_order_id")
        record = trade_v2(
            self.traded(symbol),
            message_id(_NAMESPACE, "trades", symbol, number),
            number,
            iso_time(payload, "time", received_at),
            decimal_text(payload, "price"),
            decimal_text(payload, "size"),
            _OTHER_SIDE[side],
            received_at,
            {name: str(payload[name]) for name in names if name in payload},
        )
        return Market("trades", stream_of(symbol, "matches"), record)

    def _quote(self, payload: Mapping[str, Any], received_at: int) -> Market:
        """quote_v2. ``sequence`` counts all messages of a product, so it skips numbers here: it goes to vendor_data."""
        symbol = known(payload, "product_id", self.currencies)
        number = integer(payload, "sequence")
        values = [decimal_text(payload, name) for name in ("best_bid", "best_bid_size", "best_ask", "best_ask_size")]
        record = quote_v2(
            self.traded(symbol),
            message_id(_NAMESPACE, "quotes", symbol, number),
            str(number),
            iso_time(payload, "time", received_at),
            values,
            received_at,
            {"sequence": str(number)},
        )
        return Market("quotes", stream_of(symbol, "ticker"), record)


def _listed_streams(payload: Mapping[str, Any]) -> list[str]:
    """What a reply says is subscribed to: ``channels`` with their ``name`` and ``product_ids``. Raises BadFrame."""
    try:
        return [stream_of(symbol, one["name"]) for one in payload["channels"] for symbol in one["product_ids"]]
    except (KeyError, TypeError) as error:
        raise BadFrame("shape", "subscriptions without channels and their products") from error
