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
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit

from k2beam.errors import BadFrame, UsageError
from k2beam.model import DECIMAL
from k2beam.validation import FUTURE_LIMIT

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

EventRecord = dict[str, Any]
"""A v2 record in Python values: Decimal, and datetime with UTC."""

Reason = Literal["json", "shape", "symbol", "value"]
REASONS: tuple[Reason, ...] = ("json", "shape", "symbol", "value")
"""Why a frame can't be used: no JSON object; no known message; a symbol that was not asked for; a
field that is missing, has a wrong type or does not fit its column."""

_NAMESPACE = uuid.UUID("3d6f5a52-8a0f-5f0e-9c55-0f3f7d2b9a61")
_NAME = re.compile(r"[A-Z0-9]{1,20}")
_NUMBER = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?", re.ASCII)
_QUANTA = (Decimal("0.00000001"), Decimal(1).scaleb(-DECIMAL.scale))
"""Eight places, as Binance sends nearly all numbers, or as many as a column has; they are part of message ids."""

_LIMIT = Decimal(10) ** (DECIMAL.precision - DECIMAL.scale)
_EXACT = Context(prec=2 * DECIMAL.precision)
_EPOCH = datetime.fromtimestamp(0, UTC)
_MAX_LONG = 2**63 - 1
_FIRST_MICROSECONDS = 10**14
"""From here on a time is in microseconds: as milliseconds it would be in the year 5138."""
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Pair:
    """A symbol of Binance: an amount of ``base`` is priced in ``quote``."""

    base: str
    quote: str

    @property
    def symbol(self) -> str:
        """As in a frame: BTCUSDT."""
        return self.base + self.quote


@dataclass(frozen=True, slots=True)
class Market:
    """A market event. ``stream`` is the name of the stream it belongs to, such as btcusdt@trade."""

    kind: Literal["trades", "quotes"]
    stream: str
    record: EventRecord

    @property
    def message_id(self) -> str:
        """The same for the same event, whichever connection it came over."""
        return str(self.record["message_id"])


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A frame that is no record, as it came, and what is wrong with it."""

    frame: bytes
    problem: str


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the request with ``id`` (None where the server does not say); ``error`` is None if it was done."""

    id: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The server is about to shut down: a new connection should be made at once ("Server Shutdown")."""


FeedMessage = Market | Reply | Shutdown


def parse_pairs(text: str) -> tuple[Pair, ...]:
    """The pairs of ``btcusdt,ethusdt``, in any case, repeated ones once.

    The quote asset is the longest of :data:`QUOTE_ASSETS` at the symbol's end, or what stands after
    a slash (``dot/usd``). Raises UsageError for a symbol that is none.
    """
    pairs = tuple(dict.fromkeys(_pair(part.strip()) for part in text.split(",") if part.strip()))
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
    kinds = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not kinds or not set(kinds) <= set(STREAMS):
        raise UsageError(f"--streams takes {','.join(STREAMS)} or one of them, not {text!r}")
    return kinds


def stream_names(pairs: Iterable[Pair], kinds: Iterable[str]) -> tuple[str, ...]:
    """Names such as btcusdt@trade; symbols are lower case. Raises UsageError above :data:`MAX_STREAMS`."""
    kinds = tuple(kinds)
    names = tuple(f"{pair.symbol.lower()}@{kind}" for pair in pairs for kind in kinds)
    if len(names) > MAX_STREAMS:
        raise UsageError(
            f"{len(names)} streams (symbols x kinds), and a connection takes {MAX_STREAMS}: use several processes"
        )
    return names


@dataclass(frozen=True, slots=True)
class Subscription:
    """What to read, and from which base addresses (ws:// or wss://, without a path), in order of preference."""

    pairs: tuple[Pair, ...]
    kinds: tuple[str, ...] = STREAMS
    addresses: tuple[str, ...] = ADDRESSES

    def __post_init__(self) -> None:
        stream_names(self.pairs, self.kinds)
        if not self.addresses:
            raise UsageError("--url names no address")
        for address in self.addresses:
            if not _is_base(address):
                raise UsageError(f"--url {address!r} is not a base address such as {ADDRESSES[0]}")

    @property
    def streams(self) -> tuple[str, ...]:
        """Such as btcusdt@trade."""
        return stream_names(self.pairs, self.kinds)


def _is_base(address: str) -> bool:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    bare = not (parts.query or parts.fragment or parts.path.strip("/"))
    return parts.scheme in ("ws", "wss") and bool(host) and port != 0 and bare


class RecentIds:
    """The message ids of the last ``seconds``, to find what comes twice; the caller has the clock."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ids: set[str] = set()
        self._order: deque[tuple[float, str]] = deque()

    def add(self, identifier: str, now: float) -> bool:
        """Whether the id is new."""
        while self._order and self._order[0][0] < now - self._seconds:
            self._ids.discard(self._order.popleft()[1])
        if identifier in self._ids:
            return False
        self._ids.add(identifier)
        self._order.append((now, identifier))
        return True


def subscribe_request(streams: Sequence[str], number: int) -> str:
    """The request for some streams; its reply carries ``number`` as id ("Subscribe to a stream")."""
    return json.dumps({"method": "SUBSCRIBE", "params": list(streams), "id": number})


def parse_frame(frame: str | bytes, pairs: Mapping[str, Pair], received_at: int) -> FeedMessage:
    """What a frame says: raw, or combined as ``{"stream": …, "data": …}``.

    ``pairs`` by symbol are those that were asked for; ``received_at`` is in microseconds, UTC. Raises
    BadFrame, with the reason and the beginning of the frame.
    """
    try:
        return _message(_object(frame), pairs, received_at)
    except BadFrame as error:
        raise BadFrame(error.reason, f"{error}: {frame[:_SHOWN]!r}") from error.__cause__


def _object(frame: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(frame, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadFrame("json", f"not JSON ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise BadFrame("json", "not a JSON object")
    data = found.get("data")
    return data if "stream" in found and isinstance(data, dict) else found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


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
        return f"code {error.get('code')}: {str(error.get('msg'))[:_SHOWN]}"
    return str(error)[:_SHOWN]


def _trade(payload: Mapping[str, Any], pair: Pair, received_at: int) -> Market:
    """trade_v2. The trade id counts the trades of a symbol: it is the sequence.

    ``m`` says that the buyer was the maker, so that the seller was the aggressor.
    """
    vendor = {"event_time": str(_microseconds(payload, "E", received_at))}
    # Frames recorded before June 2024 name the orders too.
    for field, name in (("b", "buyer_order_id"), ("a", "seller_order_id")):
        if field in payload:
            vendor[name] = str(_integer(payload, field))
    return Market("trades", f"{pair.symbol.lower()}@trade", trade_record(payload, pair, received_at, vendor))


def trade_record(
    payload: Mapping[str, Any], pair: Pair, received_at: int, vendor_data: Mapping[str, str]
) -> EventRecord:
    """trade_v2 of the fields ``t`` (id), ``T`` (time), ``p`` (price), ``q`` (quantity) and ``m`` of a frame.

    The same trade gives the same message id, whatever told of it. Raises BadFrame for a value that can't be.
    """
    number = _integer(payload, "t")
    if type(payload.get("m")) is not bool:
        raise BadFrame("value", "m is not true or false")
    return {
        "message_id": _message_id("trades", pair.symbol, number),
        "trade_id": str(number),
        **_instrument(pair),
        "timestamp": _datetime(_microseconds(payload, "T", received_at)),
        "price": _decimal(payload, "p"),
        "quantity": _decimal(payload, "q"),
        "side": "SELL" if payload["m"] else "BUY",
        "trade_conditions": [],
        "source_sequence": number,
        "ingestion_timestamp": _datetime(received_at),
        "platform_sequence": None,
        "vendor_data": dict(vendor_data),
    }


def _quote(payload: Mapping[str, Any], pair: Pair, received_at: int) -> Market:
    """quote_v2. The update id skips numbers, so it is no sequence: it goes to vendor_data.

    A book ticker has no time; the time of its receipt stands in, as vendor_data says.
    """
    number = _integer(payload, "u")
    values = [_decimal(payload, field) for field in ("b", "B", "a", "A")]
    received = _datetime(received_at)
    record = {
        "message_id": _message_id("quotes", pair.symbol, number, *values),
        "quote_id": str(number),
        **_instrument(pair),
        "timestamp": received,
        **dict(zip(("bid_price", "bid_quantity", "ask_price", "ask_quantity"), values, strict=True)),
        "source_sequence": None,
        "ingestion_timestamp": received,
        "platform_sequence": None,
        "vendor_data": {"update_id": str(number), "timestamp_is": "received"},
    }
    return Market("quotes", f"{pair.symbol.lower()}@bookTicker", record)


def _instrument(pair: Pair) -> EventRecord:
    return {"symbol": pair.symbol, "exchange": EXCHANGE, "asset_class": ASSET_CLASS, "currency": pair.quote}


def _message_id(*parts: object) -> str:
    """UUIDv5 of what identifies the event, so that a repeat has the same."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(map(str, parts))))


def _pair_of(payload: Mapping[str, Any], pairs: Mapping[str, Pair]) -> Pair:
    symbol = payload.get("s")
    if not isinstance(symbol, str) or symbol not in pairs:
        raise BadFrame("symbol", f"symbol {str(symbol)[:20]!r} was not asked for")
    return pairs[symbol]


def _integer(payload: Mapping[str, Any], field: str) -> int:
    value = payload.get(field)
    # A bool is an int to Python, and none to Binance.
    if type(value) is not int or not 0 <= value <= _MAX_LONG:
        raise BadFrame("value", f"{field} is not an integer of 0 to 2^63-1")
    return value


def _decimal(payload: Mapping[str, Any], field: str) -> Decimal:
    """A number, with every digit that was sent."""
    text = payload.get(field)
    if not isinstance(text, str) or not _NUMBER.fullmatch(text):
        raise BadFrame("value", f"{field} is not a number written as text")
    value = Decimal(text)
    rounded = (value.quantize(quantum, context=_EXACT) for quantum in _QUANTA if value < _LIMIT)
    exact = next((one for one in rounded if one == value), None)
    if exact is None:
        raise BadFrame("value", f"{field} has more than 20 digits before the point or 18 behind")
    return exact


def _microseconds(payload: Mapping[str, Any], field: str, received_at: int) -> int:
    """A time of Binance, in milliseconds or microseconds ("General WSS information"), in microseconds.

    One that validation would refuse is refused here, where one frame is lost and not the feed.
    """
    value = _integer(payload, field)
    value = value if value >= _FIRST_MICROSECONDS else value * 1_000
    if value > received_at + FUTURE_LIMIT:
        raise BadFrame("value", f"{field} is more than a day ahead of the clock")
    return value


def _datetime(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
