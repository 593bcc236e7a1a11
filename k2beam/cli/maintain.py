"""The commands ``k2beam maintain …``."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from k2beam.cli.output import CatalogOption, OutputFormat, OutputOption, WarehouseOption, emit_rows, lake_config
from k2beam.lake.catalog import open_catalog
from k2beam.lake.maintain import orphans
from k2beam.lake.tables import SPECS, find_table

maintain_app = typer.Typer(help="Look after the tables.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(maintain_app, name="maintain")


@maintain_app.command("orphans")
def list_orphans(
    older_than_hours: Annotated[
        float, typer.Option(min=0, help="Leave out younger files: a commit of theirs may be on its way.")
    ] = 24.0,
    warehouse: WarehouseOption = None,
    catalog: CatalogOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List data files that no snapshot has, such as a crash leaves. Nothing is deleted."""
    config = lake_config(warehouse, catalog)
    opened = open_catalog(config, create=False)
    tables = [find_table(opened, config.namespace, name) for name in SPECS]
    found = (
        {"table": orphan.table, "path": orphan.path, "bytes": orphan.bytes, "modified_at": orphan.modified_at}
        for table in tables
        if table is not None
        for orphan in orphans(table, timedelta(hours=older_than_hours))
    )
    emit_rows(("table", "path", "bytes", "modified_at"), found, output)
