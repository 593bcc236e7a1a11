"""The lake from Python: ``Lake(warehouse="warehouse").trades(symbol="BTCUSDT").to_pandas()``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta

import pyarrow as pa
from pyiceberg.catalog import Catalog

from k2beam.config import NAMESPACE, LakeConfig
from k2beam.lake.catalog import open_catalog
from k2beam.lake.ledger import current_gaps
from k2beam.lake.tables import SPECS
from k2beam.model import Gap, Kind
from k2beam.query.asof import join_as_of
from k2beam.query.bar_rules import BarRule
from k2beam.query.bars import make_bars
from k2beam.query.events import select_events
from k2beam.query.selection import pin_snapshots
from k2beam.query.selections import AsOf, EventSelection, Names, Snapshots
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

    @classmethod
    def of(cls, config: LakeConfig) -> Lake:
        """The lake that a configuration names.

        Examples:
            >>> from k2beam import Lake, LakeConfig
            >>> Lake.of(LakeConfig(warehouse="warehouse")).namespace
            'market_data'
        """
        return cls(config.warehouse, config.catalog, config.namespace)

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
        selection = EventSelection(symbol, exchange, start, end, as_of)
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
        selection = EventSelection(symbol, exchange, start, end, as_of)
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
            selection,
            columns=columns,
            limit=limit,
            with_duplicates=with_duplicates,
        )

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
            EventSelection(symbol, exchange, start, end, as_of),
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
            EventSelection(symbol, exchange, start, end, as_of),
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
        return run_sql(self.catalog, self.namespace, sql, as_of)

    def snapshots(self, as_of: AsOf | None = None, tables: Iterable[str] = SPECS) -> Snapshots:
        """Which snapshot of each table is read as of a moment (None: now). It can be given as ``as_of`` itself.

        Examples:
            >>> from k2beam import Lake
            >>> lake = Lake("warehouse")
            >>> read = lake.snapshots(tables=["trades_v2"])
            >>> lake.trades("BTCUSDT", as_of=read).num_rows, list(read.ids)
            (595, ['trades_v2'])
        """
        return pin_snapshots(self.catalog, self.namespace, as_of, tables)

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
            as_of=as_of,
            with_duplicates=with_duplicates,
            completeness=completeness,
            strict=strict,
        )

    def gaps(self) -> list[Gap]:
        """The gaps in exchange sequences that are not filled, sorted; none where there is no ledger.

        Raises LakeError for an unreadable file.

        Examples:
            >>> from k2beam import Lake
            >>> gap, *others = Lake("warehouse").gaps()
            >>> gap.symbol, gap.first_missing, gap.last_missing, gap.severity
            ('BNBUSDT', 20787546, 20787567, 'LARGE')
            >>> len(others)
            19
        """
        return current_gaps(self.catalog, self.namespace)

    def _table(
        self, kind: Kind, selection: EventSelection, columns: Sequence[str], limit: int | None, with_duplicates: bool
    ) -> pa.Table:
        schema, batches = self.events(kind, selection, columns=columns, limit=limit, with_duplicates=with_duplicates)
        return pa.Table.from_batches(list(batches), schema)
