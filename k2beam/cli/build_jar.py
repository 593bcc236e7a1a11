"""The command ``k2beam build-jar``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from k2beam.cli.live_options import LiveOptions, live_options
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_object


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("build-jar")(build)


@with_options(job=live_options)
def build(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(metavar="OUT.jar", help="The archive to write.")],
    job: LiveOptions,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Write a job that reads topics as one Java archive, which flink run starts. Beam's own options follow after --.

    It begins where the tables stand now. k2beam job lists, follows and stops it; k2beam ingest kafka --attach looks
    after its holes and gaps as well.
    """
    job.metrics.refuse_push_for("a job without an end")
    from k2beam.job.live import build_jar

    jar = build_jar(out, job.live, job.config, context.obj or (), resolver=job.resolver)
    emit_object({"jar": str(jar.path), "bytes": jar.nbytes, "name": jar.job_name}, output, title="build-jar")
    typer.echo(f"flink run --detached {jar.path} starts it, k2beam job follow {jar.job_name} follows it.", err=True)
