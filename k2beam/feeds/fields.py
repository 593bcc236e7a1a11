"""Fields of JSON frames as the values of records, for every feed; what does not fit is a BadFrame."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any, NoReturn
from urllib.parse import urlsplit

from k2beam.errors import BadFrame, UsageError
from k2beam.model import DECIMAL
from k2beam.validation import FUTURE_LIMIT

SHOWN = 200
"""So many characters of a frame, or of an exchange's words, are shown."""

_NUMBER = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?", re.ASCII)
_PAIR = re.compile(r"([A-Za-z0-9.]{1,20})[/-]([A-Za-z0-9.]{1,20})", re.ASCII)
_JSON_NUMBER = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
_QUANTA = (Decimal("0.00000001"), Decimal(1).scaleb(-DECIMAL.scale))
"""Eight places, as exchanges send nearly all numbers, or as many as a column has; they are part of message ids."""

_LIMIT = Decimal(10) ** (DECIMAL.precision - DECIMAL.scale)
_EXACT = Context(prec=2 * DECIMAL.precision)
_EPOCH = datetime.fromtimestamp(0, UTC)
_MAX_LONG = 2**63 - 1


class JsonNumber(str):
    """A number of JSON with a point or an exponent, as it was written: no digit is lost to a float."""

    __slots__ = ()


@contextmanager
def shown(frame: str | bytes) -> Iterator[None]:
    """A BadFrame that is raised within shows the beginning of the frame."""
    try:
        yield
    except BadFrame as error:
        raise show(error, frame) from error.__cause__


def show(error: BadFrame, frame: str | bytes) -> BadFrame:
    """The error with the beginning of the frame."""
    return BadFrame(error.reason, f"{error}: {frame[:SHOWN]!r}")


def json_object(frame: str | bytes) -> dict[str, Any]:
    """A frame that is a JSON object; numbers with a point are :class:`JsonNumber`. Raises BadFrame."""
    try:
        found = json.loads(frame, parse_constant=_no_constant, parse_float=JsonNumber)
    except (ValueError, RecursionError) as error:
        raise BadFrame("json", f"not JSON ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise BadFrame("json", "not a JSON object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def known(payload: Mapping[str, Any], field: str, symbols: Mapping[str, Any]) -> str:
    """The symbol that a field names. Raises BadFrame for one that was not asked for."""
    symbol = payload.get(field)
    if not isinstance(symbol, str) or symbol not in symbols:
        raise BadFrame("symbol", f"symbol {str(symbol)[:20]!r} was not asked for")
    return symbol


def integer(payload: Mapping[str, Any], field: str) -> int:
    """An integer of 0 to 2^63-1. Raises BadFrame."""
    value = payload.get(field)
    # A bool is an int to Python, and none to an exchange.
    if type(value) is not int or not 0 <= value <= _MAX_LONG:
        raise BadFrame("value", f"{field} is not an integer of 0 to 2^63-1")
    return value


def decimal_text(payload: Mapping[str, Any], field: str) -> Decimal:
    """A number that is written as text, with every digit that was sent. Raises BadFrame."""
    text = payload.get(field)
    if not isinstance(text, str) or isinstance(text, JsonNumber) or not _NUMBER.fullmatch(text):
        raise BadFrame("value", f"{field} is not a number written as text")
    return _exact(Decimal(text), field)


def decimal_number(payload: Mapping[str, Any], field: str) -> Decimal:
    """A number of JSON, with every digit that was sent. Raises BadFrame."""
    value = payload.get(field)
    text = str(value) if type(value) in (int, JsonNumber) else ""
    if not _JSON_NUMBER.fullmatch(text):
        raise BadFrame("value", f"{field} is not a number from 0")
    return _exact(Decimal(text), field)


def _exact(value: Decimal, field: str) -> Decimal:
    rounded = (value.quantize(quantum, context=_EXACT) for quantum in _QUANTA if value < _LIMIT)
    exact = next((one for one in rounded if one == value), None)
    if exact is None:
        raise BadFrame("value", f"{field} has more than 20 digits before the point or 18 behind")
    return exact


def iso_time(payload: Mapping[str, Any], field: str, received_at: int) -> int:
    """A time of RFC 3339 with its offset, in microseconds. Raises BadFrame."""
    text = payload.get(field)
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise BadFrame("value", f"{field} is not a time with a zone, such as 2026-01-05T00:00:00.123456Z")
    return not_ahead((found - _EPOCH) // timedelta(microseconds=1), field, received_at)


def not_ahead(micros: int, field: str, received_at: int) -> int:
    """The time itself. One that validation would refuse is refused here, where one frame is lost and not the feed."""
    if not 0 <= micros <= received_at + FUTURE_LIMIT:
        raise BadFrame("value", f"{field} is before 1970 or more than a day ahead of the clock")
    return micros


def utc(microseconds: int) -> datetime:
    """The moment as records have it."""
    return _EPOCH + timedelta(microseconds=microseconds)


def message_id(namespace: uuid.UUID, *parts: object) -> str:
    """UUIDv5 of what identifies the event, so that a repeat has the same."""
    return str(uuid.uuid5(namespace, "/".join(map(str, parts))))


def comma_parts(text: str) -> list[str]:
    """What stands between the commas of an option, without spaces and without what is empty."""
    return [part.strip() for part in text.split(",") if part.strip()]


def listed(text: str, option: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """The names of a list with commas, repeated ones once. Raises UsageError for one that is not allowed."""
    names = tuple(dict.fromkeys(comma_parts(text)))
    if not names or not set(names) <= set(allowed):
        raise UsageError(f"{option} takes {','.join(allowed)} or one of them, not {text!r}")
    return names


def check_addresses(addresses: Iterable[str], *, path: bool) -> None:
    """Raises UsageError for no address and for one that is no ws:// or wss://, or has a ``path`` where it must not."""
    found = tuple(addresses)
    if not found:
        raise UsageError("--url names no address")
    for address in found:
        if not _is_address(address, path):
            form = "such as wss://example.com" + ("/path" if path else ", without a path")
            raise UsageError(f"--url {address!r} is no websocket address {form}")


def _is_address(address: str, path: bool) -> bool:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    bare = not parts.fragment and (path or not (parts.query or parts.path.strip("/")))
    return parts.scheme in ("ws", "wss") and bool(host) and port != 0 and bare


@dataclass(frozen=True, slots=True)
class Instrument:
    """A symbol as an exchange names it: an amount of something that is priced in ``currency``."""

    symbol: str
    currency: str


def parse_instruments(text: str, separator: str) -> tuple[Instrument, ...]:
    """The instruments of ``btc/usd,ETH-EUR``, repeated ones once; the exchange writes ``separator`` between the two.

    What is all in lower case is written in upper case. Raises UsageError for what is no pair.
    """
    found = tuple(dict.fromkeys(_instrument(part, separator) for part in comma_parts(text)))
    if not found:
        raise UsageError("--symbols names none: write it as btc/usd,eth/usd")
    return found


def _instrument(text: str, separator: str) -> Instrument:
    found = _PAIR.fullmatch(text.upper() if text.islower() else text)
    if found is None:
        raise UsageError(f"--symbols: {text!r} is not a pair such as btc/usd")
    return Instrument(f"{found[1]}{separator}{found[2]}", found[2])


def stream_of(symbol: str, channel: str) -> str:
    """The name of what a channel says of a symbol, such as ``BTC-USD@matches``."""
    return f"{symbol}@{channel}"
