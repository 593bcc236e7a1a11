"""The commands ``k2beam warehouse …``: a whole warehouse to another folder, verified, or to the columns of now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from k2beam.cli.guard import guarded
from k2beam.cli.lake_options import CatalogOption, WarehouseOption, existing_lake
from k2beam.cli.maintain import TargetOption
from k2beam.cli.output import OutputFormat, OutputOption, emit_object, emit_rows
from k2beam.cli.progress import step_progress
from k2beam.errors import LakeError, UnreadableFile, UsageError
from k2beam.lake.place import lies_in

if TYPE_CHECKING:
    from k2beam.audit.report import AuditReport
    from k2beam.lake.catalog import Catalog
    from k2beam.maintain.warehouse import Relocated

OnStep = Callable[[str], None]
Operation = Callable[[Path, Path, OnStep], "Relocated"]

warehouse_app = typer.Typer(help="Move, copy, back up and upgrade a whole warehouse.", no_args_is_help=True)

OldArgument = Annotated[Path, typer.Argument(metavar="OLD", help="The folder of the warehouse.")]
NewArgument = Annotated[Path, typer.Argument(metavar="NEW", help="The folder where it is to be: new, or empty.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(warehouse_app, name="warehouse")


@warehouse_app.command("move")
@guarded
def move(
    old: OldArgument, new: NewArgument, catalog: CatalogOption = None, output: OutputOption = OutputFormat.TABLE
) -> None:
    """Give a warehouse another folder, on the same file system; no job may write to it meanwhile.

    Also completes what mv has moved: then OLD is where it was.
    """
    from k2beam.maintain.warehouse import move_warehouse

    _run(move_warehouse, old, new, catalog, output)


@warehouse_app.command("copy")
@guarded
def copy(
    old: OldArgument, new: NewArgument, catalog: CatalogOption = None, output: OutputOption = OutputFormat.TABLE
) -> None:
    """Make a second warehouse of this moment, which then lives its own life; jobs may write to OLD meanwhile.

    Also completes what cp -r has copied.
    """
    from k2beam.maintain.warehouse import copy_warehouse

    _run(copy_warehouse, old, new, catalog, output)


@warehouse_app.command("backup")
@guarded
def backup(
    old: OldArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The backup: new, empty, or an earlier backup.")],
    catalog: CatalogOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Copy a warehouse into one folder again and again: only what is new is copied. Jobs may write to OLD meanwhile.

    The backup is a warehouse that can be read; FOLDER is refused where it was written to since.
    """
    from k2beam.maintain.warehouse import back_up

    _run(back_up, old, folder, catalog, output)


@warehouse_app.command("restore")
@guarded
def restore(
    folder: Annotated[Path, typer.Argument(metavar="BACKUP", help="The folder of a backup.")],
    new: NewArgument,
    catalog: CatalogOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Make a warehouse of a backup, which stays as it is. The same as copy, but completes nothing that cp -r made."""
    from k2beam.maintain.warehouse import restore_warehouse

    _run(restore_warehouse, folder, new, catalog, output)


@warehouse_app.command("upgrade")
@guarded
def upgrade(
    warehouse: WarehouseOption = None,
    catalog: CatalogOption = None,
    target_file_mb: TargetOption = 64,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Give tables of an older version the columns of new ones; no job may write to them meanwhile.

    Prices and quantities become decimal(38,18): all files with them are written anew, and verified, in one commit a
    table.
    """
    from k2beam.lake.catalog import open_catalog
    from k2beam.maintain.upgrade import upgrade_tables

    lake, read = existing_lake(warehouse, catalog), 0
    with step_progress("upgrade") as tell:

        def on_read(rows: int) -> None:
            nonlocal read
            read += rows
            tell(f"{read:,} rows")

        done = list(upgrade_tables(open_catalog(lake), lake.namespace, target_file_mb << 20, on_read))
    columns = ("table", "columns", "rows", "files", "bytes", "files_after", "bytes_after", "digest")
    emit_rows(columns, map(asdict, done), output)


def _run(operation: Operation, old: Path, new: Path, catalog: str | None, output: OutputFormat) -> None:
    if catalog is not None:
        raise UsageError(
            f"catalog {catalog} is no folder: move and copy its tables by the means of the catalog, or "
            "ingest the same sources into a warehouse folder"
        )
    from k2beam.maintain.warehouse import finish

    try:
        with step_progress(f"to {new}") as tell:
            done = operation(old, new, tell)
            found = _verified(done, tell)
        # What is wrong with the files may come from this command; what the audit finds is in the rows.
        if not found["file_problems"] and found["same"] is not False:
            finish(done)
    except OSError as error:
        raise LakeError(f"{error.filename or new}: {error.strerror}; mend that, and run this again") from error
    emit_object(_report(done, found), output, title=f"warehouse {done.verb}")
    if not found["ok"]:
        raise typer.Exit(1)


def _verified(done: Relocated, tell: OnStep) -> dict[str, Any]:
    """What is wrong with the new place: its files, its rows by the audit, and by comparison with the old ones."""
    from k2beam.maintain.warehouse import as_it_was, file_problems, plain_catalog

    found: dict[str, Any] = {"file_problems": file_problems(done.new, tell), "problems": [], "notes": [], "same": None}
    target = plain_catalog(done.new)
    for namespace in _namespaces(target):
        problems = set(_audit(target, namespace, tell).problems)
        if done.can_be_compared:
            with as_it_was(done) as source:
                problems = _compare(done, source, target, namespace, problems, found, tell)
        found["problems"] += sorted(problems)
    if done.verb == "move" and done.old.exists() and done.tables:
        found["notes"].append(f"{done.old} is there again: a job may still write to it; stop it")
    if not done.tables and done.content is None:
        found["notes"].append("nothing was left to do but to verify it")
    found["ok"] = not found["file_problems"] and not found["problems"] and found["same"] is not False
    return found


def _compare(
    done: Relocated,
    source: Catalog,
    target: Catalog,
    namespace: str,
    problems: set[str],
    found: dict[str, Any],
    tell: OnStep,
) -> set[str]:
    """Compare a namespace with what it was copied from; gives the problems that only the new place has."""
    from k2beam.audit.compare import compare

    tell("comparing")
    try:
        compared = compare(source, target, namespace)
    except UnreadableFile as error:
        if lies_in(error.path, done.new):
            found["same"] = False
            return problems | {str(error)}
        found["notes"].append(f"not compared with the old folder: {error}")
        return problems
    found["same"] = compared.same and found["same"] is not False
    different = [table.table for table in compared.tables if not table.same]
    found["problems"] += [f"table {namespace}.{table} differs from that of the old folder" for table in different]
    own = problems & set(_audit(source, namespace, tell).problems) if problems else set()
    found["notes"] += [f"the old folder has this problem too: {problem}" for problem in sorted(own)]
    return problems - own


def _audit(catalog: Catalog, namespace: str, tell: OnStep) -> AuditReport:
    from k2beam.audit.audit import audit

    return audit(catalog, namespace, mend=False, on_step=lambda step: tell(f"auditing: {step}"))


def _namespaces(catalog: Catalog) -> list[str]:
    """The namespaces that have tables of ours."""
    from k2beam.lake.tables import SPECS

    spaces = [".".join(name) for name in catalog.list_namespaces()]
    return [name for name in spaces if any(table[-1] in SPECS for table in catalog.list_tables(name))]


def _report(done: Relocated, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "ok": found["ok"],
        "old": str(done.old),
        "new": str(done.new),
        "tables": len(done.tables),
        "files": done.files,
        "bytes": done.bytes,
        "files_copied": done.copied.files,
        "bytes_copied": done.copied.bytes,
        "same": found["same"],
        "problems": [*found["file_problems"], *found["problems"]],
        "notes": found["notes"],
    }
