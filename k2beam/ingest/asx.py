"""ASX ticks of one vendor, line by line, as v2 records.

The files have no header line and no sequence numbers; the columns are::

    trades   date, time, price, volume, qualifiers, venue, buyer id    (the last three may be empty)
    quotes   date, time, bid, ask, bid volume, ask volume              (0 means that side is empty)
    company  company_id, symbol, company_name, ISIN, start_date, end_date    (with a header line)

Dates are month/day/year; times are local to Sydney and become UTC. A record's sequence is its
line number in its file, from 1. Everything here is pure: the same line gives the same record.
"""

from __future__ import annotations

import csv
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from k2beam.errors import DecodeError

EXCHANGE, CURRENCY, ASSET_CLASS = "ASX", "AUD", "equities"

Record = dict[str, Any]
"""A v2 record in Python values: Decimal, and datetime with UTC."""

_SYDNEY = ZoneInfo("Australia/Sydney")
_NAMESPACE = uuid.UUID("6a3d1f0e-5c0b-5d8e-9b1e-2f6f3a9d7c41")
_TIME_FORMATS = ("%m/%d/%Y %H:%M:%S.%f", "%m/%d/%Y %H:%M:%S")
_QUANTUM = Decimal("0.00000001")
_LIMIT = Decimal(10) ** 10
_TRADE_COLUMNS, _QUOTE_COLUMNS, _COMPANY_COLUMNS = 7, 6, 6


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a tick file: whose ticks they are, and where it is (``number`` from 1)."""

    file: str
    number: int
    symbol: str
    company_id: str
    text: str

    def columns(self, number: int) -> list[str]:
        """The columns, spaces around them removed. Raises DecodeError unless there are ``number``."""
        found = [column.strip() for column in next(csv.reader([self.text]), [])]
        if len(found) != number:
            raise self.error(f"{len(found)} columns where {number} belong")
        return found

    def error(self, problem: str) -> DecodeError:
        return DecodeError(f"{self.file}, line {self.number}: {problem}: {self.text.strip()!r}")

    @property
    def message_id(self) -> str:
        """UUIDv5 of file name and line number."""
        return str(uuid.uuid5(_NAMESPACE, f"{EXCHANGE}/{self.file}/{self.number}"))


def trade(line: Line) -> Record:
    """A line of a trades file as a trade_v2 record.

    Qualifiers other than 0 become the one trade condition; venue and buyer, where given, go to
    vendor_data with the company id. Raises DecodeError, naming file and line.
    """
    date, time, price, volume, qualifiers, venue, buyer = line.columns(_TRADE_COLUMNS)
    moment = _utc(line, date, time)
    vendor_data = {"company_id": line.company_id, "venue": venue, "buyer_id": buyer}
    return {
        **_identity(line, "trade_id", moment),
        "price": _decimal(line, "price", price),
        "quantity": _decimal(line, "volume", volume),
        "side": "UNKNOWN",
        "trade_conditions": [] if qualifiers in ("", "0") else [qualifiers],
        "vendor_data": {name: value for name, value in vendor_data.items() if value},
    }


def quote(line: Line) -> Record:
    """A line of a quotes file as a quote_v2 record; an empty side keeps its price and quantity of 0.

    Raises DecodeError, naming file and line.
    """
    date, time, bid, ask, bid_volume, ask_volume = line.columns(_QUOTE_COLUMNS)
    return {
        **_identity(line, "quote_id", _utc(line, date, time)),
        "bid_price": _decimal(line, "bid", bid),
        "bid_quantity": _decimal(line, "bid volume", bid_volume),
        "ask_price": _decimal(line, "ask", ask),
        "ask_quantity": _decimal(line, "ask volume", ask_volume),
        "vendor_data": {"company_id": line.company_id},
    }


def companies(file: str, lines: Iterable[str], ingested_at: datetime) -> Iterator[Record]:
    """The lines of a company file, header first, as reference_data_v2 records.

    Listing dates are midnight UTC. A company is active unless it was delisted by ``ingested_at``.
    Raises DecodeError, naming file and line.
    """
    for number, text in enumerate(lines, start=1):
        if number == 1:
            continue
        line = Line(file, number, "", "", text)
        company_id, symbol, name, isin, start, end = line.columns(_COMPANY_COLUMNS)
        delisted = _date(line, end) if end else None
        yield {
            "message_id": line.message_id,
            "company_id": company_id,
            "symbol": symbol,
            "exchange": EXCHANGE,
            "company_name": name,
            "isin": isin or None,
            "currency": CURRENCY,
            "listing_date": _date(line, start) if start else None,
            "delisting_date": delisted,
            "is_active": delisted is None or delisted > ingested_at,
            "asset_class": ASSET_CLASS,
            "ingestion_timestamp": ingested_at,
            "vendor_data": None,
        }


def _identity(line: Line, id_field: str, moment: datetime) -> Record:
    return {
        "message_id": line.message_id,
        id_field: f"{line.symbol}-{line.number}",
        "symbol": line.symbol,
        "exchange": EXCHANGE,
        "asset_class": ASSET_CLASS,
        "timestamp": moment,
        "currency": CURRENCY,
        "source_sequence": line.number,
        # The files do not say when a tick was received.
        "ingestion_timestamp": moment,
        "platform_sequence": None,
    }


def _decimal(line: Line, name: str, text: str) -> Decimal:
    """A number of decimal(18,8), with every digit that was written."""
    try:
        value = Decimal(text)
        exact = value.quantize(_QUANTUM)
    except InvalidOperation:
        raise line.error(f"{name} {text!r} is not a number of decimal(18,8)") from None
    if exact != value or not abs(exact) < _LIMIT:
        raise line.error(f"{name} {text!r} does not fit decimal(18,8)")
    return exact


def _utc(line: Line, date: str, time: str) -> datetime:
    """Sydney's local time as UTC. An hour that the clocks repeat in April is read as its first."""
    local = _parse(line, f"{date} {time}", _TIME_FORMATS).replace(tzinfo=_SYDNEY)
    moment = local.astimezone(UTC)
    if moment.astimezone(_SYDNEY).replace(tzinfo=None) != local.replace(tzinfo=None):
        raise line.error("a local time that Sydney's clocks left out")
    return moment


def _date(line: Line, date: str) -> datetime:
    return _parse(line, date, ("%m/%d/%Y",)).replace(tzinfo=UTC)


def _parse(line: Line, text: str, formats: tuple[str, ...]) -> datetime:
    for form in formats:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    raise line.error(f"{text!r} is not a time written as month/day/year hours:minutes:seconds")
