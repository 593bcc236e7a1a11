"""Jobs of a Flink cluster: found by key, id or name, waited for, ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k2beam.errors import FlinkRestError, PlatformError, UsageError
from k2beam.flink import FlinkJob, FlinkJobs, FlinkRun, job_key
from tests.flink_rest import Cluster, flink_rest

KEY, OTHER = "0123456789ab", "ba9876543210"


@pytest.fixture
def cluster() -> Iterator[tuple[Cluster, FlinkJobs]]:
    with flink_rest() as made:
        yield made


def test_a_cluster_on_this_machine_is_not_asked_through_a_proxy(
    cluster: tuple[Cluster, FlinkJobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    made, jobs = cluster
    made.states = {"a": ["RUNNING"]}
    assert [job.id for job in jobs.jobs("name-a")] == ["a"]
    with pytest.raises(FlinkRestError, match="was not answered"):
        FlinkJobs("flink.example:8081").overview()


def test_a_run_ends_its_own_job_alone(cluster: tuple[Cluster, FlinkJobs]) -> None:
    made, jobs = cluster
    made.states = {"a": ["RUNNING"], "b": ["RUNNING"]}
    FlinkRun(jobs, "name-a").end()
    assert made.cancelled == ["a"]
    assert [job.state for job in jobs.jobs("name-a")] == ["CANCELED"]
    assert [job.state for job in jobs.jobs("name-b")] == ["RUNNING"]


def test_a_job_that_is_still_being_submitted_is_waited_for(cluster: tuple[Cluster, FlinkJobs]) -> None:
    made, jobs = cluster
    made.states, made.comes_at = {"a": ["INITIALIZING"]}, 2
    FlinkRun(jobs, "name-a").end()
    assert made.cancelled == ["a"]


def test_a_job_that_never_comes_is_an_error_unless_it_failed_before(cluster: tuple[Cluster, FlinkJobs]) -> None:
    _, jobs = cluster
    FlinkRun(jobs, "name-a").end(submitted=False)
    with pytest.raises(FlinkRestError, match=r"job name-a has not come up at http://127.* after 0 s: .*by hand"):
        FlinkRun(jobs, "name-a").end(submission_s=0)


def test_one_that_does_not_end_is_an_error(cluster: tuple[Cluster, FlinkJobs], monkeypatch: pytest.MonkeyPatch) -> None:
    made, jobs = cluster
    made.states = {"a": ["RUNNING"]}
    monkeypatch.setattr(FlinkJobs, "cancel", lambda *_: None)
    with pytest.raises(FlinkRestError, match="job name-a has not ended"):
        FlinkRun(jobs, "name-a").end(cancel_s=0)


def test_one_that_ended_meanwhile_is_left_alone_and_a_refusal_is_told(cluster: tuple[Cluster, FlinkJobs]) -> None:
    made, jobs = cluster
    made.stubborn.add("a")
    made.answers["/jobs/a"] = {"state": "FINISHED"}
    jobs.cancel("a")
    made.answers["/jobs/a"] = {"state": "RUNNING"}
    with pytest.raises(FlinkRestError, match=r"PATCH .*/jobs/a\?mode=cancel was refused: .*could not be found"):
        jobs.cancel("a")


def test_counters_are_summed_over_the_tasks(cluster: tuple[Cluster, FlinkJobs]) -> None:
    made, jobs = cluster
    made.states = {"a": ["RUNNING"]}
    made.answers["/jobs/a"] = {"vertices": [{"id": "v"}, {"id": "w"}]}
    one, two = "[1]{Read__Decode}.k2beam_consumed", "Commit.k2beam_rows_written_trades_v2"
    made.answers["/jobs/a/vertices/v/subtasks/metrics"] = [{"id": "numRecordsIn"}, {"id": one}]
    made.answers["/jobs/a/vertices/w/subtasks/metrics"] = [{"id": two}, {"id": one}]
    made.answers[f"/jobs/a/vertices/v/subtasks/metrics?get={one}&agg=sum"] = [{"id": one, "sum": 40.0}]
    both = [{"id": two, "sum": 5.0}, {"id": one, "sum": 2.0}]
    made.answers[f"/jobs/a/vertices/w/subtasks/metrics?get={two},{one}&agg=sum"] = both
    assert FlinkRun(jobs, "name-a").counters(settle_s=0) == {"consumed": 42, "rows_written_trades_v2": 5}


def test_a_cluster_that_does_not_answer_is_named() -> None:
    with pytest.raises(FlinkRestError, match=r"GET http://127\.0\.0\.1:1/overview was not answered: .*refused"):
        FlinkJobs("127.0.0.1:1").overview()


def test_an_address_is_a_host_and_port_or_a_url() -> None:
    assert FlinkJobs("here:1").url == FlinkJobs("http://here:1/").url == "http://here:1"
    with pytest.raises(PlatformError, match="file:///x is not the address"):
        FlinkJobs("file:///x")


def test_a_name_has_the_key_of_the_job_and_the_id_of_the_run() -> None:
    job = FlinkJob("1", f"my-ticks-{KEY}-0a1b", "RUNNING")
    assert (job.label, job.key, job.run_id) == ("my-ticks", KEY, "0a1b")
    of_others = FlinkJob("2", "word-count", "RUNNING")
    assert (of_others.label, of_others.key, of_others.run_id) == (None, None, None)


def test_the_key_is_that_of_the_same_job_alone() -> None:
    assert job_key("tables", ["a", "b"]) == job_key("tables", iter(["b", "a"]))
    keys = {job_key("tables", ["a"]), job_key("other", ["a"]), job_key("tables", ["a", "b"]), job_key("tables", "a")}
    assert len(keys) == 4


def filled(made: Cluster, **jobs: tuple[str, str]) -> None:
    """Jobs by their id, with key and state; each started later than the one before."""
    for number, (job, (key, state)) in enumerate(jobs.items()):
        made.states[job], made.names[job], made.started[job] = [state], f"ticks-{key}-{job}", number


def test_rivals_are_other_runs_of_the_same_job_that_run(cluster: tuple[Cluster, FlinkJobs]) -> None:
    made, jobs = cluster
    filled(
        made,
        new=(KEY, "RUNNING"),
        own=(KEY, "RUNNING"),
        old=(KEY, "RESTARTING"),
        ended=(KEY, "FAILED"),
        another=(OTHER, "RUNNING"),
    )
    assert [job.id for job in FlinkRun(jobs, f"ticks-{KEY}-own").rivals()] == ["new", "old"]


@pytest.mark.parametrize("text", ["old", KEY, "ticks", f"ticks-{KEY}-old"])
def test_a_job_is_found_by_id_key_and_name_and_the_running_one_first(
    cluster: tuple[Cluster, FlinkJobs], text: str
) -> None:
    made, jobs = cluster
    filled(made, old=(KEY, "RUNNING"), failed=(KEY, "FAILED"))
    made.states["another"], made.names["another"] = ["RUNNING"], f"quotes-{OTHER}-x"
    assert jobs.find(text).id == "old"
    made.states["old"] = ["CANCELED"]
    assert jobs.find(text).id == ("failed" if text in (KEY, "ticks") else "old")


def test_a_job_that_is_none_or_several_is_refused(cluster: tuple[Cluster, FlinkJobs]) -> None:
    made, jobs = cluster
    filled(made, one=(KEY, "RUNNING"), two=(KEY, "RUNNING"))
    with pytest.raises(UsageError, match=f"2 jobs run as {KEY}: name one by its id, one, two"):
        jobs.find(KEY)
    with pytest.raises(UsageError, match="knows no job three"):
        jobs.find("three")


def test_a_job_runs_once_all_its_tasks_do(cluster: tuple[Cluster, FlinkJobs]) -> None:
    made, jobs = cluster
    made.states, made.tasks = {"a": ["CREATED", "RUNNING"]}, {"a": {"total": 3, "running": 1, "finished": 1}}
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            made.tasks["a"]["running"] = 2

    found = FlinkRun(jobs, "name-a").wait_running(look)
    assert (found.state, found.tasks, found.tasks_started, looks) == ("RUNNING", 3, 3, 3)


def test_a_job_that_does_not_come_to_run_is_an_error(cluster: tuple[Cluster, FlinkJobs]) -> None:
    made, jobs = cluster
    made.states, made.tasks = {"a": ["RUNNING"]}, {"a": {"total": 3}}
    with pytest.raises(FlinkRestError, match="job name-a does not run at"):
        FlinkRun(jobs, "name-a").wait_running(patience_s=0)
    made.states = {"a": ["FAILED"]}
    entry = {"timestamp": 1, "stacktrace": "org.flink.NoResourceAvailableException: no slots"}
    made.answers["/jobs/a/exceptions"] = {"exceptionHistory": {"entries": [entry]}}
    with pytest.raises(FlinkRestError, match=r"job name-a ended as FAILED: .*no slots"):
        FlinkRun(jobs, "name-a").wait_running()


def test_a_job_that_was_started_twice_by_one_name_is_told_apart_by_its_id(
    cluster: tuple[Cluster, FlinkJobs],
) -> None:
    made, jobs = cluster
    for name, state in {"first": "CANCELED", "second": "RUNNING"}.items():
        made.states[name], made.names[name] = [state], f"ticks-{KEY}-x"
    run = FlinkRun(jobs, f"ticks-{KEY}-x", "second")
    assert run.job() == jobs.find("second")
    run.end(submitted=False)
    assert made.cancelled == ["second"]
