"""Jobs that another client started: refused, replaced or followed, and how their end is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from apache_beam.runners.runner import PipelineState

from k2beam.errors import FlinkRestError, RunnerGone, UsageError
from k2beam.flink import FlinkJobs, FlinkRun
from k2beam.job import attached
from k2beam.job.attached import AttachedJob, take_over
from k2beam.job.beam import reason_of, state_of
from k2beam.job.config import Existing
from tests.flink_rest import Cluster, flink_rest

KEY = "0123456789ab"


@pytest.fixture
def cluster() -> Iterator[tuple[Cluster, FlinkJobs]]:
    with flink_rest() as made:
        yield made


def left(made: Cluster, *jobs: str) -> None:
    """Jobs of the same key that run."""
    for job in jobs:
        made.states[job], made.names[job] = ["RUNNING"], f"ticks-{KEY}-{job}"


@pytest.mark.parametrize("existing", list(Existing))
def test_without_such_a_job_one_is_started(cluster: tuple[Cluster, FlinkJobs], existing: Existing) -> None:
    made, jobs = cluster
    made.states, made.names = {"old": ["FAILED"]}, {"old": f"ticks-{KEY}-old"}
    assert take_over(FlinkRun(jobs, f"ticks-{KEY}-new"), existing) is None
    assert made.cancelled == []


def test_one_that_runs_is_refused_followed_or_ended(cluster: tuple[Cluster, FlinkJobs]) -> None:
    made, jobs = cluster
    left(made, "old")
    run = FlinkRun(jobs, f"ticks-{KEY}-new")
    with pytest.raises(UsageError, match=f"the same job, into the same tables, runs at .*: ticks-{KEY}-old. --replace"):
        take_over(run, Existing.REFUSE)
    followed = take_over(run, Existing.ATTACH)
    assert followed is not None
    assert (followed.name, followed.run_id, made.cancelled) == (f"ticks-{KEY}-old", "old", [])
    assert take_over(run, Existing.REPLACE) is None
    assert made.cancelled == ["old"]


def test_of_two_none_can_be_followed_and_both_are_replaced(cluster: tuple[Cluster, FlinkJobs]) -> None:
    made, jobs = cluster
    left(made, "a", "b")
    run = FlinkRun(jobs, f"ticks-{KEY}-new")
    with pytest.raises(UsageError, match="only one job can be followed"):
        take_over(run, Existing.ATTACH)
    assert take_over(run, Existing.REPLACE) is None
    assert sorted(made.cancelled) == ["a", "b"]


def test_one_that_is_about_to_end_is_waited_for(cluster: tuple[Cluster, FlinkJobs]) -> None:
    made, jobs = cluster
    left(made, "old")
    made.states["old"] = ["CANCELLING", "CANCELLING", "CANCELED"]
    assert take_over(FlinkRun(jobs, f"ticks-{KEY}-new"), Existing.ATTACH) is None
    assert made.cancelled == []


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("RUNNING", PipelineState.RUNNING),
        ("RESTARTING", PipelineState.RUNNING),
        ("CANCELLING", PipelineState.RUNNING),
        ("FINISHED", PipelineState.DONE),
        ("CANCELED", PipelineState.CANCELLED),
        ("FAILED", PipelineState.FAILED),
    ],
)
def test_states_are_those_of_beam(cluster: tuple[Cluster, FlinkJobs], state: str, told: str) -> None:
    made, jobs = cluster
    made.states = {"a": [state]}
    assert state_of(AttachedJob(FlinkRun(jobs, "name-a"))) == told


def test_why_it_failed_is_told(cluster: tuple[Cluster, FlinkJobs]) -> None:
    made, jobs = cluster
    made.states = {"a": ["FAILED"]}
    entries = [{"timestamp": 1, "stacktrace": "org.x.Failed: outer\nCaused by: java.io.IOException: the disk is full"}]
    made.answers["/jobs/a/exceptions"] = {"exceptionHistory": {"entries": entries}}
    assert "the disk is full" in reason_of(AttachedJob(FlinkRun(jobs, "name-a")))


def test_a_job_that_the_cluster_lost_is_gone(cluster: tuple[Cluster, FlinkJobs]) -> None:
    _, jobs = cluster
    with pytest.raises(RunnerGone, match="does not know job name-a any more; run it again"):
        state_of(AttachedJob(FlinkRun(jobs, "name-a")))


def test_a_cluster_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(attached.time, "monotonic", lambda: now[0])
    job = AttachedJob(FlinkRun(FlinkJobs("127.0.0.1:1"), "x"))
    assert job.state == PipelineState.RUNNING
    now[0] += attached.CLUSTER_AWAY_SECONDS + 1
    with pytest.raises(FlinkRestError, match="was not answered"):
        _ = job.state
