"""The commands ``k2beam ingest …``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

import k2beam
from k2beam.archive.files import expand_paths
from k2beam.cli.csv import register_csv
from k2beam.cli.durations import seconds, whole_seconds
from k2beam.cli.intake_options import IntakeOptions, OnlyMissingOption, ReplayLettersOption, intake_options
from k2beam.cli.lake_options import archive_stores, lake_config
from k2beam.cli.metrics_options import MetricsOptions, metrics_options
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_object
from k2beam.cli.progress import consumed_progress
from k2beam.config import LakeConfig, WriteConfig
from k2beam.job.config import IngestConfig

if TYPE_CHECKING:
    from k2beam.archive.stores import Stores
    from k2beam.job.stats import IngestStats

_MIB = 1 << 20

ingest_app = typer.Typer(help="Take messages into the tables, exactly once.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    register_csv(ingest_app)
    app.add_typer(ingest_app, name="ingest")


@ingest_app.command("archive")
@with_options(lake=lake_config, intake=intake_options, metrics=metrics_options)
def archive(
    context: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Avro containers, globs or folders, of this machine or s3://…"),
    ],
    *,
    lake: LakeConfig,
    root: Annotated[str | None, typer.Option(help="Refuse any path outside this folder.")] = None,
    window: Annotated[str, typer.Option(help="Window of event time; rows of two windows share no file.")] = "1d",
    gap_grace: Annotated[
        str, typer.Option(help="How long a gap waits for late data; an archive is judged once, at its end.")
    ] = "5s",
    target_file_mb: Annotated[int, typer.Option(min=1, help="Parquet size at which a data file is closed, MiB.")] = 64,
    memory_mb: Annotated[int, typer.Option(min=1, help="Rows that a worker buffers before it writes, MiB.")] = 96,
    commit_rows: Annotated[int, typer.Option(min=1, help="Rows at which a commit is due before the end.")] = 5_000_000,
    commit_mb: Annotated[int, typer.Option(min=1, help="The same in MiB of data files.")] = 1024,
    dead_letters_json: Annotated[
        str | None, typer.Option(help="Folder for a copy of the dead letters as JSON lines.")
    ] = None,
    replay_dead_letters: ReplayLettersOption = False,
    only_missing: OnlyMissingOption = False,
    intake: IntakeOptions,
    metrics: MetricsOptions,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Replay archived Avro into the tables. Beam's own options follow after --."""
    stores = archive_stores(paths, lake.catalog)
    expand_paths(paths, stores)  # refused before Beam is loaded, which takes seconds
    from transforms.read_archive import ReadArchive

    config = IngestConfig(
        lake=lake,
        write=WriteConfig(
            window_seconds=whole_seconds(window, "--window"),
            target_file_bytes=target_file_mb * _MIB,
            memory_bytes=memory_mb * _MIB,
            commit_rows=commit_rows,
            commit_bytes=commit_mb * _MIB,
        ),
        gap_grace_seconds=seconds(gap_grace, "--gap-grace"),
        dead_letters_json=dead_letters_json,
        metrics=metrics.config,
        replay_dead_letters=replay_dead_letters,
        only_missing=only_missing,
        **intake._asdict(),
    )
    with consumed_progress("replay", total=_records(paths, root, stores)):
        stats = k2beam.run_ingest(ReadArchive(paths, root=root, stores=stores), config, context.obj or ())
    metrics.push(stats)
    emit_object(stats.as_dict(), output, title="ingest archive")
    typer.echo(verdict(stats), err=True)


def _records(paths: list[str], root: str | None, stores: Stores | None) -> int:
    """How many records there are by the framing of the containers; counted for the bar alone."""
    if not sys.stderr.isatty():
        return 0
    from k2beam.archive.plan import plan_archive

    return sum(plan_archive(path, root, stores=stores).records for path in expand_paths(paths, stores))


def verdict(stats: IngestStats) -> str:
    """One line on what a run did."""
    rows, dead = sum(stats.written.values()), stats.dead_letters
    if rows + dead == 0 and stats.already_covered:
        return f"Nothing was added: all {stats.already_covered:,} offsets are in the tables already."
    skipped = f", {stats.already_covered:,} were there already" if stats.already_covered else ""
    return (
        f"Added {rows:,} rows and {dead:,} dead letters in {stats.duration_s:.1f} s "
        f"({stats.throughput_per_s:,.0f} a second){skipped}."
    )
