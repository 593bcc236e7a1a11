"""The commands ``k2beam query …``: rows, summaries and what the tables hold."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

import k2beam
from k2beam.cli import query_bars
from k2beam.cli.batches import BatchFormat, Destination, destination_options, emit_batches
from k2beam.cli.guard import guarded
from k2beam.cli.lake_options import existing_lake
from k2beam.cli.names import split_names
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_object
from k2beam.cli.query_options import (
    Completeness,
    DuplicatesOption,
    EventOptions,
    Moment,
    MomentOption,
    completeness_options,
    emit_all,
    event_options,
    moment_options,
    selection_options,
)
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


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(query_app, name="query")


query_bars.register(query_app)

_of_events = with_options(
    selection=selection_options, rows=event_options, at=moment_options, lake=existing_lake, to=destination_options
)


@query_app.command("trades")
@guarded
@_of_events
def trades(*, selection: EventSelection, rows: EventOptions, at: Moment, lake: LakeConfig, to: Destination) -> None:
    """Trades in order of time, sequence and offset; each message once."""
    _emit_events("trades", selection, rows, at, lake, to)


@query_app.command("quotes")
@guarded
@_of_events
def quotes(*, selection: EventSelection, rows: EventOptions, at: Moment, lake: LakeConfig, to: Destination) -> None:
    """Quotes in order of time, sequence and offset; each message once."""
    _emit_events("quotes", selection, rows, at, lake, to)


@query_app.command("summary")
@guarded
@with_options(at=moment_options, only=completeness_options, lake=existing_lake)
def summary(
    symbol: Annotated[
        list[str],
        typer.Option("--symbol", metavar="A,B,…", help="The symbols, exactly as they are stored; may be repeated."),
    ],
    day: Annotated[str, typer.Option("--day", metavar="YYYY-MM-DD", help="The day, in UTC.")],
    exchange: Annotated[str | None, typer.Option("--exchange", help="Only this exchange.")] = None,
    with_duplicates: DuplicatesOption = False,
    *,
    at: Moment,
    only: Completeness,
    lake: LakeConfig,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Open, high, low, close, volume, trades and VWAP of a day: of one symbol an object, of several rows."""
    from k2beam.lake.tables import EVENT_TABLES
    from k2beam.query.summary import DaySummary

    opened, symbols = k2beam.Lake.of(lake), split_names(symbol, "--symbol") or ()
    as_of = at.of(opened, EVENT_TABLES["trades"], *only.tables)
    found = [opened.summary(name, day, exchange, as_of, with_duplicates, only.told, only.strict) for name in symbols]
    if len(found) == 1:
        emit_object(found[0], output)
    else:
        emit_all(DaySummary, found, output)


@query_app.command("sql")
@guarded
@with_options(at=moment_options, lake=existing_lake, to=destination_options)
def sql(
    query: Annotated[str, typer.Argument(metavar="SQL", help="One query in DuckDB's SQL; - reads it from the input.")],
    *,
    at: Moment,
    lake: LakeConfig,
    to: Destination,
) -> None:
    """The answer to SQL, read only: `trades` and `quotes` have each event once, `trades_v2` all rows."""
    from k2beam.lake.tables import SPECS

    opened = k2beam.Lake.of(lake)
    text = sys.stdin.read() if query == "-" else query
    schema, batches = opened.sql(text, at.of(opened, *SPECS))
    emit_batches(schema, batches, to)


@query_app.command("symbols")
@guarded
@with_options(selection=selection_options, at=moment_options, lake=existing_lake)
def symbols(
    *,
    selection: EventSelection,
    at: Moment,
    lake: LakeConfig,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """The symbols of each event table: rows (copies included), first and last event."""
    from k2beam.lake.tables import EVENT_TABLES
    from k2beam.query import overview

    opened = k2beam.Lake.of(lake)
    asked = at.select(selection, opened, *EVENT_TABLES.values())
    found = overview.list_symbols(opened.catalog, opened.namespace, asked)
    emit_all(overview.SymbolCount, found, output)


@query_app.command("stats")
@guarded
@with_options(lake=existing_lake)
def stats(*, as_of: MomentOption = None, lake: LakeConfig, output: OutputOption = OutputFormat.TABLE) -> None:
    """Rows, files, bytes, first and last time of each table."""
    from k2beam.query import overview

    opened = k2beam.Lake.of(lake)
    emit_all(overview.TableStats, overview.list_stats(opened.catalog, opened.namespace, as_of), output)


@query_app.command("path")
@guarded
@with_options(lake=existing_lake)
def path(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="The table, as `query stats` names it.")],
    *,
    lake: LakeConfig,
) -> None:
    """Where the metadata file of a table is, for engines that read Iceberg without a catalog."""
    typer.echo(k2beam.Lake.of(lake).path(table))


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
    emit_all(overview.SnapshotInfo, overview.list_snapshots(opened.catalog, opened.namespace, table or ()), output)


def _emit_events(
    kind: Kind, selection: EventSelection, rows: EventOptions, at: Moment, lake: LakeConfig, to: Destination
) -> None:
    from k2beam.lake.tables import EVENT_TABLES

    columns: Sequence[str] = rows.columns
    if not columns and to.format is BatchFormat.TABLE:
        columns = TABLE_COLUMNS[kind]
    opened = k2beam.Lake.of(lake)
    schema, batches = opened.events(
        kind,
        at.select(selection, opened, EVENT_TABLES[kind]),
        columns=columns,
        limit=rows.limit,
        with_duplicates=rows.with_duplicates,
    )
    emit_batches(schema, batches, to)
