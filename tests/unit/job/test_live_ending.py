"""How a live job ends: by a runner that is gone, by a failure, and what is hidden when it is cancelled on purpose."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc  # type: ignore[import-untyped]
import pytest
from apache_beam.runners.runner import PipelineState

from k2beam.errors import FlinkRestError, K2BeamError, RunnerGone
from k2beam.flink import FlinkJobs, FlinkRun
from k2beam.job import goal, live
from k2beam.job.beam import ended_after, quiet, reason_of
from k2beam.job.config import IngestConfig, LiveConfig
from k2beam.kafka.cluster import Topic
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.guard import TopicGuard
from k2beam.lake.publish import Publisher, commits_done
from tests.lake_helpers import lake_config, write_config

pytestmark = pytest.mark.usefixtures("nothing_hidden")


class Result:
    """A job in one state, or one whose runner is gone; cancelled, and why it failed."""

    def __init__(self, state: str | None, failure: str = "") -> None:
        self._state = state
        self._failure = failure
        self.cancelled = 0
        self.waited = 0

    @property
    def state(self) -> str:
        if self._state is None:
            raise ValueError("Cannot invoke RPC on closed channel!")
        return self._state

    def cancel(self) -> None:
        self.cancelled += 1

    def wait_until_finish(self) -> str:
        self.waited += 1
        if self._failure:
            logging.error("%s", self._failure)
            raise RuntimeError(self._failure)
        return self.state


def guard() -> TopicGuard:
    return TopicGuard(KafkaConfig("broker:9092"), (Topic("ticks", "kafka:c/ticks/1", (0,)),))


class Unchanged:
    """A guard whose topics are still the same."""

    def look(self) -> None:
        """Say nothing."""


class Ending:
    """A goal that is reached after so many questions, by a job that ends by itself or not."""

    def __init__(self, *, by_itself: bool = False, asked: int = 1_000_000) -> None:
        self.by_itself = by_itself
        self.left = asked
        self.ended: list[bool] = []

    def is_reached(self, *, ended: bool) -> bool:
        self.ended.append(ended)
        return len(self.ended) >= self.left


def ends(result: Result, guard: Any = Unchanged()) -> None:  # noqa: B008 - has no state
    live._follow(result, threading.Event(), guard, cast("Any", Ending()))


def test_a_runner_that_is_gone_is_said_and_not_cancelled() -> None:
    result = Result(None)
    with pytest.raises(RunnerGone, match=r"does not answer any more.*run it again"):
        ends(result)
    live._end(result, None, guard())
    assert result.cancelled == 0


def test_a_failed_job_says_why_once(caplog: pytest.LogCaptureFixture) -> None:
    result = Result(
        PipelineState.FAILED, "Traceback (most recent call last):\n  File\nRegistryUnavailable: no answer\n\n"
    )
    with pytest.raises(K2BeamError, match="ended as FAILED: RegistryUnavailable: no answer; run it again"):
        ends(result)
    assert caplog.text == ""
    live._end(result, None, guard())
    assert result.cancelled == 0


def test_where_a_job_does_not_end_it_is_still_said_why_it_was_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def stays(*_: object, **__: object) -> None:
        raise FlinkRestError("job x has not ended")

    run = FlinkRun(FlinkJobs("here:8081"), "x")
    monkeypatch.setattr(FlinkRun, "end", stays)
    end = partial(live._end, Result(PipelineState.RUNNING), run, guard())
    with pytest.raises(K2BeamError, match=r"^it stalls\. Besides, job x has not ended$"), ended_after(end):
        raise K2BeamError("it stalls")


def test_a_job_that_ends_by_itself_is_looked_at_until_all_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.0)
    ending: Any = Ending(by_itself=True, asked=3)
    live._follow(Result(PipelineState.DONE), threading.Event(), cast("Any", Unchanged()), ending)
    assert ending.ended == [True] * 3
    monkeypatch.setattr(live, "ENDED_SECONDS", 0.0)
    ending = Ending(by_itself=True)
    with pytest.raises(K2BeamError, match="not all of it is committed; run it again"):
        live._follow(Result(PipelineState.DONE), threading.Event(), cast("Any", Unchanged()), ending)


def test_a_job_that_is_done_is_waited_for_so_that_beam_ends_its_worker() -> None:
    result = Result(PipelineState.DONE)
    live._end(result, None, guard())
    assert (result.waited, result.cancelled) == (1, 0)


def test_a_job_that_should_go_on_and_ends_is_an_error() -> None:
    with pytest.raises(K2BeamError, match="ended as DONE: its input came to an end"):
        ends(Result(PipelineState.DONE))


def test_a_job_that_failed_since_its_topic_is_gone_says_that() -> None:
    class Gone:
        def look(self) -> None:
            raise K2BeamError("a topic of this job is gone")

    with pytest.raises(K2BeamError, match="topic of this job is gone"):
        ends(Result(PipelineState.FAILED, "java.lang.RuntimeException: x"), Gone())


def test_of_a_stack_of_java_the_exception_is_told() -> None:
    stack = "org.apache.beam.X: first\n\tat a.b(C.java:1)\nCaused by: org.apache.Y: second\n\tat d.e(F.java:614)\n"
    assert reason_of(Result(PipelineState.FAILED, stack)) == "Caused by: org.apache.Y: second"


def test_only_what_beam_says_after_a_cancellation_is_hidden(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])
    result, worker = Result(PipelineState.RUNNING), logging.getLogger("apache_beam.runners.worker.sdk_worker")
    worker.error("before")
    live._end(result, None, guard())
    assert result.cancelled == 1
    worker.error("cancelled")
    logging.getLogger("k2beam.lake").error("ours")
    quiet.end()
    worker.error("next")
    assert [record.message for record in caplog.records] == ["before", "ours", "next"]


def test_other_threads_that_fail_are_still_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda raised: reported.append(raised.exc_type))
    quiet.begin()
    try:
        for error in (grpc.RpcError(), OSError()):
            thread = threading.Thread(target=_raise, args=(error,))
            thread.start()
            thread.join()
    finally:
        quiet.end()
    assert reported == [OSError]


def _raise(error: Exception) -> None:
    raise error


class Waiting:
    """A guard that lets a commit pass when told to."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()

    def check(self, _sources: Collection[str] = ()) -> None:
        self.asked.set()
        assert self.go.wait(30)


def test_the_end_waits_for_a_commit_that_is_under_way(tmp_path: Path) -> None:
    waiting = Waiting()
    publisher = Publisher(lake_config(tmp_path), replace(write_config(), guard=waiting))
    assert commits_done(0)
    thread = threading.Thread(target=publisher.publish, args=("trades_v2", []))
    thread.start()
    assert waiting.asked.wait(30)
    assert not commits_done(0.05)
    waiting.go.set()
    assert commits_done(30)
    thread.join()


class Caught:
    """The start of a job that had nothing to begin with, and whose goal is reached at once."""

    catalog = None
    covered = None

    class Probe:
        holes = None

        def without_holes(self, missing: Any) -> Any:
            return missing

    class Goal:
        def taken(self, *_of: Any) -> int:
            return 1

        def missing(self, *_of: Any) -> dict[Any, Any]:
            return {}

    probe, goal = Probe(), Goal()


@pytest.mark.parametrize(
    ("by_itself", "most", "ended", "looks"),
    [(True, None, False, 1), (True, None, True, 3), (False, None, False, 3), (True, 10, False, 3)],
    ids=["ends by itself", "has ended", "is ended", "counts messages"],
)
def test_the_tables_are_asked_seldom_by_a_job_that_ends_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_itself: bool, most: int | None, ended: bool, looks: int
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(goal, "read_coverage", lambda *of: asked.append(of))
    config = IngestConfig(lake_config(tmp_path), write_config())
    wanted = LiveConfig(KafkaConfig("broker:9092"), until_caught_up=True, max_messages=most)
    ending = goal.Ending(wanted, config, cast("Any", Caught()), by_itself=by_itself)
    for _ in range(3):
        ending.is_reached(ended=ended)
    assert len(asked) == looks
    monkeypatch.setattr(goal, "COMMITTED_SECONDS", 0.0)
    monkeypatch.setattr(ending, "_look_at", 0.0)
    assert ending.is_reached(ended=True)
