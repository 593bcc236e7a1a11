"""The program ``k2beam``: one file for each group of commands, put together here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from k2beam import __version__
from k2beam.cli import (
    archive,
    audit,
    build_jar,
    demo,
    dlq,
    doctor,
    exporter,
    gaps,
    ingest,
    ingest_kafka,
    job,
    maintain,
    produce,
    query,
    replay,
    report,
    schemas,
    simulate,
    snapshots,
    stack,
    topics,
    warehouse,
    worker,
)
from k2beam.cli.guard import run_guarded
from k2beam.cli.repeats import refuse_repeats

INTERRUPTED = 130
"""The exit code of a program that SIGINT ended, by which typer ends."""

app = typer.Typer(
    name="k2beam",
    help="Market data from Kafka or archives through Apache Beam into Apache Iceberg, exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for group in (
    ingest,
    ingest_kafka,
    build_jar,
    archive,
    demo,
    simulate,
    audit,
    gaps,
    query,
    replay,
    report,
    dlq,
    exporter,
    maintain,
    snapshots,
    warehouse,
    schemas,
    topics,
    produce,
    stack,
    worker,
    job,
    doctor,
):
    group.register(app)
refuse_repeats(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"k2beam {__version__}")
        raise typer.Exit


@app.callback()
def options(
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
    log_json: Annotated[bool, typer.Option("--log-json", help="Log as JSON lines.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Data goes to standard output, progress and errors to standard error.

    Exit codes: 0 good, 1 the check or the job failed, 2 wrong usage.
    """
    from k2beam.logs import configure_logging

    del version
    configure_logging(log_level, json=log_json)


def split_beam_options(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Ours, and Beam's: what follows the first ``--``."""
    given = list(arguments)
    if "--" not in given:
        return given, ()
    cut = given.index("--")
    return given[:cut], tuple(given[cut + 1 :])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends with SystemExit."""
    ours, beams = split_beam_options(sys.argv[1:] if arguments is None else arguments)
    try:
        run_guarded(app, args=ours, obj=beams, prog_name="k2beam")
    except SystemExit as end:
        if end.code == INTERRUPTED:
            sys.stderr.write("Interrupted: what was committed stays, and running it again takes the rest.\n")
        raise


if __name__ == "__main__":
    main()
