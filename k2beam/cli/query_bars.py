"""The commands ``k2beam query bars|asof|spread``: what is made of trades and quotes."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

import k2beam
from k2beam.cli.batches import Destination, destination_options, emit_batches
from k2beam.cli.durations import seconds
from k2beam.cli.guard import guarded
from k2beam.cli.lake_options import existing_lake
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption
from k2beam.cli.query_options import (
    Completeness,
    DuplicatesOption,
    Moment,
    completeness_options,
    emit_all,
    moment_options,
    selection_options,
)
from k2beam.config import LakeConfig
from k2beam.query.selections import EventSelection

_told = with_options(
    selection=selection_options,
    at=moment_options,
    only=completeness_options,
    lake=existing_lake,
    to=destination_options,
)
"""The options of answers that tell whether they are complete."""


def register(query_app: typer.Typer) -> None:
    """Add the commands to ``k2beam query``."""
    for name, command in (("bars", bars), ("asof", asof), ("spread", spread)):
        query_app.command(name)(command)


@guarded
@_told
def bars(
    *,
    every: Annotated[
        str,
        typer.Option(
            "--every", metavar="SIZE", help="1s, 5m, 1h, 1d and what else divides a day, '100 trades' or 'volume 2.5'."
        ),
    ],
    zone: Annotated[
        str, typer.Option("--zone", metavar="ZONE", help="Whose midnight begins a day, such as America/New_York.")
    ] = "UTC",
    empty: Annotated[bool, typer.Option("--empty", help="Bars of time without a trade too.")] = False,
    selection: EventSelection,
    at: Moment,
    with_duplicates: DuplicatesOption = False,
    only: Completeness,
    lake: LakeConfig,
    to: Destination,
) -> None:
    """Open, high, low, close, volume, trades and VWAP of each bar, exact to 8 places."""
    from k2beam.lake.tables import EVENT_TABLES
    from k2beam.query.bar_rules import BarRule
    from k2beam.query.bars import make_bars

    opened = k2beam.Lake.of(lake)
    asked = at.select(selection, opened, EVENT_TABLES["trades"], *only.tables)
    rule = BarRule.parse(every, zone)
    schema, batches = make_bars(
        opened.catalog,
        opened.namespace,
        rule,
        asked,
        empty=empty,
        with_duplicates=with_duplicates,
        completeness=only.told,
        strict=only.strict,
    )
    emit_batches(schema, batches, to)


@guarded
@_told
def asof(
    *,
    selection: EventSelection,
    tolerance: Annotated[
        str | None,
        typer.Option("--tolerance", metavar="TIME", help="Quotes that are older don't hold: 5s, 1m."),
    ] = None,
    at: Moment,
    with_duplicates: DuplicatesOption = False,
    only: Completeness,
    lake: LakeConfig,
    to: Destination,
) -> None:
    """Each trade with the quote that held at its time, the spread and the mid."""
    from k2beam.lake.tables import EVENT_TABLES
    from k2beam.query.asof import join_as_of

    opened = k2beam.Lake.of(lake)
    asked = at.select(selection, opened, EVENT_TABLES["trades"], EVENT_TABLES["quotes"], *only.tables)
    longest = None if tolerance is None else timedelta(seconds=seconds(tolerance, "--tolerance"))
    schema, batches = join_as_of(
        opened.catalog,
        opened.namespace,
        asked,
        tolerance=longest,
        with_duplicates=with_duplicates,
        completeness=only.told,
        strict=only.strict,
    )
    emit_batches(schema, batches, to)


@guarded
@with_options(selection=selection_options, at=moment_options, lake=existing_lake)
def spread(
    *,
    selection: EventSelection,
    at: Moment,
    with_duplicates: DuplicatesOption = False,
    lake: LakeConfig,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Least, mean, largest and time-weighted spread of each symbol's quotes, and how many were crossed."""
    from k2beam.lake.tables import EVENT_TABLES
    from k2beam.query.spread import Spread, list_spreads

    opened = k2beam.Lake.of(lake)
    asked = at.select(selection, opened, EVENT_TABLES["quotes"])
    found = list_spreads(opened.catalog, opened.namespace, asked, with_duplicates=with_duplicates)
    emit_all(Spread, found, output)
