"""The command ``k2beam demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from k2beam.cli.guard import guarded
from k2beam.cli.output import OutputFormat, OutputOption, emit_object
from k2beam.job.config import Reader


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("demo")(demo)


@guarded
def demo(
    rows: Annotated[int, typer.Option(help="Messages of the feed that is made, over trades and quotes.")] = 6000,
    faults: Annotated[
        str, typer.Option(help="Faults of the feed, as for simulate: gaps=12,duplicates=15,malformed=9.")
    ] = "",
    seed: Annotated[int, typer.Option(help="The same seed gives the same feed.")] = 0,
    source: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of raw_record containers to take instead, such as samples/crypto."),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New folder in which feed, tables and servers' logs stay [default: none do]."),
    ] = None,
    reader: Annotated[Reader, typer.Option(help="What reads the topics; beam starts the Java expansion service.")] = (
        Reader.LIBRDKAFKA
    ),
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Everything once: servers up, messages through Kafka and Prism into tables, all checked, servers down.

    The first time it fetches what is missing (about 400 MB) and builds Prism. Exits with 1 unless all is right.
    """
    from k2beam.demo import DemoConfig, run_demo
    from k2beam.simulate.faults import parse_faults

    config = DemoConfig(rows=rows, faults=parse_faults(faults), seed=seed, source=source, keep=keep, reader=reader)
    report = run_demo(config, lambda step: typer.echo(step, err=True))
    emit_object(report, output, title="demo")
    if not report.ok:
        typer.echo(f"FAILED: {'; '.join(report.problems)}", err=True)
        raise typer.Exit(1)
    typer.echo(f"PASSED: all {report.produced:,} messages are in the tables or the dead letters, each once.", err=True)
