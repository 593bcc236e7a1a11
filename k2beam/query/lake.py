"""The lake from Python: ``Lake(warehouse="warehouse").trades(symbol="BTCUSDT").to_pandas()``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

import pyarrow as pa
from pyiceberg.catalog import Catalog

from k2beam.config import NAMESPACE, LakeConfig
from k2beam.lake.catalog import open_catalog
from k2beam.lake.ledger import current_gaps
from k2beam.model import Gap, Kind
from k2beam.query.events import select_events
from k2beam.query.selections import AsOf, EventSelection
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
        symbol: str | None = None,
        exchange: str | None = None,
        start: Instant | None = None,
        end: Instant | None = None,
        limit: int | None = None,
        as_of: AsOf | None = None,
        with_duplicates: bool = False,
        columns: Sequence[str] = (),
    ) -> pa.Table:
        """Trades in order of (timestamp, source_sequence, offset), each message once: an Arrow table.

        Times are microseconds UTC, prices and quantities ``decimal(38,18)``. ``start`` is included, ``end`` is not;
        naive times are UTC. ``as_of`` is a snapshot id or the moment to travel to. ``columns``: these, of all that
        there are. Raises UsageError for bad values, LakeError for an unreadable file.

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
        symbol: str | None = None,
        exchange: str | None = None,
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

    def summary(
        self,
        symbol: str,
        day: date | str,
        exchange: str | None = None,
        as_of: AsOf | None = None,
        with_duplicates: bool = False,
    ) -> DaySummary:
        """Open, high, low, close, volume and VWAP of a symbol's trades of one day (UTC).

        Prices, volume and VWAP are Decimals with 18 places. Raises UsageError and LakeError as :meth:`trades` does.

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
