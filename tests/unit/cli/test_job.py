"""The commands of jobs on Flink: what they print, and how they exit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from k2beam.cli.main import app
from tests.flink_rest import Cluster, flink_rest

KEY = "0123456789ab"
RUNNING = {
    "job_id": "old",
    "key": KEY,
    "state": "RUNNING",
    "started": "2026-01-05T00:00:00.000000Z",
    "tasks": 2,
    "tasks_started": 2,
    "run_id": "0a1b",
    "name": f"ticks-{KEY}-0a1b",
}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster with one job of ours, one of others, and its address in the environment."""
    with flink_rest() as (made, jobs):
        monkeypatch.setenv("K2BEAM_FLINK_MASTER", jobs.url)
        made.states = {"old": ["RUNNING"], "word-count": ["RUNNING"]}
        made.names["old"] = str(RUNNING["name"])
        made.started["old"] = 1_767_571_200_000
        made.answers["/jobs/old/checkpoints"] = {"counts": {"completed": 3, "failed": 0}}
        entries = [{"timestamp": 1_767_571_200_000, "stacktrace": "ValueError: seven"}]
        made.answers["/jobs/old/exceptions"] = {"exceptionHistory": {"entries": entries}}
        yield made


def job(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["job", *arguments, "--output", "json"])


def printed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_jobs_of_ours_are_listed(cluster: Cluster) -> None:
    del cluster
    assert printed(job("list")) == [RUNNING]


@pytest.mark.parametrize("name", ["old", KEY, str(RUNNING["name"])])
def test_the_status_has_checkpoints_and_failures(cluster: Cluster, name: str) -> None:
    del cluster
    failures = [{"at": "2026-01-05T00:00:00.000000Z", "cause": "ValueError: seven"}]
    assert printed(job("status", name)) == {
        **RUNNING,
        "checkpoints": {"completed": 3, "failed": 0},
        "failures": failures,
    }


def test_a_job_is_stopped_and_its_end_awaited(cluster: Cluster) -> None:
    assert printed(job("stop", KEY)) == {**RUNNING, "state": "CANCELED"}
    assert cluster.cancelled == ["old"]


def test_a_job_is_followed_to_its_end(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k2beam.cli.job._POLL_S", 0.0)
    cluster.states["old"] = ["CREATED", "RUNNING", "RUNNING", "FINISHED"]
    result = job("follow", "old")
    assert printed(result)["state"] == "FINISHED"
    lines = [line.partition(": ")[2] for line in result.stderr.splitlines()]
    assert lines == [
        "CREATED, 2 of 2 tasks",
        "failed at 2026-01-05 00:00:00: ValueError: seven",
        "RUNNING, 2 of 2 tasks",
        "FINISHED, 2 of 2 tasks",
    ]


@pytest.mark.parametrize("arguments", [("status", "old"), ("follow", "old")])
def test_a_job_that_failed_is_an_error(cluster: Cluster, arguments: Sequence[str]) -> None:
    cluster.states["old"] = ["FAILED"]
    result = job(*arguments)
    assert json.loads(result.stdout)["state"] == "FAILED"
    assert "failed: start it again" in str(result.exception)
