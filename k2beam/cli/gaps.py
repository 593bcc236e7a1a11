"""The command ``k2beam gaps``: the ledger of sequence gaps."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

import k2beam
from k2beam.cli.guard import guarded
from k2beam.cli.lake_options import existing_lake
from k2beam.cli.names import ExchangeOption, SymbolOption, split_names
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_rows
from k2beam.config import LakeConfig
from k2beam.query.selections import GapSelection


class Status(StrEnum):
    """Which gaps are shown."""

    OPEN = "open"
    ALL = "all"


class KindName(StrEnum):
    """The kinds whose messages carry sequence numbers, and the one that might."""

    TRADES = "trades"
    QUOTES = "quotes"
    REFERENCE_DATA = "reference_data"


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("gaps")(gaps)


@guarded
@with_options(lake=existing_lake)
def gaps(
    symbol: SymbolOption = None,
    exchange: ExchangeOption = None,
    kind: Annotated[KindName | None, typer.Option("--kind", help="Only this kind of event.")] = None,
    status: Annotated[Status, typer.Option("--status", help="open: what is missing now; all: filled gaps too.")] = (
        Status.OPEN
    ),
    all_gaps: Annotated[bool, typer.Option("--all", help="The same as --status all.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Every revision of every gap.")] = False,
    *,
    lake: LakeConfig,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """The gaps in exchange sequences, each as its latest revision has it."""
    from k2beam.query.gaps import GAP_COLUMNS, list_gaps

    opened = k2beam.Lake.of(lake)
    selection = GapSelection(
        symbol=split_names(symbol, "--symbol"),
        exchange=split_names(exchange, "--exchange"),
        kind=kind.value if kind else None,
        filled=all_gaps or status is Status.ALL,
        history=history,
    )
    emit_rows(GAP_COLUMNS, list_gaps(opened.catalog, opened.namespace, selection), output)
