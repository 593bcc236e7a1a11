"""The commands ``k2beam ingest …``."""

from __future__ import annotations

import re
import sys
import uuid
from typing import Annotated

import typer

from k2beam.cli.csv import register_csv
from k2beam.cli.metrics_options import MetricsOptions, metrics_options
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import CatalogOption, OutputFormat, OutputOption, WarehouseOption, emit_object, lake_config
from k2beam.cli.progress import consumed_progress
from k2beam.errors import UsageError
from k2beam.ingest.stats import IngestStats

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_MIB = 1 << 20

ingest_app = typer.Typer(help="Take messages into the tables, exactly once.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    register_csv(ingest_app)
    app.add_typer(ingest_app, name="ingest")


def seconds(text: str, option: str) -> float:
    """Seconds of a duration such as ``500ms``, ``60s``, ``15m``, ``1d``; a bare number is seconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{option} takes a duration such as 500ms, 60s, 15m or 1d, not {text!r}")
    return float(match[1]) * _SECONDS[match[2] or "s"]


@ingest_app.command("archive")
@with_options(metrics=metrics_options)
def archive(
    context: typer.Context,
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Avro containers, globs or folders.")],
    warehouse: WarehouseOption = None,
    catalog: CatalogOption = None,
    root: Annotated[str | None, typer.Option(help="Refuse any path outside this folder.")] = None,
    window: Annotated[str, typer.Option(help="Window of event time; rows of two windows share no file.")] = "1d",
    gap_grace: Annotated[
        str, typer.Option(help="How long a gap waits for late data; an archive is judged once, at its end.")
    ] = "5s",
    target_file_mb: Annotated[int, typer.Option(help="Parquet size at which a data file is closed, MiB.")] = 64,
    memory_mb: Annotated[int, typer.Option(help="Rows that a worker buffers before it writes, MiB.")] = 96,
    commit_rows: Annotated[int, typer.Option(help="Rows at which a commit is due before the end.")] = 5_000_000,
    dead_letters_json: Annotated[
        str | None, typer.Option(help="Folder for a copy of the dead letters as JSON lines.")
    ] = None,
    *,
    metrics: MetricsOptions,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Replay archived Avro into the tables. Beam's own options follow after --."""
    from k2beam.lake.config import WriteConfig
    from k2beam.options import IngestConfig
    from k2beam.run import run_ingest
    from transforms.read_archive import ReadArchive

    config = IngestConfig(
        lake=lake_config(warehouse, catalog),
        write=WriteConfig(
            run_id=uuid.uuid4().hex,
            window_seconds=int(seconds(window, "--window")),
            target_file_bytes=target_file_mb * _MIB,
            memory_bytes=memory_mb * _MIB,
            commit_rows=commit_rows,
        ),
        gap_grace_seconds=seconds(gap_grace, "--gap-grace"),
        dead_letters_json=dead_letters_json,
        metrics=metrics.config,
    )
    with consumed_progress("replay", total=_records(paths, root)):
        stats = run_ingest(ReadArchive(paths, root=root), config, context.obj or ())
    metrics.push(stats)
    emit_object(stats.as_dict(), output, title="ingest archive")
    typer.echo(verdict(stats), err=True)


def _records(paths: list[str], root: str | None) -> int:
    """How many records there are by the framing of the containers; counted for the bar alone."""
    if not sys.stderr.isatty():
        return 0
    from k2beam.archive import expand_paths, plan_archive

    return sum(plan_archive(path, root).records for path in expand_paths(paths))


def verdict(stats: IngestStats) -> str:
    """One line on what a run did."""
    new = sum(stats.written.values()) + stats.dead_letters
    if new == 0 and stats.already_covered:
        return f"Nothing new: all {stats.already_covered:,} offsets are in the tables already."
    skipped = f", {stats.already_covered:,} were there already" if stats.already_covered else ""
    return (
        f"{sum(stats.written.values()):,} rows and {stats.dead_letters:,} dead letters in {stats.duration_s:.1f} s "
        f"({stats.throughput_per_s:,.0f} a second){skipped}."
    )
