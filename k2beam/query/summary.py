"""Open, high, low, close, volume and VWAP of one symbol and day, from exact sums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import pyarrow as pa
from pyiceberg.catalog import Catalog

from k2beam.query import duck
from k2beam.query.bars import OPEN_TO_CLOSE, TRADE_COLUMNS
from k2beam.query.completeness import NUMBERS, Ledger, judge_spans, read_open_gaps
from k2beam.query.events import StoredEvents, answer, stored_events
from k2beam.query.exact import Amounts, pairs_of, sum_up
from k2beam.query.selections import AsOf, EventSelection
from k2beam.query.times import micros_of, next_day, to_instant


@dataclass(frozen=True, slots=True)
class DaySummary:
    """One symbol's trades of one day (UTC): prices, volume and VWAP as Decimals with 18 places.

    Prices are None where there was no trade, ``vwap`` also where the volume is 0. ``exchange`` None
    means all exchanges together. ``complete`` says whether all trades of the day are there, ``missing`` how many
    numbers of open gaps may be in it; None where it is not known, or was not asked.
    """

    symbol: str
    exchange: str | None
    day: date
    open: Decimal | None
    high: Decimal | None
    low: Decimal | None
    close: Decimal | None
    volume: Decimal
    trades: int
    vwap: Decimal | None
    complete: bool | None = None
    missing: int | None = None


def summarise_day(
    catalog: Catalog,
    namespace: str,
    symbol: str,
    day: date,
    *,
    exchange: str | None = None,
    as_of: AsOf | None = None,
    with_duplicates: bool = False,
    completeness: bool = False,
    strict: bool = False,
) -> DaySummary:
    """Summarise the trades of ``symbol`` on ``day`` (UTC).

    Open and close are the first and last trade by (timestamp, source_sequence, offset). VWAP is the
    exact sum of price x quantity over the exact volume, rounded once, half to even, to 18 places. A
    message counts once unless ``with_duplicates``. ``completeness`` tells whether all trades of the day are there.
    Raises UsageError and LakeError, and with ``strict`` IncompleteAnswer where they are not.
    """
    selection = EventSelection(symbol=symbol, exchange=exchange, start=day, end=next_day(day), as_of=as_of)
    ledger = None
    if completeness or strict:
        ledger = read_open_gaps(catalog, namespace, "trades", selection, strict=strict)
        selection = ledger.selection
    stored = stored_events(catalog, namespace, "trades", selection, TRADE_COLUMNS)
    return summarise_trades(symbol, exchange, day, stored, ledger, with_duplicates=with_duplicates)


def summarise_trades(
    symbol: str,
    exchange: str | None,
    day: date,
    stored: StoredEvents,
    ledger: Ledger | None = None,
    *,
    with_duplicates: bool = False,
) -> DaySummary:
    """As :func:`summarise_day`, of trades that were selected already."""

    def statement(amounts: Amounts) -> str:
        return f"""
            CREATE OR REPLACE TEMP TABLE day AS
            SELECT {OPEN_TO_CLOSE}, {amounts.sums}
            FROM {amounts.source("events")}
        """  # noqa: S608

    def ask(session: duck.Session) -> Iterator[pa.RecordBatch]:
        sum_up(session, statement)
        told = "NULL AS complete, NULL AS missing"
        if ledger is not None:
            begin, end = (micros_of(to_instant(when, "--day")) for when in (day, next_day(day)))
            session.run(f"""
                CREATE TEMP TABLE parts AS
                SELECT exchange, symbol, 0 AS _bar, {begin} AS _from, {end} - 1 AS _until, count(*) AS trades,
                       {NUMBERS}, epoch_us(min(timestamp)) AS first, epoch_us(max(timestamp)) AS last
                FROM events GROUP BY exchange, symbol
            """)  # noqa: S608
            judge_spans(session, "parts", "events", ledger)
            told = (
                "(SELECT CASE WHEN count(complete) = count(*) OR NOT bool_and(complete) THEN bool_and(complete) END "
                "FROM judged) AS complete, "
                "(SELECT sum(missing)::BIGINT FROM judged) AS missing"
            )
        return session.stream(f"SELECT *, {told} FROM day")  # noqa: S608

    (found,) = answer({"events": stored}, ask, with_duplicates)
    (row,), ((volume, vwap),) = found.to_pylist(), pairs_of(found)
    return DaySummary(
        symbol=symbol,
        exchange=exchange,
        day=day,
        volume=volume,
        vwap=vwap,
        **{name: row[name] for name in ("open", "high", "low", "close", "trades", "complete", "missing")},
    )
