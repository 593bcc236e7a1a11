"""The commands ``k2beam maintain …``: each says what it would do, and does it when told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

import k2beam
from k2beam.cli.guard import guarded
from k2beam.cli.lake_options import CatalogOption, WarehouseOption, existing_lake, snapshot_retention
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_rows, printable
from k2beam.cli.progress import step_progress
from k2beam.clock import now_us
from k2beam.config import LakeConfig, Retention
from k2beam.errors import UsageError

if TYPE_CHECKING:
    from k2beam.maintain.compact import Compaction
    from k2beam.maintain.coverage import CoverageChange
    from k2beam.maintain.expire import Expiry
    from k2beam.maintain.orphans import UnusedFile
    from k2beam.maintain.verify import Damage

_MIB = 1 << 20
_HOUR_US = 3_600_000_000

maintain_app = typer.Typer(help="Look after the tables.", no_args_is_help=True)

ApplyOption = Annotated[bool, typer.Option("--apply", help="Do it; otherwise only say what would be done.")]
TargetOption = Annotated[
    int, typer.Option("--target-file-mb", min=1, max=512, help="Parquet size of the new files, MiB.")
]
QuietOption = Annotated[
    float,
    typer.Option("--quiet-hours", min=0, help="Leave partitions alone to which rows of the last hours were written."),
]
AgeOption = Annotated[
    float,
    typer.Option("--older-than-hours", min=0, help="Leave younger files alone: a commit of theirs may be on its way."),
]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Where the tables are, and the names of those to look after (None: all)."""

    lake: LakeConfig
    names: list[str] | None


def asked_for(
    table: Annotated[list[str] | None, typer.Option("--table", help="Only this table; may be repeated.")] = None,
    warehouse: WarehouseOption = None,
    catalog: CatalogOption = None,
) -> _Asked:
    """The tables that a command is to look after. A group of options, for ``with_options``."""
    return _Asked(existing_lake(warehouse, catalog), table)


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(maintain_app, name="maintain")


@maintain_app.command("expire")
@guarded
@with_options(retention=snapshot_retention, asked=asked_for)
def expire_snapshots(
    retention: Retention | None,
    older_than_hours: AgeOption = 24.0,
    apply: ApplyOption = False,
    *,
    asked: _Asked,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Let go of old snapshots, and delete the files that only they had. Tags and branches stay."""
    with _tables("maintain expire", asked) as tables:
        done = tables.expire(retention, older_than_hours, apply)
    emit_rows(("table", "snapshots", "kept", "files", "bytes"), map(asdict, done), output)
    _verdict(f"Expired {sum(one.snapshots for one in done):,} snapshots and deleted {_sizes(done)}", apply)


@maintain_app.command("compact")
@guarded
@with_options(asked=asked_for)
def compact_files(
    target_file_mb: TargetOption = 64,
    quiet_hours: QuietOption = 1.0,
    apply: ApplyOption = False,
    *,
    asked: _Asked,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Make small data files of a partition into few large ones. Jobs may write meanwhile."""
    columns = ("table", "partition", "result", "rows", "files", "bytes", "files_after", "bytes_after", "digest")
    with _tables("maintain compact", asked) as tables:
        done = list(tables.compact(target_file_mb * _MIB, quiet_hours, apply))
    emit_rows(columns, map(asdict, done), output)
    _verdict(_compacted(done), apply)


@maintain_app.command("orphans")
@guarded
@with_options(asked=asked_for)
def find_orphans(
    older_than_hours: AgeOption = 24.0,
    delete: Annotated[bool, typer.Option("--delete", "--apply", help="Delete them; otherwise only list them.")] = False,
    *,
    asked: _Asked,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List files that no snapshot has, such as a crash leaves, or delete them."""
    with _tables("maintain orphans", asked) as tables:
        found = tables.orphans(older_than_hours, delete)
    emit_rows(("table", "path", "bytes", "modified_at"), map(asdict, found), output)
    count, size = len(found), sum(file.bytes for file in found)
    _verdict(f"Deleted {count:,} files of {size:,} bytes", delete, "--delete")


@maintain_app.command("coverage")
@guarded
@with_options(asked=asked_for)
def check_coverage(
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make it what the rows say, with --apply.")] = False,
    apply: ApplyOption = False,
    *,
    asked: _Asked,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Compare the coverage of the tables with their rows, or rebuild it. Exit code 1: it differs and was left so."""
    if apply and not rebuild:
        raise UsageError("--apply goes with --rebuild: to compare changes nothing")
    with _tables("maintain coverage", asked) as tables:
        changes = tables.coverage(apply)
    columns = ("table", "source", "partition", "without_rows", "without_coverage", "damaged")
    emit_rows(columns, map(asdict, changes), output)
    _verdict(f"Rebuilt the coverage of {len(changes):,} source partitions", apply, "--rebuild --apply")
    if changes and not apply:
        raise typer.Exit(1)


@maintain_app.command("verify")
@guarded
@with_options(asked=asked_for)
def verify_files(*, asked: _Asked, output: OutputOption = OutputFormat.TABLE) -> None:
    """Look whether every file of every snapshot is there, in its size and with its rows. Exit code 1: one is not."""
    with _tables("maintain verify", asked) as tables:
        damaged = tables.verify()
    emit_rows(("table", "path", "problem"), map(asdict, damaged), output)
    _end_with(damaged)


@maintain_app.command("run")
@guarded
@with_options(retention=snapshot_retention, asked=asked_for)
def run_all(
    retention: Retention | None,
    older_than_hours: AgeOption = 24.0,
    target_file_mb: TargetOption = 64,
    quiet_hours: QuietOption = 1.0,
    apply: ApplyOption = False,
    *,
    asked: _Asked,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """All that a day asks for: expire, delete orphans, compact, verify. Exit code 1: a file is lost or damaged."""
    with _tables("maintain run", asked) as tables:
        expired = tables.expire(retention, older_than_hours, apply)
        unused = tables.orphans(older_than_hours, apply)
        compacted = [one for one in tables.compact(target_file_mb * _MIB, quiet_hours, apply) if one.result != "busy"]
        damaged = tables.verify()
    rows: list[dict[str, Any]] = [{"step": "expire", **asdict(one)} for one in expired]
    for name in tables.names:
        mine = [file for file in unused if file.table == name]
        rows.append({"step": "orphans", "table": name, "files": len(mine), "bytes": sum(file.bytes for file in mine)})
    rows += [{"step": "compact", **asdict(one)} for one in compacted]
    for name in tables.names:
        rows.append({"step": "verify", "table": name, "files": sum(one.table == name for one in damaged)})
    emit_rows(("step", "table", "snapshots", "files", "bytes"), rows, output)
    deleted = sum(row["files"] for row in rows if row["step"] in ("expire", "orphans"))
    _verdict(f"Deleted {deleted:,} files. {_compacted(compacted)}", apply)
    _end_with(damaged)


@dataclass(frozen=True, slots=True)
class _Tables:
    """The tables to look after, and who hears of the steps."""

    lake: k2beam.Lake
    names: tuple[str, ...]
    step: Callable[[str], None]

    def expire(self, retention: Retention | None, hours: float, apply: bool) -> list[Expiry]:
        from k2beam.maintain.expire import expire

        if retention is None:
            return []
        age, catalog, namespace = timedelta(hours=hours), self.lake.catalog, self.lake.namespace
        return [
            expire(catalog, namespace, name, retention, age, apply=apply, on_delete=self._deleted)
            for name in self._each()
        ]

    def orphans(self, hours: float, delete: bool) -> list[UnusedFile]:
        from k2beam.lake.scan import load_readable
        from k2beam.maintain.orphans import delete_files, orphans

        found = []
        for name in self._each():
            table = load_readable(self.lake.catalog, self.lake.namespace, name)
            unused = orphans(table, timedelta(hours=hours))
            if delete:
                delete_files(table, unused, self._deleted)
            found += unused
        return found

    def compact(self, target: int, quiet_hours: float, apply: bool) -> Iterator[Compaction]:
        from k2beam.maintain.compact import compact_group, plan_compaction

        quiet_since = now_us() - int(quiet_hours * _HOUR_US)
        for name in self._each():
            for planned, group in plan_compaction(self.lake.catalog, self.lake.namespace, name, target, quiet_since):
                if group.busy or not apply:
                    yield planned
                else:
                    self.step(f"{name} {planned.partition}: {planned.rows:,} rows of {planned.files:,} files")
                    yield compact_group(self.lake.catalog, self.lake.namespace, planned, group, target)

    def coverage(self, apply: bool) -> list[CoverageChange]:
        from k2beam.lake.tables import COVERED_TABLES
        from k2beam.maintain.coverage import rebuild_coverage

        covered = [name for name in self.names if name in COVERED_TABLES]
        return rebuild_coverage(self.lake.catalog, self.lake.namespace, covered, apply=apply, on_step=self.step)

    def verify(self) -> list[Damage]:
        from k2beam.lake.scan import load_readable
        from k2beam.maintain.verify import verify

        tables = (load_readable(self.lake.catalog, self.lake.namespace, name) for name in self._each())
        return [damage for table in tables for damage in verify(table, lambda file: self.step(file.file_path))]

    def _each(self) -> Iterator[str]:
        for name in self.names:
            self.step(name)
            yield name

    def _deleted(self, file: UnusedFile) -> None:
        self.step(f"deleted {file.path}")


@contextmanager
def _tables(title: str, asked: _Asked) -> Iterator[_Tables]:
    """The tables that were made, or those of them that are asked for; with progress, while the context lasts.

    Raises UsageError for a table that there is not.
    """
    # pyiceberg takes most of a second to import; --help must not wait for it.
    from k2beam.lake.scan import find_readable
    from k2beam.lake.tables import SPECS

    opened = k2beam.Lake.of(asked.lake)
    there = tuple(name for name in SPECS if find_readable(opened.catalog, opened.namespace, name) is not None)
    if unknown := [name for name in asked.names or () if name not in there]:
        raise UsageError(f"there is no table {', '.join(unknown)}; the tables are {', '.join(there) or 'none yet'}")
    with step_progress(title) as step:
        yield _Tables(opened, tuple(name for name in there if asked.names is None or name in asked.names), step)


def _sizes(done: Sequence[Expiry]) -> str:
    return f"{sum(one.files for one in done):,} files of {sum(one.bytes for one in done):,} bytes"


def _compacted(done: Sequence[Compaction]) -> str:
    made = [one for one in done if one.result not in ("busy", "gone")]
    before, after = (sum(getattr(one, name) for one in made) for name in ("files", "files_after"))
    return f"Compacted {before:,} files to {after:,}"


def _verdict(done: str, applied: bool, option: str = "--apply") -> None:
    text = f"{done}." if applied else f"Nothing was changed. With {option}: {done[0].lower()}{done[1:]}."
    typer.echo(text, err=True)


def _end_with(damaged: Sequence[Damage]) -> None:
    """Say whether all files are well. Raises typer.Exit(1) where one is not."""
    if not damaged:
        typer.echo("Every file is there, as the snapshots say.", err=True)
        return
    for damage in damaged:
        typer.echo(printable(f"table {damage.table}: file {damage.path} {damage.problem}"), err=True)
    raise typer.Exit(1)
