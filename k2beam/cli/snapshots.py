"""The commands ``k2beam snapshots …``: states of the tables that are kept under a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

import k2beam
from k2beam.cli.guard import guarded
from k2beam.cli.lake_options import existing_lake
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_rows
from k2beam.cli.progress import step_progress
from k2beam.config import LakeConfig

if TYPE_CHECKING:
    from k2beam.lake.pins import Pin

snapshots_app = typer.Typer(help="Keep states of the tables under a name.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A letter, then letters, digits, dots, _ and -.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(snapshots_app, name="snapshots")


@snapshots_app.command("tag")
@guarded
@with_options(lake=existing_lake)
def tag(name: NameArgument, *, lake: LakeConfig, output: OutputOption = OutputFormat.TABLE) -> None:
    """Tag the current snapshots of all tables, and remember what they hold: `k2beam audit --pin NAME` compares."""
    from k2beam.lake.pins import pin_tables

    opened = k2beam.Lake.of(lake)
    with step_progress(f"tag {name}") as step:
        pins = pin_tables(opened.catalog, opened.namespace, name, on_step=step)
    _emit({name: pins}, output)


@snapshots_app.command("untag")
@guarded
@with_options(lake=existing_lake)
def untag(name: NameArgument, *, lake: LakeConfig) -> None:
    """Take a tag away: its snapshots may expire from now on."""
    from k2beam.lake.pins import unpin_tables

    opened = k2beam.Lake.of(lake)
    tables = unpin_tables(opened.catalog, opened.namespace, name)
    typer.echo(f"Tag {name} was taken away from {', '.join(tables)}.", err=True)


@snapshots_app.command("tags")
@guarded
@with_options(lake=existing_lake)
def tags(*, lake: LakeConfig, output: OutputOption = OutputFormat.TABLE) -> None:
    """List the tags, a row for each table."""
    from k2beam.lake.pins import find_pins

    opened = k2beam.Lake.of(lake)
    _emit(find_pins(opened.catalog, opened.namespace), output)


def _emit(pins: Mapping[str, Mapping[str, Pin]], output: OutputFormat) -> None:
    from k2beam.query.times import moment

    rows = (
        {**asdict(pin), "name": name, "table": table, "pinned_at": moment(pin.pinned_at_ms * 1000)}
        for name, tables in sorted(pins.items())
        for table, pin in tables.items()
    )
    emit_rows(("name", "table", "snapshot_id", "pinned_at", "rows", "digest", "coverage"), rows, output)
