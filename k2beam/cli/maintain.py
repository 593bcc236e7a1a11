"""The commands ``k2beam maintain …``."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

import k2beam
from k2beam.cli.guard import guarded
from k2beam.cli.lake_options import lake_config
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_rows
from k2beam.config import LakeConfig

maintain_app = typer.Typer(help="Look after the tables.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(maintain_app, name="maintain")


@maintain_app.command("orphans")
@guarded
@with_options(lake=lake_config)
def list_orphans(
    older_than_hours: Annotated[
        float, typer.Option(min=0, help="Leave out younger files: a commit of theirs may be on its way.")
    ] = 24.0,
    *,
    lake: LakeConfig,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List data files that no snapshot has, such as a crash leaves. Nothing is deleted."""
    # pyiceberg takes most of a second to import; --help must not wait for it.
    from k2beam.lake.scan import find_readable
    from k2beam.lake.tables import SPECS
    from k2beam.maintain.orphans import orphans

    opened = k2beam.Lake.of(lake)
    tables = [find_readable(opened.catalog, opened.namespace, name) for name in SPECS]
    found = (
        {"table": orphan.table, "path": orphan.path, "bytes": orphan.bytes, "modified_at": orphan.modified_at}
        for table in tables
        if table is not None
        for orphan in orphans(table, timedelta(hours=older_than_hours))
    )
    emit_rows(("table", "path", "bytes", "modified_at"), found, output)
