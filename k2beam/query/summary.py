"""Open, high, low, close, volume and VWAP of one symbol and day, from exact sums."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal
from fractions import Fraction

import pyarrow as pa
from pyiceberg.catalog import Catalog

from k2beam.model import DECIMAL
from k2beam.query import duck
from k2beam.query.events import columns_needed, first_copies, in_order, stream_events
from k2beam.query.selections import AsOf, EventSelection
from k2beam.query.times import next_day

_SCALE = DECIMAL.scale
_WIDE = Context(prec=200)
_PARTS = range(3)
_PART = 10**13
"""Three parts of thirteen digits are a column's value: products of two parts, and sums of them, fit into a HUGEINT."""


@dataclass(frozen=True, slots=True)
class DaySummary:
    """One symbol's trades of one day (UTC): prices, volume and VWAP as Decimals with 18 places.

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
    exact sum of price x quantity over the exact volume, rounded once, half to even, to 18 places. A
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
    volume = sum(int(row[f"volume_{j}"]) * _PART**j for j in _PARTS)
    notional = sum(int(row[f"notional_{i}_{j}"]) * _PART ** (i + j) for i in _PARTS for j in _PARTS)
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
    """Sums of unscaled integers in parts: a product has 76 digits, more than any number of a database could hold."""
    order = in_order("trades")
    parts = ", ".join(f"{name} // {_PART**i} % {_PART} AS {name}_{i}" for name in "pq" for i in _PARTS)
    volumes = ", ".join(f"CAST(coalesce(sum(q_{j}), 0) AS VARCHAR) AS volume_{j}" for j in _PARTS)
    notionals = ", ".join(
        f"CAST(coalesce(sum(p_{i} * q_{j}), 0) AS VARCHAR) AS notional_{i}_{j}" for i in _PARTS for j in _PARTS
    )
    return f"""
        WITH trades AS ({"SELECT * FROM events" if with_duplicates else first_copies("trades")}),
        unscaled AS (SELECT *, {_unscaled("price")} AS p, {_unscaled("quantity")} AS q FROM trades),
        parted AS (SELECT *, {parts} FROM unscaled)
        SELECT first(price ORDER BY {order}) AS open, max(price) AS high, min(price) AS low,
               last(price ORDER BY {order}) AS close, count(*) AS trades, {volumes}, {notionals}
        FROM parted
    """  # noqa: S608


def _unscaled(column: str) -> str:
    """Its text without the point, since a product with 10^18 would have no room."""
    return f"CAST(replace(CAST(CAST({column} AS DECIMAL(38, {_SCALE})) AS VARCHAR), '.', '') AS HUGEINT)"


def _decimal(unscaled: int) -> Decimal:
    return Decimal(unscaled).scaleb(-_SCALE, context=_WIDE)
