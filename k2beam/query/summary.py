"""Open, high, low, close, volume and VWAP of one symbol and day, from exact sums."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal
from fractions import Fraction

import pyarrow as pa
from pyiceberg.catalog import Catalog

from k2beam.query import duck
from k2beam.query.events import columns_needed, first_copies, in_order, stream_events
from k2beam.query.selections import AsOf, EventSelection
from k2beam.query.times import next_day

_SCALE = 8
_WIDE = Context(prec=100)
_SPLIT = 10**9


@dataclass(frozen=True, slots=True)
class DaySummary:
    """One symbol's trades of one day (UTC): prices, volume and VWAP as Decimals with 8 places.

    Prices are None where there was no trade, ``vwap`` also where the volume is 0. ``exchange`` None
    means all exchanges together.
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


def summarise_day(
    catalog: Catalog,
    namespace: str,
    symbol: str,
    day: date,
    *,
    exchange: str | None = None,
    as_of: AsOf | None = None,
    with_duplicates: bool = False,
) -> DaySummary:
    """Summarise the trades of ``symbol`` on ``day`` (UTC).

    Open and close are the first and last trade by (timestamp, source_sequence, offset). VWAP is the
    exact sum of price x quantity over the exact volume, rounded once, half to even, to 8 places. A
    message counts once unless ``with_duplicates``. Raises UsageError and LakeError.
    """
    selection = EventSelection(symbol=symbol, exchange=exchange, start=day, end=next_day(day), as_of=as_of)
    columns = columns_needed("trades", ["price", "quantity"])
    schema, batches = stream_events(catalog, namespace, "trades", selection, columns)
    return summarise_trades(symbol, exchange, day, schema, batches, with_duplicates=with_duplicates)


def summarise_trades(
    symbol: str,
    exchange: str | None,
    day: date,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    *,
    with_duplicates: bool = False,
) -> DaySummary:
    """As :func:`summarise_day`, of trades that were selected already and come in any order."""
    (row,) = duck.rows(_sql(with_duplicates), {}, schema, batches)
    volume = int(row["volume"])
    notional = int(row["notional_high"]) * _SPLIT + int(row["notional_low"])
    return DaySummary(
        symbol=symbol,
        exchange=exchange,
        day=day,
        open=row["open"],
        high=row["high"],
        low=row["low"],
        close=row["close"],
        volume=_decimal(volume),
        trades=int(row["trades"]),
        vwap=_decimal(round(Fraction(notional, volume))) if volume else None,
    )


def _sql(with_duplicates: bool) -> str:
    """Sums of unscaled integers: an 8-place product has 36 digits, more than any decimal sum could hold.

    Quantities are split at 10^9, so that each HUGEINT sum has room for more rows than exist.
    """
    order = in_order("trades")
    return f"""
        WITH trades AS ({"SELECT * FROM events" if with_duplicates else first_copies("trades")}),
        unscaled AS (
            SELECT *, CAST(CAST(price AS DECIMAL(38, 8)) * 100000000 AS HUGEINT) AS p,
                      CAST(CAST(quantity AS DECIMAL(38, 8)) * 100000000 AS HUGEINT) AS q
            FROM trades
        )
        SELECT first(price ORDER BY {order}) AS open, max(price) AS high, min(price) AS low,
               last(price ORDER BY {order}) AS close, count(*) AS trades,
               CAST(coalesce(sum(q), 0) AS VARCHAR) AS volume,
               CAST(coalesce(sum(p * (q // {_SPLIT})), 0) AS VARCHAR) AS notional_high,
               CAST(coalesce(sum(p * (q % {_SPLIT})), 0) AS VARCHAR) AS notional_low
        FROM unscaled
    """  # noqa: S608


def _decimal(unscaled: int) -> Decimal:
    return Decimal(unscaled).scaleb(-_SCALE, context=_WIDE)
