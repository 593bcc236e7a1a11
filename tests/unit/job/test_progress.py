"""Jobs that begin again or stand still: what is said of it, and when it is the end."""

from __future__ import annotations

from typing import Any

import pytest
from pyroaring import BitMap64

from k2beam.coverage import Coverage
from k2beam.errors import FlinkRestError, K2BeamError, KafkaUnreachable
from k2beam.flink import JobFailure, root_cause
from k2beam.job import progress
from k2beam.job.progress import Restarts, Stall

PLACE = ("kafka:c/t/i", 0)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which only the test moves on."""
    now = [100.0]
    monkeypatch.setattr("k2beam.job.progress.time.monotonic", lambda: now[0])
    return now


class Run:
    """A job on Flink by what it failed of, the newest first."""

    def __init__(self, *failures: JobFailure) -> None:
        self.known = list(failures)

    def failures(self) -> list[JobFailure]:
        return self.known


def test_each_cause_is_said_once(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    run = Run(JobFailure(1, "ValueError: seven"))
    restarts = Restarts(run)  # type: ignore[arg-type]
    for at in range(2, 6):
        restarts.look()
        run.known.insert(0, JobFailure(at, "ValueError: seven"))
        clock[0] += progress.FAILURES_SECONDS
    assert [record.getMessage().count("seven") for record in caplog.records] == [1]
    assert restarts.cause == "ValueError: seven"


def test_what_was_before_a_client_came_is_over(clock: list[float]) -> None:
    """A worker that differed was mended, and the job began again."""
    run = Run(JobFailure(1_000, "k2beam.errors.UsageError: no variable"))
    restarts = Restarts(run, since_ms=1_000)  # type: ignore[arg-type]
    restarts.look()
    run.known.insert(0, JobFailure(1_001, "k2beam.errors.UsageError: no variable"))
    clock[0] += progress.FAILURES_SECONDS
    with pytest.raises(K2BeamError, match=r"^no variable$"):
        restarts.look()


def test_failures_are_not_asked_for_at_each_look(clock: list[float]) -> None:
    run = Run()
    restarts = Restarts(run)  # type: ignore[arg-type]
    restarts.look()
    run.known = [JobFailure(1, "k2beam.errors.UsageError: no variable")]
    restarts.look()
    clock[0] += progress.FAILURES_SECONDS
    with pytest.raises(K2BeamError, match=r"^no variable$"):
        restarts.look()


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        ("k2beam.errors.UsageError: X is not set [while running 'Read/Decode']", "^X is not set$"),
        ("RuntimeError: k2beam.errors.UsageError: no", "^no$"),
        ("k2beam.errors.WorkerRefused: other versions", "^other versions$"),
        ("StoreRefused: no rights", "^no rights$"),
        ("k2beam.errors.CommitConflict: others won", None),
        ("java.lang.OutOfMemoryError: Metaspace", None),
    ],
)
def test_only_what_does_not_mend_ends_the_job(cause: str, said: str | None) -> None:
    restarts = Restarts(Run(JobFailure(1, cause)))  # type: ignore[arg-type]
    if said is None:
        restarts.look()
        assert restarts.cause == cause
    else:
        with pytest.raises(K2BeamError, match=said):
            restarts.look()


def test_a_cluster_that_does_not_answer_is_asked_again(clock: list[float]) -> None:
    class Away(Run):
        def failures(self) -> list[JobFailure]:
            raise FlinkRestError("was not answered")

    Restarts(Away()).look()  # type: ignore[arg-type]
    Restarts(None).look()


def test_the_root_cause_is_the_last_exception_of_java_and_python() -> None:
    trace = "java.lang.RuntimeException: Error\nTraceback (most recent call last):\n  File x\nValueError: 7\n\n"
    assert root_cause(trace + "\tat org.apache.beam.X(X.java:7)\nCaused by: java.io.IOException: z\n\tat y") == (
        "Caused by: java.io.IOException: z"
    )
    assert root_cause(trace + "\tat org.apache.beam.X(X.java:7)") == "ValueError: 7"
    assert root_cause("") == "unknown"


class Broker:
    """A broker that has messages from ``given`` on (None: only holes), or is away."""

    def __init__(self, given: int | None = 5, away: bool = False) -> None:
        self.given, self.away = given, away

    def known(self, missing: Any) -> Any:
        return missing

    def first_given(self, *_: Any) -> int | None:
        if self.away:
            raise KafkaUnreachable("no answer")
        return self.given


def stall(broker: Broker, covered: Coverage, after_s: float = 10.0) -> Stall:
    missing = {PLACE: BitMap64([5, 6])}
    return Stall(after_s, lambda: covered, lambda _: missing, broker, lambda: "ValueError: 7")  # type: ignore[arg-type]


def test_a_job_that_takes_nothing_ends_with_the_message_that_waits_and_the_last_failure(clock: list[float]) -> None:
    watch = stall(Broker(), Coverage({PLACE: BitMap64([1])}))
    watch.look()
    clock[0] += 9
    watch.look()
    clock[0] += 2
    with pytest.raises(K2BeamError, match="offset 5 of partition 0 of kafka:c/t/i; its last failure: ValueError: 7"):
        watch.look()


def test_a_job_that_takes_something_gets_on(clock: list[float]) -> None:
    covered = Coverage({PLACE: BitMap64([1])})
    watch = stall(Broker(), covered)
    for offset in range(2, 8):
        watch.look()
        clock[0] += 6
        covered[PLACE].add(offset)
    watch.look()


@pytest.mark.parametrize("broker", [Broker(given=None), Broker(away=True)], ids=["holes", "away"])
def test_holes_and_a_broker_that_is_away_are_no_stall(clock: list[float], broker: Broker) -> None:
    watch = stall(broker, Coverage())
    for _ in range(5):
        watch.look()
        clock[0] += 11


def test_nobody_looks_where_it_is_off(clock: list[float]) -> None:
    watch = stall(Broker(), Coverage(), after_s=0)
    for _ in range(5):
        watch.look()
        clock[0] += 1e6
