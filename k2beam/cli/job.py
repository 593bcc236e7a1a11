"""The commands ``k2beam job …``: jobs on a Flink cluster, over its REST API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from k2beam.cli.output import OutputFormat, OutputOption, emit_object, emit_rows
from k2beam.errors import K2BeamError
from k2beam.flink import FlinkJob, FlinkJobs, FlinkRun
from k2beam.signals import stop_signal

LOCAL_FLINK = "localhost:8082"
"""Where ``k2beam stack`` starts Flink."""

_POLL_S = 2.0
_FAILURES = 3
_COLUMNS = ("job_id", "key", "state", "started", "tasks", "tasks_started", "run_id", "name")

job_app = typer.Typer(help="Jobs on a Flink cluster, which outlive their client.", no_args_is_help=True)

FlinkOption = Annotated[
    str,
    typer.Option(
        "--flink-master",
        metavar="HOST:PORT",
        envvar="K2BEAM_FLINK_MASTER",
        help="Flink's REST API, or its http(s) URL.",
    ),
]
_JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Its id, key, name, or --job_name.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(job_app, name="job")


@job_app.command("list")
def list_jobs(flink_master: FlinkOption = LOCAL_FLINK, output: OutputOption = OutputFormat.TABLE) -> None:
    """List k2beam's jobs that the cluster knows, also those that have ended, the latest first."""
    ours = (job for job in FlinkJobs(flink_master).jobs() if job.key is not None)
    emit_rows(_COLUMNS, map(job_row, sorted(ours, key=lambda job: -job.started_ms)), output)


@job_app.command("status")
def status(
    job: _JobArgument, flink_master: FlinkOption = LOCAL_FLINK, output: OutputOption = OutputFormat.TABLE
) -> None:
    """Say how one job is: its state, its checkpoints, its last failures. Exit 1 where it failed."""
    cluster = FlinkJobs(flink_master)
    found = cluster.find(job)
    emit_object(_detailed(cluster, found), output, title=f"job {found.name}")
    _judge(found)


@job_app.command("stop")
def stop(job: _JobArgument, flink_master: FlinkOption = LOCAL_FLINK, output: OutputOption = OutputFormat.TABLE) -> None:
    """Cancel a job and wait until it has ended. What it committed stays; the next start takes the rest."""
    cluster = FlinkJobs(flink_master)
    found = cluster.find(job)
    FlinkRun.of(cluster, found).end(submitted=False)
    emit_object(job_row(cluster.find(found.id)), output, title=f"job {found.name}")


@job_app.command("follow")
def follow(
    job: _JobArgument, flink_master: FlinkOption = LOCAL_FLINK, output: OutputOption = OutputFormat.TABLE
) -> None:
    """Tell of a job's states and failures until it ends; SIGINT and SIGTERM end the following alone.

    Exit 1 where it failed. Who looks after a live job's holes and gaps as well is k2beam ingest kafka --attach.
    """
    cluster = FlinkJobs(flink_master)
    found = cluster.find(job)
    told_state, told_ms = "", 0
    with stop_signal() as stop:
        while True:
            if found.state != told_state:
                told_state = found.state
                typer.echo(f"{found.name}: {found.state}, {found.tasks_started} of {found.tasks} tasks", err=True)
            for failure in reversed(cluster.failures(found.id)):
                if failure.at_ms > told_ms:
                    told_ms = failure.at_ms
                    typer.echo(f"{found.name}: failed at {_time(failure.at_ms):%F %T}: {failure.cause}", err=True)
            if found.has_ended or stop.wait(_POLL_S):
                break
            found = cluster.find(found.id)
    emit_object(_detailed(cluster, found), output, title=f"job {found.name}")
    _judge(found)


def job_row(job: FlinkJob) -> Mapping[str, Any]:
    """A job as the commands print it."""
    return {
        "job_id": job.id,
        "key": job.key,
        "state": job.state,
        "started": _time(job.started_ms),
        "tasks": job.tasks,
        "tasks_started": job.tasks_started,
        "run_id": job.run_id,
        "name": job.name,
    }


def _detailed(cluster: FlinkJobs, job: FlinkJob) -> Mapping[str, Any]:
    failures = [{"at": _time(failure.at_ms), "cause": failure.cause} for failure in cluster.failures(job.id)]
    return {**job_row(job), "checkpoints": cluster.checkpoints(job.id)["counts"], "failures": failures[:_FAILURES]}


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _judge(job: FlinkJob) -> None:
    if job.state == "FAILED":
        raise K2BeamError(f"job {job.name} failed: start it again, what was committed is left out")
