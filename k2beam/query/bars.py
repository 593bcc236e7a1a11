"""Bars of trades: open, high, low, close, volume, trades and VWAP, exactly, by time, number of trades or volume."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, localcontext

import numpy as np
import pyarrow as pa
from pyiceberg.catalog import Catalog

from k2beam.errors import UsageError
from k2beam.model import DECIMAL, TIMESTAMP
from k2beam.query import duck
from k2beam.query.bar_rules import BarRule
from k2beam.query.completeness import COMPLETENESS, NUMBERS, Ledger, judge_spans, read_open_gaps
from k2beam.query.events import StoredEvents, answer, in_order, stored_events
from k2beam.query.exact import Amounts, sum_up, volume_and_vwap
from k2beam.query.selection import bounds_of_selection
from k2beam.query.selections import EventSelection

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

_ORDER = in_order("trades")
OPEN_TO_CLOSE = f"""
    first(price ORDER BY {_ORDER}) AS open, max(price) AS high, min(price) AS low,
    last(price ORDER BY {_ORDER}) AS close, count(*) AS trades
"""
"""SQL: what a bar says of its trades beside their sums."""

TRADE_COLUMNS = ("exchange", "symbol", "timestamp", "price", "quantity", "source_sequence")


def make_bars(
    catalog: Catalog,
    namespace: str,
    rule: BarRule,
    selection: EventSelection,
    *,
    empty: bool = False,
    with_duplicates: bool = False,
    completeness: bool = False,
    strict: bool = False,
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The bars of the selected trades, by exchange, symbol and start.

    Open and close are the first and last trade by (timestamp, source_sequence, offset). VWAP is the exact sum of price
    x quantity over the exact volume, rounded once, half to even, to 18 places. With ``empty`` bars of time without a
    trade are there too, between the ends of the selection, or else between the first and last bar of their symbol.
    ``completeness`` adds :data:`COMPLETENESS`. Raises UsageError and LakeError, and with ``strict`` IncompleteAnswer
    where a bar is not complete.
    """
    if empty and not rule.micros:
        raise UsageError("empty bars are those of a time: --every must be one, such as 1m")
    ledger = None
    if completeness or strict:
        ledger = read_open_gaps(catalog, namespace, "trades", selection, strict=strict)
        selection = ledger.selection
    stored = stored_events(catalog, namespace, "trades", selection, TRADE_COLUMNS)
    making = BarMaking(rule, selection, empty, ledger)
    return making.schema, bars_of(stored, making, with_duplicates=with_duplicates)


def bars_of(stored: StoredEvents, making: BarMaking, *, with_duplicates: bool = False) -> Iterator[pa.RecordBatch]:
    """As :func:`make_bars`, of trades that were selected already."""
    return answer({"events": stored}, making.ask, with_duplicates)


@dataclass(frozen=True, slots=True)
class BarMaking:
    """How the bars of a selection are made; with a ``ledger`` they say whether they are complete."""

    rule: BarRule
    selection: EventSelection
    empty: bool = False
    ledger: Ledger | None = None

    @property
    def schema(self) -> pa.Schema:
        """The columns of the bars."""
        return BAR_SCHEMA if self.ledger is None else pa.schema([*BAR_SCHEMA, *COMPLETENESS])

    def ask(self, session: duck.Session) -> Iterator[pa.RecordBatch]:
        """The bars of the relation ``events``, by exchange, symbol and start."""
        if self.rule.volume:
            self._place_by_volume(session)
        with session.function("bar_start", self._starts, "BIGINT", "BIGINT"):
            amounts = sum_up(session, self._statement)
        if self.empty:
            self._add_empty(session, amounts)
        made = "bars"
        if self.ledger is not None:
            with session.function("bar_end", self._ends, "BIGINT", "BIGINT"):
                judge_spans(session, self._spans(), "events", self.ledger)
            made = "judged"
        found = session.stream(f"SELECT *, {amounts.mean} FROM {made} ORDER BY exchange, symbol, _bar")  # noqa: S608
        return map(self._finished, found)

    def _spans(self) -> str:
        """SQL for the bars with the times that each is about, inclusive."""
        if not self.rule.micros:
            return "(SELECT *, first AS _from, last AS _until FROM bars)"
        return f"(SELECT *, _bar AS _from, {self._end()} - 1 AS _until FROM bars)"  # noqa: S608

    def _statement(self, amounts: Amounts) -> str:
        return f"""
            CREATE OR REPLACE TEMP TABLE bars AS
            SELECT exchange, symbol, _bar, epoch_us(min(timestamp)) AS first, epoch_us(max(timestamp)) AS last,
                   {OPEN_TO_CLOSE}, {amounts.sums}{self._numbers()}
            FROM {amounts.source(f"(SELECT *, {self._bar()} AS _bar FROM {self._placed()})")}
            GROUP BY exchange, symbol, _bar
        """  # noqa: S608

    def _numbers(self) -> str:
        return "" if self.ledger is None else f", {NUMBERS}"

    def _placed(self) -> str:
        return "(SELECT * FROM ordered JOIN numbers USING (_row))" if self.rule.volume else "events"

    def _bar(self) -> str:
        """SQL for the number of a trade's bar; of a bar of time it is its start."""
        if self.rule.volume:
            return "_filled"
        if self.rule.trades:
            row = f"row_number() OVER (PARTITION BY exchange, symbol ORDER BY {in_order('trades')})"
            return f"({row} - 1) // {self.rule.trades}"
        time, micros = "epoch_us(timestamp)", self.rule.micros
        if self.rule.zone == "UTC":
            # The remainder of a time before 1970 is negative.
            return f"{time} - ({time} % {micros} + {micros}) % {micros}"
        return f"bar_start({time})"

    def _end(self) -> str:
        return f"(_bar + {self.rule.micros})" if self.rule.zone == "UTC" else "bar_end(_bar)"

    def _ends(self, starts: pa.ChunkedArray) -> pa.ChunkedArray:
        return pa.chunked_array([pa.array(self.rule.ends(chunk.to_numpy())) for chunk in starts.chunks], pa.int64())

    def _starts(self, times: pa.ChunkedArray) -> pa.ChunkedArray:
        return pa.chunked_array([pa.array(self.rule.starts(chunk.to_numpy())) for chunk in times.chunks], pa.int64())

    def _place_by_volume(self, session: duck.Session) -> None:
        """Number the bars of the trades in their order: a bar is full once it reaches the volume."""
        order = f"exchange, symbol, {in_order('trades')}"
        session.run(
            f"CREATE TEMP TABLE ordered AS SELECT *, row_number() OVER (ORDER BY {order}) AS _row FROM events"  # noqa: S608
        )
        named = session.stream("SELECT exchange, symbol, quantity FROM ordered ORDER BY _row")
        numbers = np.fromiter(self._by_volume(named), np.int64)
        rows = np.arange(1, len(numbers) + 1)
        session.register_table("numbers", pa.table({"_row": rows, "_filled": numbers}))

    def _by_volume(self, ordered: Iterable[pa.RecordBatch]) -> Iterator[int]:
        key, number, volume = None, 0, Decimal(0)
        with localcontext(prec=2 * DECIMAL.precision):
            for rows in ordered:
                for exchange, symbol, quantity in zip(*(column.to_pylist() for column in rows.columns), strict=True):
                    if (exchange, symbol) != key or volume >= self.rule.volume:
                        number = number + 1 if (exchange, symbol) == key else 0
                        key, volume = (exchange, symbol), Decimal(0)
                    volume += quantity
                    yield number

    def _add_empty(self, session: duck.Session, amounts: Amounts) -> None:
        """Add bars without a trade, of each symbol that has one with."""
        (ends,) = session.rows("SELECT min(_bar) AS low, max(_bar) AS high FROM bars")
        if ends["low"] is None:
            return
        low, high = self._bounds(ends["low"], ends["high"])
        starts = pa.table({"_bar": pa.array(self.rule.between(low, high), pa.int64())})
        session.register_table("_starts", starts)
        numbered = "" if self.ledger is None else ", 0 AS numbered"
        session.run(
            f"""
            INSERT INTO bars BY NAME
            WITH spans AS (
                SELECT exchange, symbol, coalesce($low, min(_bar)) AS low, coalesce($high, max(_bar)) AS high
                FROM bars GROUP BY exchange, symbol
            )
            SELECT exchange, symbol, _starts._bar, 0 AS trades, {amounts.nothing}{numbered}
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
        start, end = bounds_of_selection(self.selection)
        ends = low if start is None else start, high if end is None else end - 1
        first, last = self.rule.starts(np.array(ends)).tolist()
        return first, last

    def _finished(self, found: pa.RecordBatch) -> pa.RecordBatch:
        """Bars as they are given."""
        volume, vwap = volume_and_vwap(found)
        if self.rule.micros:
            starts = found.column("_bar").to_numpy()
            ends = self.rule.ends(starts)
        else:
            starts, ends = (found.column(name).to_numpy() for name in ("first", "last"))
        columns = {
            **{name: found.column(name) for name in self.schema.names if name in found.schema.names},
            "start": pa.array(starts, TIMESTAMP),
            "end": pa.array(ends, TIMESTAMP),
            "volume": volume,
            "vwap": vwap,
        }
        return pa.RecordBatch.from_pydict(columns, schema=self.schema)
