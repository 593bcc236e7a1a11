"""The command ``k2beam ingest kafka``."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

import k2beam
from k2beam.cli.durations import seconds
from k2beam.cli.ingest import ingest_app, verdict
from k2beam.cli.job import job_row
from k2beam.cli.live_options import LiveOptions, live_options
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_object
from k2beam.errors import UsageError
from k2beam.job.config import STALL_SECONDS, Existing


def register(app: typer.Typer) -> None:
    """Add the command to the ``ingest`` commands, which are in ``app`` already."""
    del app
    ingest_app.command("kafka")(kafka)


@with_options(job=live_options)
def kafka(
    context: typer.Context,
    job: LiveOptions,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when all that is there at the start is committed.")
    ] = False,
    max_messages: Annotated[int | None, typer.Option(min=1, help="End after about so many messages.")] = None,
    stall_after: Annotated[
        str,
        typer.Option(help="Fail when nothing is taken for so long while the broker has messages; 0: never."),
    ] = f"{STALL_SECONDS / 60:g}m",
    attach: Annotated[
        bool, typer.Option("--attach", help="Where the same job runs on Flink already, follow it, else start it.")
    ] = False,
    replace_existing: Annotated[
        bool, typer.Option("--replace", help="Where the same job runs on Flink already, end it first.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave the job on Flink once it runs: k2beam job lists, stops it.")
    ] = False,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Read topics into the tables, from where the tables stand. Beam's own options follow after --."""
    if attach and replace_existing:
        raise UsageError("--attach follows a job that runs already and --replace ends it: leave one of the two out")
    live = replace(
        job.live,
        until_caught_up=until_caught_up,
        max_messages=max_messages,
        stall_seconds=seconds(stall_after, "--stall-after"),
        existing=Existing.ATTACH if attach else Existing.REPLACE if replace_existing else Existing.REFUSE,
    )
    if not live.has_goal:
        job.metrics.refuse_push_for("a job without --until-caught-up or --max-messages")
    if detach:
        from k2beam.job.live import detach_live

        left = detach_live(live, job.config, context.obj or (), resolver=job.resolver)
        emit_object(job_row(left), output, title="ingest kafka --detach")
        typer.echo(f"The job runs on: k2beam job stop {left.id} ends it, --attach follows it.", err=True)
        return
    stats = k2beam.run_live(live, job.config, context.obj or (), resolver=job.resolver)
    job.metrics.push(stats)
    emit_object(stats.as_dict(), output, title="ingest kafka")
    typer.echo(verdict(stats), err=True)
