"""The lake from Python: ``Lake(warehouse="warehouse").trades(symbol="BTCUSDT").to_pandas()``."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog

from k2beam.config import NAMESPACE, LakeConfig
from k2beam.errors import UsageError
from k2beam.lake.catalog import open_catalog
from k2beam.lake.scan import find_readable
from k2beam.lake.tables import SPECS
from k2beam.model import Gap, Kind
from k2beam.query.asof import join_as_of
from k2beam.query.bar_rules import BarRule
from k2beam.query.bars import make_bars
from k2beam.query.dead_letters import list_dead_letters
from k2beam.query.events import select_events
from k2beam.query.gaps import open_gaps
from k2beam.query.selection import pin_snapshots
from k2beam.query.selections import (
    DEAD_LETTER_COLUMNS,
    AsOf,
    DeadLetterSelection,
    EventSelection,
    Names,
    Snapshots,
)
from k2beam.query.slices import stream_events
from k2beam.query.sql import run_sql
from k2beam.query.summary import DaySummary, summarise_day
from k2beam.query.times import Instant, to_day


class Lake:
    """Reads the tables of one warehouse folder or one configured catalog; writes nothing.

    Raises UsageError where the warehouse is not there or the catalog is not configured. A table
    that was never made reads as an empty one.

    Examples:
        >>> from k2beam import Lake
        >>> lake = Lake(warehouse="warehouse")
        >>> lake.trades(symbol="BTCUSDT", exchange="BINANCE").num_rows
        595
    """

    def __init__(self, warehouse: str | None = None, catalog: str | None = None, namespace: str = NAMESPACE) -> None:
        self.namespace = namespace
        self.catalog: Catalog = open_catalog(LakeConfig(warehouse, catalog, namespace), create=False)
        self._moment: Snapshots | None = None

    @classmethod
    def of(cls, config: LakeConfig) -> Lake:
        """The lake that a configuration names.

        Examples:
            >>> from k2beam import Lake, LakeConfig
            >>> Lake.of(LakeConfig(warehouse="warehouse")).namespace
            'market_data'
        """
        return cls(config.warehouse, config.catalog, config.namespace)

    def at(self, as_of: AsOf | None = None) -> Lake:
        """The same lake as of one moment (None: now): all questions to it see the same rows, whatever is written.

        ``as_of`` is a time, a tag, or the id of a snapshot of any table: of the other tables it is the moment when that
        one was committed. Raises UsageError where there is no such snapshot any more.

        Examples:
            >>> from k2beam import Lake
            >>> lake = Lake("warehouse").at()
            >>> lake.trades("BTCUSDT").num_rows, lake.at("2020-01-01").trades("BTCUSDT").num_rows
            (595, 0)
        """
        found = copy.copy(self)
        found._moment = self.snapshots(as_of)
        return found

    def trades(
        self,
        symbol: Names = None,
        exchange: Names = None,
        start: Instant | None = None,
        end: Instant | None = None,
        limit: int | None = None,
        as_of: AsOf | None = None,
        with_duplicates: bool = False,
        columns: Sequence[str] = (),
    ) -> pa.Table:
        """Trades in order of (timestamp, source_sequence, offset), each message once: an Arrow table.

        Times are microseconds UTC, prices and quantities ``decimal(38,18)``. ``start`` is included, ``end`` is not;
        naive times are UTC. ``symbol`` and ``exchange`` are one name or several. ``as_of`` is a snapshot id or the
        moment to travel to. ``columns``: these, of all that there are. Raises UsageError for bad values, LakeError
        for an unreadable file.

        Examples:
            >>> from k2beam import Lake
            >>> lake = Lake("warehouse")
            >>> trades = lake.trades("BTCUSDT", start="2026-01-05T00:10", columns=["timestamp", "price"], limit=2)
            >>> trades["price"].to_pylist()
            [Decimal('93119.870000000000000000'), Decimal('93119.840000000000000000')]
            >>> trades["timestamp"][0].as_py().isoformat()
            '2026-01-05T00:10:00.630421+00:00'
        """
        selection = self._selection(symbol, exchange, start, end, as_of)
        return self._table("trades", selection, columns, limit, with_duplicates)

    def quotes(
        self,
        symbol: Names = None,
        exchange: Names = None,
        start: Instant | None = None,
        end: Instant | None = None,
        limit: int | None = None,
        as_of: AsOf | None = None,
        with_duplicates: bool = False,
        columns: Sequence[str] = (),
    ) -> pa.Table:
        """Quotes; everything as for :meth:`trades`.

        Examples:
            >>> from k2beam import Lake
            >>> Lake("warehouse").quotes("BTCUSDT", columns=["bid_price", "ask_price"], limit=1).to_pylist()
            [{'bid_price': Decimal('93120.470000000000000000'), 'ask_price': Decimal('93120.500000000000000000')}]
        """
        selection = self._selection(symbol, exchange, start, end, as_of)
        return self._table("quotes", selection, columns, limit, with_duplicates)

    def events(
        self,
        kind: Kind,
        selection: EventSelection,
        *,
        columns: Sequence[str] = (),
        limit: int | None = None,
        with_duplicates: bool = False,
    ) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The same rows as a stream of batches, for results that need not fit into memory.

        Raises as :meth:`trades` does.

        Examples:
            >>> from k2beam import EventSelection, Lake
            >>> selection = EventSelection(symbol="BTCUSDT")
            >>> schema, batches = Lake("warehouse").events("trades", selection, columns=["price"])
            >>> schema.names, sum(batch.num_rows for batch in batches)
            (['price'], 595)
        """
        return select_events(
            self.catalog,
            self.namespace,
            kind,
            replace(selection, as_of=self._as_of(selection.as_of)),
            columns=columns,
            limit=limit,
            with_duplicates=with_duplicates,
        )

    def batches(
        self,
        kind: Kind,
        symbol: Names = None,
        exchange: Names = None,
        start: Instant | None = None,
        end: Instant | None = None,
        columns: Sequence[str] = (),
        as_of: AsOf | None = None,
        with_duplicates: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """Events of any number of symbols in one order of time, as Arrow batches: what a backtest takes.

        The order and the rows are those of :meth:`trades`; memory does not grow with the selection, which is sorted a
        million rows at a time. Raises as :meth:`trades` does.

        Examples:
            >>> from k2beam import Lake
            >>> batches = Lake("warehouse").batches("trades", ["BTCUSDT", "ETHUSDT"], columns=["timestamp", "price"])
            >>> sum(batch.num_rows for batch in batches)
            1190
        """
        _, found = stream_events(
            self.catalog,
            self.namespace,
            kind,
            self._selection(symbol, exchange, start, end, as_of),
            columns=columns,
            with_duplicates=with_duplicates,
        )
        return found

    def bars(
        self,
        every: str,
        symbol: Names = None,
        exchange: Names = None,
        start: Instant | None = None,
        end: Instant | None = None,
        zone: str = "UTC",
        empty: bool = False,
        as_of: AsOf | None = None,
        with_duplicates: bool = False,
        completeness: bool = False,
        strict: bool = False,
    ) -> pa.Table:
        """Bars of trades by exchange, symbol and start: open, high, low, close, volume, trades and VWAP, exactly.

        ``every`` is a time that divides a day (``1s``, ``5m``, ``1h``, ``1d``, counted from midnight in ``zone``), a
        number of trades (``100 trades``) or a volume that fills a bar (``volume 2.5``). ``empty`` adds bars of time
        without a trade. ``completeness`` adds ``complete`` (null: not known) and ``missing``: how many numbers of open
        gaps may be in the bar. Raises as :meth:`trades` does, and with ``strict`` IncompleteAnswer where one may be.

        Examples:
            >>> from k2beam import Lake
            >>> bars = Lake("warehouse").bars("5m", "BTCUSDT", start="2026-01-05", end="2026-01-06")
            >>> bars.num_rows, bars["trades"].to_pylist()
            (5, [128, 121, 124, 120, 102])
            >>> bars = Lake("warehouse").bars("5m", "BTCUSDT", completeness=True)
            >>> bars["complete"].to_pylist(), bars["missing"].to_pylist()
            ([False, True, True, True, None], [10, 0, 0, 0, None])
        """
        schema, batches = make_bars(
            self.catalog,
            self.namespace,
            BarRule.parse(every, zone),
            self._selection(symbol, exchange, start, end, as_of),
            empty=empty,
            with_duplicates=with_duplicates,
            completeness=completeness,
            strict=strict,
        )
        return pa.Table.from_batches(list(batches), schema)

    def asof(
        self,
        symbol: Names = None,
        exchange: Names = None,
        start: Instant | None = None,
        end: Instant | None = None,
        tolerance: timedelta | None = None,
        as_of: AsOf | None = None,
        with_duplicates: bool = False,
        completeness: bool = False,
        strict: bool = False,
    ) -> pa.Table:
        """Each trade with the quote that held at its time, the spread and the mid.

        That is the last quote of its exchange and symbol at or before its time, no older than ``tolerance``; columns of
        the quote are null where none held. ``completeness`` adds whether a later quote may be missing. Raises as
        :meth:`trades` does, and with ``strict`` IncompleteAnswer where one may be.

        Examples:
            >>> from k2beam import Lake
            >>> rows = Lake("warehouse").asof("BTCUSDT")
            >>> rows.num_rows
            595
        """
        schema, batches = join_as_of(
            self.catalog,
            self.namespace,
            self._selection(symbol, exchange, start, end, as_of),
            tolerance=tolerance,
            with_duplicates=with_duplicates,
            completeness=completeness,
            strict=strict,
        )
        return pa.Table.from_batches(list(batches), schema)

    def sql(self, sql: str, as_of: AsOf | None = None) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The answer to one query in DuckDB's SQL: its Arrow schema, and the rows batch by batch.

        Relations are ``trades``, ``quotes`` and ``reference_data`` with each event once, and the tables with all their
        rows: ``trades_v2``, ``sequence_gaps`` and so on. Nothing can be written, and no file or host reached. Raises
        UsageError for SQL that can't be run, LakeError for an unreadable file.

        Examples:
            >>> from k2beam import Lake
            >>> schema, batches = Lake("warehouse").sql("SELECT count(*) AS n FROM trades WHERE price > 90000")
            >>> [row for batch in batches for row in batch.to_pylist()]
            [{'n': 595}]
        """
        return run_sql(self.catalog, self.namespace, sql, self._as_of(as_of))

    def snapshots(self, as_of: AsOf | None = None, tables: Iterable[str] = SPECS) -> Snapshots:
        """Which snapshot of each table is read as of a moment (None: now). It can be given as ``as_of`` itself.

        Examples:
            >>> from k2beam import Lake
            >>> lake = Lake("warehouse")
            >>> read = lake.snapshots(tables=["trades_v2"])
            >>> lake.trades("BTCUSDT", as_of=read).num_rows, list(read.ids)
            (595, ['trades_v2'])
        """
        return pin_snapshots(self.catalog, self.namespace, self._as_of(as_of), tables)

    def summary(
        self,
        symbol: str,
        day: date | str,
        exchange: str | None = None,
        as_of: AsOf | None = None,
        with_duplicates: bool = False,
        completeness: bool = False,
        strict: bool = False,
    ) -> DaySummary:
        """Open, high, low, close, volume and VWAP of a symbol's trades of one day (UTC).

        Prices, volume and VWAP are Decimals with 18 places. ``completeness`` tells whether all trades of the day are
        there. Raises UsageError and LakeError as :meth:`trades` does, and with ``strict`` IncompleteAnswer.

        Examples:
            >>> from k2beam import Lake
            >>> day = Lake("warehouse").summary("BTCUSDT", "2026-01-05")
            >>> day.trades, day.volume, day.vwap
            (595, Decimal('1491.061000000000000000'), Decimal('93120.094510868435295404'))
        """
        return summarise_day(
            self.catalog,
            self.namespace,
            symbol,
            to_day(day),
            exchange=exchange,
            as_of=self._as_of(as_of),
            with_duplicates=with_duplicates,
            completeness=completeness,
            strict=strict,
        )

    def gaps(self, symbol: Names = None, exchange: Names = None, kind: Kind | None = None) -> list[Gap]:
        """The gaps in exchange sequences that are not filled, sorted; none where there is no ledger.

        Raises UsageError for an empty list of names, LakeError for an unreadable file.

        Examples:
            >>> from k2beam import Lake
            >>> gap, *others = Lake("warehouse").gaps()
            >>> gap.symbol, gap.first_missing, gap.last_missing, gap.severity
            ('BNBUSDT', 20787546, 20787567, 'LARGE')
            >>> len(others)
            19
        """
        selection = self._selection(symbol, exchange, None, None, None)
        return open_gaps(self.catalog, self.namespace, kind, selection)

    def dead_letters(
        self,
        error_class: Names = None,
        stage: Names = None,
        source: Names = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """The messages that could not be used and are no events since, by source, partition and offset.

        Those of now, whatever moment the lake is of. Raises LakeError for an unreadable file.

        Examples:
            >>> from k2beam import Lake
            >>> letter = Lake("warehouse").dead_letters("negative_price")[0]
            >>> letter["stage"], letter["error_class"], letter["partition"]
            ('validate', 'negative_price', 2)
        """
        selection = DeadLetterSelection(error_class, stage, source, limit)
        rows = list_dead_letters(self.catalog, self.namespace, selection)
        return [dict(zip(DEAD_LETTER_COLUMNS, row, strict=True)) for row in rows]

    def path(self, table: str) -> str:
        """Where the metadata of a table is: what engines that read Iceberg without a catalog take.

        Raises UsageError for a table that there is not.

        Examples:
            >>> from k2beam import Lake
            >>> Lake("warehouse").path("trades_v2").endswith(".metadata.json")
            True
        """
        found = find_readable(self.catalog, self.namespace, table) if table in SPECS else None
        if found is None:
            raise UsageError(f"there is no table {table}; the tables are {', '.join(SPECS)}")
        return str(found.metadata_location)

    def _selection(
        self, symbol: Names, exchange: Names, start: Instant | None, end: Instant | None, as_of: AsOf | None
    ) -> EventSelection:
        return EventSelection(symbol, exchange, start, end, self._as_of(as_of))

    def _as_of(self, as_of: AsOf | None) -> AsOf | None:
        return self._moment if as_of is None else as_of

    def _table(
        self, kind: Kind, selection: EventSelection, columns: Sequence[str], limit: int | None, with_duplicates: bool
    ) -> pa.Table:
        schema, batches = self.events(kind, selection, columns=columns, limit=limit, with_duplicates=with_duplicates)
        return pa.Table.from_batches(list(batches), schema)
