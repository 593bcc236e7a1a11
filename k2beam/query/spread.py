"""How far bid and ask were apart: of each symbol the number of quotes and the spread, also as its mean over time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog

from k2beam.model import DECIMAL
from k2beam.query import duck
from k2beam.query.events import answer, in_order, stored_events
from k2beam.query.exact import decimal_of
from k2beam.query.selections import EventSelection

_COLUMNS = ("exchange", "symbol", "timestamp", "bid_price", "ask_price")


@dataclass(frozen=True, slots=True)
class Spread:
    """The spread (ask - bid) of one symbol's quotes, Decimals with 18 places, rounded half to even.

    ``mean`` counts each quote once, ``time_weighted`` as long as it held, until the next quote of the symbol; it is
    None where no quote held for any time. ``crossed`` are the quotes with a bid above the ask.
    """

    exchange: str
    symbol: str
    quotes: int
    crossed: int
    min: Decimal
    mean: Decimal
    max: Decimal
    time_weighted: Decimal | None


def list_spreads(
    catalog: Catalog, namespace: str, selection: EventSelection, *, with_duplicates: bool = False
) -> list[Spread]:
    """The spreads of the selected quotes, by exchange and symbol. Raises UsageError and LakeError."""
    stored = stored_events(catalog, namespace, "quotes", selection, _COLUMNS)

    def ask(session: duck.Session) -> Iterator[pa.RecordBatch]:
        # The time that a quote held is a difference of microseconds; its product with a spread is summed exactly.
        return session.stream(f"""
            WITH quoted AS (
                SELECT exchange, symbol, ask_price - bid_price AS spread,
                       coalesce(epoch_us(lead(timestamp) OVER held) - epoch_us(timestamp), 0) AS micros
                FROM quotes WINDOW held AS (PARTITION BY exchange, symbol ORDER BY {in_order("quotes")})
            )
            SELECT exchange, symbol, count(*) AS quotes, count(*) FILTER (spread < 0) AS crossed, min(spread) AS min,
                   sum(spread) AS total, max(spread) AS max, sum(micros) AS micros,
                   sum(CAST(spread AS DECIMAL(38, 18)) * CAST(micros AS DECIMAL(18, 0))) AS weighted
            FROM quoted GROUP BY exchange, symbol ORDER BY exchange, symbol
        """)  # noqa: S608

    found = answer({"quotes": stored}, ask, with_duplicates)
    return [_spread(row) for batch in found for row in batch.to_pylist()]


def _spread(row: dict[str, Any]) -> Spread:
    return Spread(
        row["exchange"],
        row["symbol"],
        row["quotes"],
        row["crossed"],
        row["min"],
        _mean(row["total"], row["quotes"]),
        row["max"],
        _mean(row["weighted"], int(row["micros"])) if row["micros"] else None,
    )


def _mean(total: Decimal, number: int) -> Decimal:
    return decimal_of(round(Fraction(total) * 10**DECIMAL.scale / number))
