"""The commands ``k2beam gaps …``: the ledger of sequence gaps, and what closes them."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import k2beam
from k2beam.cli.guard import guarded
from k2beam.cli.lake_options import existing_lake
from k2beam.cli.metrics_options import MetricsOptions, metrics_options
from k2beam.cli.names import ExchangeOption, SymbolOption, split_names
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_object, emit_rows
from k2beam.cli.progress import progress
from k2beam.config import LakeConfig
from k2beam.errors import UsageError
from k2beam.query.selections import EventSelection, GapSelection
from k2beam.references import dereference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2beam.job.fill import OtherRecord

_LIST = "list"


class _ListByDefault(TyperGroup):
    """``k2beam gaps --symbol X`` is ``k2beam gaps list --symbol X``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if named else [_LIST, *args])


gaps_app = typer.Typer(cls=_ListByDefault, help="Gaps in the sequence numbers of exchanges: list, export, fill.")


class Status(StrEnum):
    """Which gaps are shown."""

    OPEN = "open"
    ALL = "all"


class KindName(StrEnum):
    """The kinds whose messages carry sequence numbers, and the one that might."""

    TRADES = "trades"
    QUOTES = "quotes"
    REFERENCE_DATA = "reference_data"


class Feed(StrEnum):
    """An exchange that gives what is over by its numbers."""

    BINANCE = "binance"


KindOption = Annotated[KindName | None, typer.Option("--kind", help="Only this kind of event.")]


def gap_options(symbol: SymbolOption = None, exchange: ExchangeOption = None, kind: KindOption = None) -> GapSelection:
    """Which gaps: a group of options, for :func:`k2beam.cli.option_groups.with_options`."""
    symbols, exchanges = split_names(symbol, "--symbol"), split_names(exchange, "--exchange")
    return GapSelection(symbols, exchanges, kind.value if kind else None)


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(gaps_app, name="gaps")


@gaps_app.command(_LIST)
@guarded
@with_options(selection=gap_options, lake=existing_lake)
def list_gaps(
    *,
    selection: GapSelection,
    status: Annotated[Status, typer.Option("--status", help="open: what is missing now; all: filled gaps too.")] = (
        Status.OPEN
    ),
    all_gaps: Annotated[bool, typer.Option("--all", help="The same as --status all.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Every revision of every gap.")] = False,
    lake: LakeConfig,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """The gaps in exchange sequences, each as its latest revision has it. `k2beam gaps` alone is this."""
    from k2beam.query.gaps import GAP_COLUMNS, list_gaps

    opened = k2beam.Lake.of(lake)
    selection = replace(selection, filled=all_gaps or status is Status.ALL, history=history)
    emit_rows(GAP_COLUMNS, list_gaps(opened.catalog, opened.namespace, selection), output)


@gaps_app.command("export")
@guarded
@with_options(selection=gap_options, lake=existing_lake)
def export(*, selection: GapSelection, lake: LakeConfig, output: OutputOption = OutputFormat.CSV) -> None:
    """The ranges of numbers that are missing now: what to ask an exchange or a vendor for."""
    from k2beam.query.gaps import RANGE_COLUMNS, missing_ranges

    opened = k2beam.Lake.of(lake)
    emit_rows(RANGE_COLUMNS, missing_ranges(opened.catalog, opened.namespace, selection), output)


@gaps_app.command("fill")
@guarded
@with_options(lake=existing_lake, metrics=metrics_options)
def fill(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE...]", help="Files that have what is missing: CSV, or Avro containers."),
    ] = None,
    mapping: Annotated[
        str | None, typer.Option(help="Of CSV files: a known mapping, such as binance-trades, or a FILE.toml.")
    ] = None,
    feed: Annotated[Feed | None, typer.Option("--from", help="Ask this exchange, and no files.")] = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Another base address of the exchange.")] = None,
    api_key: Annotated[
        str | None, typer.Option(metavar="REF", help="A reference, ${env:NAME} or ${file:PATH}, if it asks for one.")
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Take a last line without a line end: nobody writes the files any more.")
    ] = False,
    symbol: SymbolOption = None,
    exchange: ExchangeOption = None,
    *,
    lake: LakeConfig,
    metrics: MetricsOptions,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Take from files, or from the exchange, the events that open gaps lack, and nothing else."""
    if bool(files) == (feed is not None):
        raise UsageError("name either FILE... or --from: where is what is missing?")
    if feed is None and (url is not None or api_key is not None):
        raise UsageError("--url and --api-key go with --from")
    if feed is not None and mapping is not None:
        raise UsageError("--mapping is of files: leave it out, or name FILE... in the place of --from")
    symbols = split_names(symbol, "--symbol")
    record = _of_files(files, mapping, symbols, complete=complete) if files else _of_binance(url, api_key)
    exchanges = split_names(exchange, "--exchange") or (feed and feed.value.upper())
    from k2beam.job.fill import fill_gaps

    with progress("gaps fill") as advance:
        stats = fill_gaps(lake, record, EventSelection(symbols, exchanges), metrics=metrics.config, advance=advance)
    emit_object(stats.as_dict(), output, title="gaps fill")
    typer.echo(
        f"Filled in {stats.filled:,} of {stats.missing_before:,} missing numbers; {stats.missing_after:,} are left.",
        err=True,
    )


def _of_files(
    files: Sequence[str], mapping: str | None, symbols: Sequence[str] | None, *, complete: bool
) -> OtherRecord:
    """The messages of files. Raises UsageError for what can't be read."""
    from k2beam.job.fill import RecordOfFiles

    if mapping is None:
        from transforms.read_archive import ReadArchive

        return RecordOfFiles(ReadArchive(list(files)).local_batches())
    from k2beam.clock import now_us
    from k2beam.csv.files import FileVariables
    from k2beam.csv.mapping import load_mapping
    from transforms.read_csv import ReadCsv

    variables = FileVariables((("symbol", symbols[0]),) if symbols and len(symbols) == 1 else ())
    source = ReadCsv(files, load_mapping(mapping), loaded_at=now_us(), variables=variables, complete=complete)
    return RecordOfFiles(source.local_batches())


def _of_binance(url: str | None, api_key: str | None) -> OtherRecord:
    """The trades that Binance gives. Raises UsageError for an address or a reference that is none."""
    from k2beam.feeds.binance.history import HISTORY_URL, TradeHistory
    from k2beam.job.fill import RecordOfBinance

    key = None if api_key is None else dereference(api_key, "--api-key")
    return RecordOfBinance(TradeHistory(url or HISTORY_URL, key))
