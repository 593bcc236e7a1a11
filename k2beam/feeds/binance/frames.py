"""Binance spot websocket frames as v2 records, and the requests that ask for them.

The rules are those of "WebSocket Streams for Binance" (web-socket-streams.md of Binance's spot API
documentation): "General WSS information" for combined and raw frames, time units and limits, "Live
Subscribing/Unsubscribing to streams" for requests and replies, "Server Shutdown", "Trade Streams"
and "Individual Symbol Book Ticker Streams" for the payloads.

Everything here is pure: the same frame, received at the same time, gives the same record.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from k2beam.errors import BadFrame, UsageError
from k2beam.feeds.feed import EventRecord, FeedMessage, Market, Reply, Request, Shutdown
from k2beam.feeds.fields import (
    SHOWN,
    check_addresses,
    comma_parts,
    decimal_text,
    integer,
    json_object,
    known,
    listed,
    message_id,
    not_ahead,
    shown,
)
from k2beam.feeds.records import instrument, quote_v2, trade_v2
from k2beam.model import Kind

EXCHANGE, ASSET_CLASS = "BINANCE", "crypto"

STREAMS = ("trade", "bookTicker")
"""The streams of a symbol that have a record: a trade and a quote."""

MAX_STREAMS = 1024
"""Streams that one connection may listen to ("WebSocket Limits")."""

ADDRESSES = ("wss://stream.binance.com:9443", "wss://stream.binance.com:443", "wss://data-stream.binance.vision")
"""Base endpoints of market data ("General WSS information"), in the order in which they are tried."""

STREAM_PATH = "/stream?timeUnit=MICROSECOND"
"""Combined frames, with times in microseconds rather than the default milliseconds."""

# fmt: off
QUOTE_ASSETS = frozenset((
    "USDT", "USDC", "FDUSD", "TUSD", "BUSD", "USDP", "USDS", "USD1", "XUSD", "DAI", "PAX", "VAI", "BTC", "ETH",
    "BNB", "SOL", "XRP", "TRX", "DOGE", "DOT", "EUR", "EURI", "GBP", "TRY", "BRL", "ARS", "AUD", "JPY",
    "MXN", "COP", "CZK", "PLN", "RON", "ZAR", "UAH", "RUB", "NGN", "IDR", "IDRT", "BIDR", "BKRW", "BVND",
))
# fmt: on
"""Quote assets that are found at the end of a symbol.

USD is not one, since DOTUSD would be read as DO in TUSD, and neither is AEUR, since ADAEUR is ADA
in EUR. Such a pair is written with a slash: DOT/USD.
"""

_NAMESPACE = uuid.UUID("3d6f5a52-8a0f-5f0e-9c55-0f3f7d2b9a61")
_NAME = re.compile(r"[A-Z0-9]{1,20}")
_FIRST_MICROSECONDS = 10**14
"""From here on a time is in microseconds: as milliseconds it would be in the year 5138."""
_STREAMS_A_REQUEST = 100


@dataclass(frozen=True, slots=True)
class Pair:
    """A symbol of Binance: an amount of ``base`` is priced in ``quote``."""

    base: str
    quote: str

    @property
    def symbol(self) -> str:
        """As in a frame: BTCUSDT."""
        return self.base + self.quote


def parse_pairs(text: str) -> tuple[Pair, ...]:
    """The pairs of ``btcusdt,ethusdt``, in any case, repeated ones once.

    The quote asset is the longest of :data:`QUOTE_ASSETS` at the symbol's end, or what stands after
    a slash (``dot/usd``). Raises UsageError for a symbol that is none.
    """
    pairs = tuple(dict.fromkeys(map(_pair, comma_parts(text))))
    if not pairs:
        raise UsageError("--symbols names none: write it as btcusdt,ethusdt")
    quotes: dict[str, str] = {}
    for pair in pairs:
        if quotes.setdefault(pair.symbol, pair.quote) != pair.quote:
            raise UsageError(
                f"--symbols has {pair.symbol} with two quote assets, {quotes[pair.symbol]} and {pair.quote}"
            )
    return pairs


def _pair(text: str) -> Pair:
    base, slash, quote = text.upper().partition("/")
    if not all(_NAME.fullmatch(name) for name in ((base, quote) if slash else (base,))):
        raise UsageError(f"--symbols: {text!r} is not a symbol of letters and digits such as btcusdt or btc/usdt")
    if slash:
        return Pair(base, quote)
    for length in range(len(base) - 1, 0, -1):
        if base[-length:] in QUOTE_ASSETS:
            return Pair(base[:-length], base[-length:])
    raise UsageError(f"--symbols: {text!r} does not end in a known quote asset; write it with a slash, as in btc/usdt")


def parse_streams(text: str) -> tuple[str, ...]:
    """The stream kinds of ``trade,bookTicker``, repeated ones once. Raises UsageError for another."""
    return listed(text, "--streams", STREAMS)


def stream_names(pairs: Iterable[Pair], kinds: Iterable[str]) -> tuple[str, ...]:
    """Names such as btcusdt@trade; symbols are lower case. Raises UsageError above :data:`MAX_STREAMS`."""
    kinds = tuple(kinds)
    names = tuple(f"{pair.symbol.lower()}@{kind}" for pair in pairs for kind in kinds)
    if len(names) > MAX_STREAMS:
        raise UsageError(
            f"{len(names)} streams (symbols x kinds), and a connection takes {MAX_STREAMS}: use several processes"
        )
    return names


@dataclass(frozen=True)
class BinanceFeed:
    """The spot market: which pairs and stream kinds, and from which base addresses, in order of preference.

    Binance ends a connection at 24 hours ("General WSS information"); its trade ids count the trades of a symbol.
    Raises UsageError for too many streams, and for an address that is none or has a path.
    """

    pairs: tuple[Pair, ...]
    stream_kinds: tuple[str, ...] = STREAMS
    bases: tuple[str, ...] = ADDRESSES
    exchange = EXCHANGE
    asset_class = ASSET_CLASS
    numbered: ClassVar[tuple[Kind, ...]] = ("trades",)
    silence = 60.0
    lifetime = 23 * 3600.0
    repeats = 0

    def __post_init__(self) -> None:
        stream_names(self.pairs, self.stream_kinds)
        check_addresses(self.bases, path=False)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        found: tuple[Kind, ...] = ("trades", "quotes")
        return tuple(kind for kind, stream in zip(found, STREAMS, strict=True) if stream in self.stream_kinds)

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(base.rstrip("/") + STREAM_PATH for base in self.bases)

    @property
    def streams(self) -> tuple[str, ...]:
        """Such as btcusdt@trade."""
        return stream_names(self.pairs, self.stream_kinds)

    @property
    def requests(self) -> tuple[Request, ...]:
        """A part of the streams each; they are numbered from 1, as their replies are."""
        size = _STREAMS_A_REQUEST
        parts = [self.streams[first : first + size] for first in range(0, len(self.streams), size)]
        return tuple(Request(subscribe_request(part, number), frozenset(part)) for number, part in enumerate(parts, 1))

    @cached_property
    def _symbols(self) -> dict[str, Pair]:
        return {pair.symbol: pair for pair in self.pairs}

    def read(self, frame: str | bytes, received_at: int) -> tuple[FeedMessage, ...]:
        return (parse_frame(frame, self._symbols, received_at),)


def subscribe_request(streams: Sequence[str], number: int) -> str:
    """The request for some streams; its reply carries ``number`` as id ("Subscribe to a stream")."""
    return json.dumps({"method": "SUBSCRIBE", "params": list(streams), "id": number})


def parse_frame(frame: str | bytes, pairs: Mapping[str, Pair], received_at: int) -> FeedMessage:
    """What a frame says: raw, or combined as ``{"stream": …, "data": …}``.

    ``pairs`` by symbol are those that were asked for; ``received_at`` is in microseconds, UTC. Raises
    BadFrame, with the reason and the beginning of the frame.
    """
    with shown(frame):
        return _message(_unwrapped(json_object(frame)), pairs, received_at)


def _unwrapped(found: dict[str, Any]) -> dict[str, Any]:
    data = found.get("data")
    return data if "stream" in found and isinstance(data, dict) else found


def _message(payload: dict[str, Any], pairs: Mapping[str, Pair], received_at: int) -> FeedMessage:
    event = payload.get("e")
    if event == "trade":
        return _trade(payload, _pair_of(payload, pairs), received_at)
    # A book ticker of the spot market has no event type.
    if "e" not in payload and {"u", "s", "b", "a"} <= payload.keys():
        return _quote(payload, _pair_of(payload, pairs), received_at)
    if event == "serverShutdown":
        return Shutdown()
    if "error" in payload or {"code", "msg"} <= payload.keys():
        return Reply(_reply_id(payload), _error_text(payload))
    if "result" in payload and "id" in payload:
        return Reply(_reply_id(payload), None if payload["result"] is None else f"result {payload['result']!r}")
    raise BadFrame("shape", "no trade, book ticker or reply")


def _reply_id(payload: Mapping[str, Any]) -> int | None:
    number = payload.get("id")
    return number if type(number) is int else None


def _error_text(payload: Mapping[str, Any]) -> str:
    error = payload.get("error", payload)
    if isinstance(error, dict):
        return f"code {error.get('code')}: {str(error.get('msg'))[:SHOWN]}"
    return str(error)[:SHOWN]


def _trade(payload: Mapping[str, Any], pair: Pair, received_at: int) -> Market:
    """trade_v2. The trade id counts the trades of a symbol: it is the sequence.

    ``m`` says that the buyer was the maker, so that the seller was the aggressor.
    """
    vendor = {"event_time": str(_microseconds(payload, "E", received_at))}
    # Frames recorded before June 2024 name the orders too.
    for field, name in (("b", "buyer_order_id"), ("a", "seller_order_id")):
        if field in payload:
            vendor[name] = str(integer(payload, field))
    return Market("trades", f"{pair.symbol.lower()}@trade", trade_record(payload, pair, received_at, vendor))


def trade_record(
    payload: Mapping[str, Any], pair: Pair, received_at: int, vendor_data: Mapping[str, str]
) -> EventRecord:
    """trade_v2 of the fields ``t`` (id), ``T`` (time), ``p`` (price), ``q`` (quantity) and ``m`` of a frame.

    The same trade gives the same message id, whatever told of it. Raises BadFrame for a value that can't be.
    """
    number = integer(payload, "t")
    if type(payload.get("m")) is not bool:
        raise BadFrame("value", "m is not true or false")
    return trade_v2(
        _traded(pair),
        message_id(_NAMESPACE, "trades", pair.symbol, number),
        number,
        _microseconds(payload, "T", received_at),
        decimal_text(payload, "p"),
        decimal_text(payload, "q"),
        "SELL" if payload["m"] else "BUY",
        received_at,
        vendor_data,
    )


def _quote(payload: Mapping[str, Any], pair: Pair, received_at: int) -> Market:
    """quote_v2. The update id skips numbers, so it is no sequence: it goes to vendor_data.

    A book ticker has no time; the time of its receipt stands in, as vendor_data says.
    """
    number = integer(payload, "u")
    values = [decimal_text(payload, field) for field in ("b", "B", "a", "A")]
    record = quote_v2(
        _traded(pair),
        message_id(_NAMESPACE, "quotes", pair.symbol, number, *values),
        str(number),
        received_at,
        values,
        received_at,
        {"update_id": str(number), "timestamp_is": "received"},
    )
    return Market("quotes", f"{pair.symbol.lower()}@bookTicker", record)


def _traded(pair: Pair) -> EventRecord:
    return instrument(pair.symbol, EXCHANGE, ASSET_CLASS, pair.quote)


def _pair_of(payload: Mapping[str, Any], pairs: Mapping[str, Pair]) -> Pair:
    return pairs[known(payload, "s", pairs)]


def _microseconds(payload: Mapping[str, Any], field: str, received_at: int) -> int:
    """A time of Binance, in milliseconds or microseconds ("General WSS information"), in microseconds."""
    value = integer(payload, field)
    return not_ahead(value if value >= _FIRST_MICROSECONDS else value * 1_000, field, received_at)
