"""Bars of trades: open, high, low, close, volume, trades and VWAP, exactly, by time, number of trades or volume."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa
from pyiceberg.catalog import Catalog

from k2beam.errors import LakeError, UnreadableFile, UsageError
from k2beam.model import DECIMAL, TIMESTAMP
from k2beam.query import duck
from k2beam.query.bar_rules import BarRule
from k2beam.query.events import Change, Prepared, StoredEvents, answer, in_order, stored_events
from k2beam.query.exact import PLACES, Amounts
from k2beam.query.selections import EventSelection
from k2beam.query.times import micros_of, to_instant

BAR_SCHEMA = pa.schema(
    [
        pa.field("exchange", pa.string(), nullable=False),
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("start", TIMESTAMP, nullable=False),
        pa.field("end", TIMESTAMP, nullable=False),
        pa.field("open", DECIMAL),
        pa.field("high", DECIMAL),
        pa.field("low", DECIMAL),
        pa.field("close", DECIMAL),
        pa.field("volume", DECIMAL, nullable=False),
        pa.field("trades", pa.int64(), nullable=False),
        pa.field("vwap", DECIMAL),
    ]
)
"""A bar: times in UTC, prices as quoted. ``end`` is the first moment after a bar of time, and else the last trade's."""

TRADE_COLUMNS = ("exchange", "symbol", "timestamp", "price", "quantity", "source_sequence")


def make_bars(
    catalog: Catalog,
    namespace: str,
    rule: BarRule,
    selection: EventSelection,
    *,
    empty: bool = False,
    with_duplicates: bool = False,
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The bars of the selected trades, by exchange, symbol and start.

    Open and close are the first and last trade by (timestamp, source_sequence, offset). VWAP is the exact sum of price
    x quantity over the exact volume, rounded once, half to even, to 18 places. With ``empty`` bars of time without a
    trade are there too, between the ends of the selection, or else between the first and last bar of their symbol.
    Raises UsageError and LakeError.
    """
    if empty and not rule.micros:
        raise UsageError("empty bars are those of a time: --every must be one, such as 1m")
    stored = stored_events(catalog, namespace, "trades", selection, TRADE_COLUMNS)
    return BAR_SCHEMA, bars_of(stored, rule, selection, empty, with_duplicates=with_duplicates)


def bars_of(
    stored: StoredEvents, rule: BarRule, selection: EventSelection, empty: bool, *, with_duplicates: bool
) -> Iterator[pa.RecordBatch]:
    """As :func:`make_bars`, of trades that were selected already."""
    making = _Making(rule, selection, empty)
    schema = pa.schema([*stored.schema, pa.field("_bar", pa.int64())])
    found = answer_exactly(stored, making.ask, with_duplicates, (schema, making.placed))
    return (making.finished(batch, amounts) for batch, amounts in found)


def answer_exactly(
    stored: StoredEvents,
    ask: Callable[[duck.Session, Amounts], Iterator[pa.RecordBatch]],
    with_duplicates: bool,
    prepared: Prepared | None = None,
) -> Iterator[tuple[pa.RecordBatch, Amounts]]:
    """As :func:`answer` of the relation ``events``, with prices and quantities as ``ask`` can sum them exactly."""
    schema, change = prepared or (stored.schema, None)
    for amounts in (Amounts(units=True), Amounts(units=False)):
        summed = partial(_summed, amounts, change)
        found = answer(
            {"events": stored},
            partial(_asked, ask, amounts),
            with_duplicates,
            {"events": (amounts.schema(schema), summed)},
        )
        try:
            first = next(found, None)
        except LakeError as error:
            if isinstance(error, UnreadableFile) or not amounts.units:
                raise
            continue  # a sum of units may be larger than 128 bits
        if amounts.fits:
            yield from ((batch, amounts) for batch in chain(() if first is None else (first,), found))
            return


@dataclass(frozen=True, slots=True)
class _Making:
    rule: BarRule
    selection: EventSelection
    empty: bool

    def placed(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with the start of the bar of time that each is in."""
        times = rows.column("timestamp").cast(pa.timestamp("us", "UTC")).view(pa.int64()).to_numpy()
        starts = self.rule.starts(times) if self.rule.micros else np.zeros(len(times), np.int64)
        return rows.append_column(pa.field("_bar", pa.int64()), pa.array(starts))

    def ask(self, session: duck.Session, amounts: Amounts) -> Iterator[pa.RecordBatch]:
        """The bars as they are summed, by exchange, symbol and start."""
        if not self.rule.volume:
            yield from self._summed(session, amounts)
            return
        ordered = session.reader(f"SELECT * FROM events ORDER BY exchange, symbol, {in_order('trades')}")  # noqa: S608
        with duck.session() as second:
            second.register("events", ordered.schema, self._by_volume(ordered, units=amounts.units))
            yield from self._summed(second, amounts)

    def _summed(self, session: duck.Session, amounts: Amounts) -> Iterator[pa.RecordBatch]:
        order, events = in_order("trades"), "events"
        if self.rule.trades:
            number = f"row_number() OVER (PARTITION BY exchange, symbol ORDER BY {order}) - 1"
            events = f"(SELECT * REPLACE (({number}) // {self.rule.trades} AS _bar) FROM events)"  # noqa: S608
        session.run(f"""
            CREATE TEMP TABLE bars AS
            SELECT exchange, symbol, _bar, epoch_us(min(timestamp)) AS first, epoch_us(max(timestamp)) AS last,
                   first(price ORDER BY {order}) AS open, max(price) AS high, min(price) AS low,
                   last(price ORDER BY {order}) AS close, count(*) AS trades, {amounts.sums}
            FROM {amounts.source(events)} GROUP BY exchange, symbol, _bar
        """)  # noqa: S608
        if self.empty:
            self._add_empty(session, amounts)
        return session.stream(f"SELECT *, {amounts.mean} FROM bars ORDER BY exchange, symbol, _bar")  # noqa: S608

    def _add_empty(self, session: duck.Session, amounts: Amounts) -> None:
        """Add bars without a trade, of each symbol that has one with."""
        (ends,) = session.rows("SELECT min(_bar) AS low, max(_bar) AS high FROM bars")
        if ends["low"] is None:
            return
        low, high = self._bounds(ends["low"], ends["high"])
        starts = pa.table({"_bar": pa.array(self.rule.between(low, high), pa.int64())})
        session.register("_starts", starts.schema, starts.to_batches())
        session.run(
            f"""
            INSERT INTO bars BY NAME
            WITH spans AS (
                SELECT exchange, symbol, coalesce($low, min(_bar)) AS low, coalesce($high, max(_bar)) AS high
                FROM bars GROUP BY exchange, symbol
            )
            SELECT exchange, symbol, _starts._bar, 0 AS trades, {amounts.nothing}
            FROM _starts JOIN spans ON _starts._bar BETWEEN low AND high
            ANTI JOIN bars USING (exchange, symbol, _bar)
            """,  # noqa: S608
            {
                "low": None if self.selection.start is None else low,
                "high": None if self.selection.end is None else high,
            },
        )

    def _bounds(self, low: int, high: int) -> tuple[int, int]:
        """The first and last start of a bar: of the selection where it has ends, else as given."""
        start, end = self.selection.start, self.selection.end
        if start is not None:
            low = micros_of(to_instant(start, "--from"))
        if end is not None:
            high = micros_of(to_instant(end, "--to")) - 1
        first, last = self.rule.starts(np.array([low, high])).tolist()
        return first, last

    def _by_volume(self, ordered: pa.RecordBatchReader, *, units: bool) -> Iterator[pa.RecordBatch]:
        """Ordered rows with the number of the bar of each: a bar is full once it reaches the volume."""
        full: Any = ceil(self.rule.volume * 10**PLACES) if units else self.rule.volume
        key, number, volume = None, 0, 0
        for rows in ordered:
            numbers = []
            named = zip(*(rows.column(name).to_pylist() for name in ("exchange", "symbol")), strict=True)
            quantities = rows.column("_q" if units else "quantity").to_pylist()
            for here, quantity in zip(named, quantities, strict=True):
                if here != key or volume >= full:
                    key, number, volume = here, (number + 1 if here == key else 0), 0
                volume += quantity
                numbers.append(number)
            yield rows.set_column(rows.schema.get_field_index("_bar"), "_bar", pa.array(numbers, pa.int64()))

    def finished(self, found: pa.RecordBatch, amounts: Amounts) -> pa.RecordBatch:
        """Bars as they are given."""
        volume, vwap = amounts.columns(found)
        if self.rule.micros:
            starts = found.column("_bar").to_numpy()
            ends = self.rule.ends(starts)
        else:
            starts, ends = (found.column(name).to_numpy() for name in ("first", "last"))
        columns = {
            **{name: found.column(name) for name in BAR_SCHEMA.names if name in found.schema.names},
            "start": pa.array(starts, TIMESTAMP),
            "end": pa.array(ends, TIMESTAMP),
            "volume": volume,
            "vwap": vwap,
        }
        return pa.RecordBatch.from_pydict(columns, schema=BAR_SCHEMA)


def _summed(amounts: Amounts, change: Change | None, rows: pa.RecordBatch) -> pa.RecordBatch:
    return amounts.added(rows if change is None else change(rows))


def _asked(
    ask: Callable[[duck.Session, Amounts], Iterator[pa.RecordBatch]], amounts: Amounts, session: duck.Session
) -> Iterator[pa.RecordBatch]:
    return ask(session, amounts)
