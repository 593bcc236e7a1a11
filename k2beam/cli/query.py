"""The commands ``k2beam query …``: rows, summaries and what the tables hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

import k2beam
from k2beam.cli.guard import guarded
from k2beam.cli.lake_options import existing_lake
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_object, emit_rows
from k2beam.config import LakeConfig
from k2beam.query.selections import EventSelection

if TYPE_CHECKING:
    from k2beam.model import Kind

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
_FromOption = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="First event time (ISO 8601; UTC unless it has an offset).")
]
ToOption = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Event time before which the rows end.")]
AsOfOption = Annotated[
    str | None,
    typer.Option("--as-of", metavar="TIME|TAG|ID", help="The tables as they were: a time, a tag or a snapshot id."),
]
MomentOption = Annotated[str | None, typer.Option("--as-of", metavar="TIME|TAG", help="The tables as they were then.")]
DuplicatesOption = Annotated[
    bool, typer.Option("--with-duplicates", help="Keep every copy of a message, not only the first.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=0, help="At most so many rows.")]
ColumnsOption = Annotated[
    str | None, typer.Option("--columns", metavar="A,B,…", help="Only these columns, in this order.")
]


@dataclasses.dataclass(frozen=True, slots=True)
class EventOptions:
    """How many of the rows and what of them, as the options say."""

    limit: int | None
    as_of: str | None
    with_duplicates: bool
    columns: tuple[str, ...]


def selection_options(
    symbol: SymbolOption = None, exchange: ExchangeOption = None, start: _FromOption = None, end: ToOption = None
) -> EventSelection:
    """The group of options, for :func:`k2beam.cli.option_groups.with_options`."""
    return EventSelection(symbol, exchange, start, end)


def event_options(
    limit: LimitOption = None,
    as_of: AsOfOption = None,
    with_duplicates: DuplicatesOption = False,
    columns: ColumnsOption = None,
) -> EventOptions:
    """The same."""
    named = columns.split(",") if columns else ()
    return EventOptions(limit, as_of, with_duplicates, tuple(name.strip() for name in named if name.strip()))


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(query_app, name="query")


@query_app.command("trades")
@guarded
@with_options(selection=selection_options, rows=event_options, lake=existing_lake)
def trades(
    *, selection: EventSelection, rows: EventOptions, lake: LakeConfig, output: OutputOption = OutputFormat.TABLE
) -> None:
    """Trades in order of time, sequence and offset; each message once."""
    _emit_events("trades", selection, rows, lake, output)


@query_app.command("quotes")
@guarded
@with_options(selection=selection_options, rows=event_options, lake=existing_lake)
def quotes(
    *, selection: EventSelection, rows: EventOptions, lake: LakeConfig, output: OutputOption = OutputFormat.TABLE
) -> None:
    """Quotes in order of time, sequence and offset; each message once."""
    _emit_events("quotes", selection, rows, lake, output)


@query_app.command("summary")
@guarded
@with_options(lake=existing_lake)
def summary(
    symbol: Annotated[str, typer.Option("--symbol", help="The symbol, exactly as it is stored.")],
    day: Annotated[str, typer.Option("--day", metavar="YYYY-MM-DD", help="The day, in UTC.")],
    exchange: ExchangeOption = None,
    as_of: AsOfOption = None,
    with_duplicates: DuplicatesOption = False,
    *,
    lake: LakeConfig,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Open, high, low, close, volume, trades and VWAP of a symbol's day, exact to 8 places."""
    emit_object(k2beam.Lake.of(lake).summary(symbol, day, exchange, as_of, with_duplicates), output)


@query_app.command("symbols")
@guarded
@with_options(selection=selection_options, lake=existing_lake)
def symbols(
    *,
    selection: EventSelection,
    as_of: MomentOption = None,
    lake: LakeConfig,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """The symbols of each event table: rows (copies included), first and last event."""
    from k2beam.query import overview

    opened = k2beam.Lake.of(lake)
    found = overview.list_symbols(opened.catalog, opened.namespace, dataclasses.replace(selection, as_of=as_of))
    _emit_all(overview.SymbolCount, found, output)


@query_app.command("stats")
@guarded
@with_options(lake=existing_lake)
def stats(*, as_of: MomentOption = None, lake: LakeConfig, output: OutputOption = OutputFormat.TABLE) -> None:
    """Rows, files, bytes, first and last time of each table."""
    from k2beam.query import overview

    opened = k2beam.Lake.of(lake)
    _emit_all(overview.TableStats, overview.list_stats(opened.catalog, opened.namespace, as_of), output)


@query_app.command("snapshots")
@guarded
@with_options(lake=existing_lake)
def snapshots(
    table: Annotated[list[str] | None, typer.Option("--table", help="Only this table; may be repeated.")] = None,
    *,
    lake: LakeConfig,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """The snapshots of each table, oldest first."""
    from k2beam.query import overview

    opened = k2beam.Lake.of(lake)
    _emit_all(overview.SnapshotInfo, overview.list_snapshots(opened.catalog, opened.namespace, table or ()), output)


def _emit_events(
    kind: Kind, selection: EventSelection, rows: EventOptions, lake: LakeConfig, output: OutputFormat
) -> None:
    columns: Sequence[str] = rows.columns
    if not columns and output is OutputFormat.TABLE:
        columns = TABLE_COLUMNS[kind]
    schema, batches = k2beam.Lake.of(lake).events(
        kind,
        dataclasses.replace(selection, as_of=rows.as_of),
        columns=columns,
        limit=rows.limit,
        with_duplicates=rows.with_duplicates,
    )
    found = (row for batch in batches for row in batch.to_pylist(maps_as_pydicts="strict"))
    emit_rows(schema.names, found, output)


def _emit_all(row_type: type[Any], rows: Iterable[Any], output: OutputFormat) -> None:
    """Rows of a dataclass; its fields are the columns, so that an empty result has them too."""
    columns = [field.name for field in dataclasses.fields(row_type)]
    emit_rows(columns, ([getattr(row, column) for column in columns] for row in rows), output)
