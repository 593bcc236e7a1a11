"""The commands ``k2beam query …``: rows, summaries and what the tables hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from k2beam.cli.output import (
    CatalogOption,
    OutputFormat,
    OutputOption,
    WarehouseOption,
    emit_object,
    emit_rows,
    guarded,
    lake_config,
)
from k2beam.model import Kind

if TYPE_CHECKING:
    from k2beam.query.engine import Lake

query_app = typer.Typer(help="Read the tables: rows, summaries, sizes and snapshots.", no_args_is_help=True)

TABLE_COLUMNS: dict[str, tuple[str, ...]] = {
    "trades": ("timestamp", "exchange", "symbol", "price", "quantity", "side", "source_sequence", "trade_id"),
    "quotes": (
        "timestamp",
        "exchange",
        "symbol",
        "bid_price",
        "bid_quantity",
        "ask_price",
        "ask_quantity",
        "source_sequence",
    ),
}
"""What a table shows where no columns are named; the other formats have all columns."""

SymbolOption = Annotated[str | None, typer.Option("--symbol", help="Only this symbol, exactly as it is stored.")]
ExchangeOption = Annotated[str | None, typer.Option("--exchange", help="Only this exchange.")]
FromOption = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="First event time (ISO 8601; UTC unless it has an offset).")
]
ToOption = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Event time before which the rows end.")]
AsOfOption = Annotated[
    str | None, typer.Option("--as-of", metavar="TIME|ID", help="The tables as they were: a time or a snapshot id.")
]
DuplicatesOption = Annotated[
    bool, typer.Option("--with-duplicates", help="Keep every copy of a message, not only the first.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=0, help="At most so many rows.")]
ColumnsOption = Annotated[
    str | None, typer.Option("--columns", metavar="A,B,…", help="Only these columns, in this order.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(query_app, name="query")


@query_app.command("trades")
@guarded
def trades(
    symbol: SymbolOption = None,
    exchange: ExchangeOption = None,
    start: FromOption = None,
    end: ToOption = None,
    limit: LimitOption = None,
    as_of: AsOfOption = None,
    with_duplicates: DuplicatesOption = False,
    columns: ColumnsOption = None,
    warehouse: WarehouseOption = None,
    catalog: CatalogOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Trades in order of time, sequence and offset; each message once."""
    from k2beam.query.selection import Selection

    selection = Selection(symbol, exchange, start, end, as_of)
    _emit_events(_lake(warehouse, catalog), "trades", selection, limit, with_duplicates, columns, output)


@query_app.command("quotes")
@guarded
def quotes(
    symbol: SymbolOption = None,
    exchange: ExchangeOption = None,
    start: FromOption = None,
    end: ToOption = None,
    limit: LimitOption = None,
    as_of: AsOfOption = None,
    with_duplicates: DuplicatesOption = False,
    columns: ColumnsOption = None,
    warehouse: WarehouseOption = None,
    catalog: CatalogOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Quotes in order of time, sequence and offset; each message once."""
    from k2beam.query.selection import Selection

    selection = Selection(symbol, exchange, start, end, as_of)
    _emit_events(_lake(warehouse, catalog), "quotes", selection, limit, with_duplicates, columns, output)


@query_app.command("summary")
@guarded
def summary(
    symbol: Annotated[str, typer.Option("--symbol", help="The symbol, exactly as it is stored.")],
    day: Annotated[str, typer.Option("--day", metavar="YYYY-MM-DD", help="The day, in UTC.")],
    exchange: ExchangeOption = None,
    as_of: AsOfOption = None,
    with_duplicates: DuplicatesOption = False,
    warehouse: WarehouseOption = None,
    catalog: CatalogOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Open, high, low, close, volume, trades and VWAP of a symbol's day, exact to 8 places."""
    emit_object(_lake(warehouse, catalog).summary(symbol, day, exchange, as_of, with_duplicates), output)


@query_app.command("symbols")
@guarded
def symbols(
    symbol: SymbolOption = None,
    exchange: ExchangeOption = None,
    start: FromOption = None,
    end: ToOption = None,
    as_of: Annotated[str | None, typer.Option("--as-of", metavar="TIME", help="The tables as they were then.")] = None,
    warehouse: WarehouseOption = None,
    catalog: CatalogOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """The symbols of each event table: rows (copies included), first and last event."""
    from k2beam.query import overview
    from k2beam.query.selection import Selection

    lake = _lake(warehouse, catalog)
    selection = Selection(symbol, exchange, start, end, as_of)
    _emit_all(overview.SymbolCount, overview.symbols(lake.catalog, lake.namespace, selection), output)


@query_app.command("stats")
@guarded
def stats(
    as_of: Annotated[str | None, typer.Option("--as-of", metavar="TIME", help="The tables as they were then.")] = None,
    warehouse: WarehouseOption = None,
    catalog: CatalogOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Rows, files, bytes, first and last time of each table."""
    from k2beam.query import overview

    lake = _lake(warehouse, catalog)
    _emit_all(overview.TableStats, overview.stats(lake.catalog, lake.namespace, as_of), output)


@query_app.command("snapshots")
@guarded
def snapshots(
    table: Annotated[list[str] | None, typer.Option("--table", help="Only this table; may be repeated.")] = None,
    warehouse: WarehouseOption = None,
    catalog: CatalogOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """The snapshots of each table, oldest first."""
    from k2beam.query import overview

    lake = _lake(warehouse, catalog)
    _emit_all(overview.SnapshotInfo, overview.snapshots(lake.catalog, lake.namespace, table or ()), output)


def _lake(warehouse: str | None, catalog: str | None) -> Lake:
    # pyiceberg takes most of a second to import; --help must not wait for it.
    from k2beam.query.engine import Lake

    return Lake.of(lake_config(warehouse, catalog))


def _emit_events(
    lake: Lake,
    kind: Kind,
    selection: Any,
    limit: int | None,
    with_duplicates: bool,
    columns: str | None,
    output: OutputFormat,
) -> None:
    wanted: Sequence[str] = [name.strip() for name in columns.split(",") if name.strip()] if columns else ()
    if not wanted and output is OutputFormat.TABLE:
        wanted = TABLE_COLUMNS[kind]
    schema, batches = lake.events(kind, selection, columns=wanted, limit=limit, with_duplicates=with_duplicates)
    rows = (row for batch in batches for row in batch.to_pylist(maps_as_pydicts="strict"))
    emit_rows(schema.names, rows, output)


def _emit_all(row_type: type[Any], rows: Iterable[Any], output: OutputFormat) -> None:
    """Rows of a dataclass; its fields are the columns, so that an empty result has them too."""
    columns = [field.name for field in dataclasses.fields(row_type)]
    emit_rows(columns, ([getattr(row, column) for column in columns] for row in rows), output)
