"""The guard of a running job and the probe of holes, with a cluster that is away."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from pyroaring import BitMap64
from tenacity import wait_fixed, wait_none

from k2beam.errors import K2BeamError, KafkaUnreachable, UsageError
from k2beam.kafka import cluster, guard, holes
from k2beam.kafka.cluster import Bounds, Cluster, Topic
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.guard import TopicGuard
from k2beam.kafka.holes import HoleProbe

CONFIG = KafkaConfig("broker:9092")
TOPIC = Topic("ticks", "kafka:c/ticks/1", (0,))
KEY = (TOPIC.source, 0)
Answer = Callable[[], list[Topic]]


def away() -> list[Topic]:
    raise KafkaUnreachable("Kafka at broker:9092 can't be reached: timed out")


def there() -> list[Topic]:
    return [TOPIC]


def gone() -> list[Topic]:
    raise UsageError("topic 'ticks' can't be described: unknown")


def anew() -> list[Topic]:
    return [Topic("ticks", "kafka:c/ticks/2", (0,))]


class Answers:
    """A cluster that answers in turn, the last answer for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.left = list(answers)
        self.asked = 0

    def topics(self, names: list[str]) -> list[Topic]:
        assert {*names} <= {"ticks", "quotes"}
        self.asked += 1
        return (self.left.pop(0) if len(self.left) > 1 else self.left[0])()


def guarding(monkeypatch: pytest.MonkeyPatch, *answers: Answer, patience_s: float = 60.0) -> tuple[TopicGuard, Answers]:
    answering = Answers(*answers)
    monkeypatch.setattr(guard, "Cluster", lambda _config, _timeout_s: answering)
    monkeypatch.setattr(guard, "WAIT", wait_none())
    return TopicGuard(CONFIG, (TOPIC,), patience_s), answering


def test_a_cluster_that_is_away_is_waited_for_and_each_wait_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    guarded, answers = guarding(monkeypatch, away, away, there)
    guarded.check()
    assert answers.asked == 3
    assert caplog.text.count("a commit waits for Kafka") == 2
    assert "broker:9092" in caplog.text


def test_no_commit_passes_when_the_patience_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded, _ = guarding(monkeypatch, away, patience_s=0)
    with pytest.raises(KafkaUnreachable, match=r"broker:9092.*waited for 0 s and nothing was committed"):
        guarded.check()


@pytest.mark.parametrize(("answer", "said"), [(gone, "is gone"), (anew, "created again")])
def test_what_changed_while_the_cluster_was_away_is_seen(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, said: str
) -> None:
    guarded, _ = guarding(monkeypatch, away, answer)
    with pytest.raises(K2BeamError, match=said):
        guarded.check()


def test_a_stopped_job_lets_nothing_pass_and_waits_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded, _ = guarding(monkeypatch, there)
    worker = pickle.loads(pickle.dumps(guarded))
    worker.check()
    guarded.stop()
    with pytest.raises(K2BeamError, match="told to stop"):
        worker.check()
    TopicGuard(CONFIG, (TOPIC,)).check()  # another job in this process

    waits, answers = guarding(monkeypatch, away)
    monkeypatch.setattr(guard, "WAIT", wait_fixed(3600))
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(waits.check)
        while not answers.asked:
            time.sleep(0.01)
        waits.stop()
        with pytest.raises(K2BeamError, match="told to stop"):
            waiting.result(30)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError.UNKNOWN_TOPIC_OR_PART, UsageError),
        (KafkaError._TRANSPORT, KafkaUnreachable),
        (KafkaError._TIMED_OUT, KafkaUnreachable),
        (None, KafkaUnreachable),
    ],
)
def test_a_cluster_that_is_away_is_no_topic_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, code: int | None, kind: type[K2BeamError]
) -> None:
    class Admin:
        def __init__(self, _options: Any, logger: Any) -> None:
            del logger

        def describe_cluster(self, request_timeout: float) -> Future[Any]:
            del request_timeout
            future: Future[Any] = Future()
            future.set_result(type("Description", (), {"cluster_id": "c"}))
            return future

        def describe_topics(self, _topics: Any, request_timeout: float) -> dict[str, Future[Any]]:
            del request_timeout
            future: Future[Any] = Future()
            future.set_exception(TimeoutError() if code is None else KafkaException(KafkaError(code)))
            return {"ticks": future}

        def poll(self, _timeout: float) -> int:
            return 0

    monkeypatch.setattr(cluster, "AdminClient", Admin)
    with pytest.raises(K2BeamError) as raised:
        Cluster(CONFIG).topics(["ticks"])
    assert type(raised.value) is kind


class Settling:
    """A consumer of a broker that has just started: the first answer is that it is not ready."""

    def __init__(self, _options: Any) -> None:
        self.codes = [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.COORDINATOR_LOAD_IN_PROGRESS]

    def get_watermark_offsets(self, _place: Any, timeout: float) -> Any:
        assert timeout == 5.0
        return self._answer((2, 7))

    def commit(self, offsets: list[Any], asynchronous: bool) -> Any:
        assert not asynchronous
        return self._answer(offsets)

    def _answer(self, answer: Any) -> Any:
        if self.codes:
            raise KafkaException(KafkaError(self.codes.pop(0)))
        return answer

    def close(self) -> None: ...


def test_brokers_that_have_just_started_are_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "Consumer", Settling)
    monkeypatch.setattr(cluster, "wait_fixed", lambda _seconds: wait_none())
    asking = Cluster(CONFIG, 5.0)
    assert asking.bounds([TOPIC]) == {KEY: Bounds(2, 7)}
    asking.seed_group("group", [TOPIC], {KEY: 4})
    monkeypatch.setattr(cluster, "_SETTLING", frozenset())
    with pytest.raises(KafkaUnreachable, match="broker:9092"):
        asking.seed_group("group", [TOPIC], {KEY: 4})


class Message:
    def __init__(self, code: int) -> None:
        self._error = KafkaError(code)

    def error(self) -> KafkaError:
        return self._error


class Consumer:
    """A consumer that is told of brokers that are down, then nothing."""

    def __init__(self, _options: Any, logger: Any) -> None:
        del logger
        self.left = [Message(KafkaError._ALL_BROKERS_DOWN), Message(KafkaError._TRANSPORT)]

    def assign(self, _places: Any) -> None: ...

    def poll(self, _timeout: float) -> Message | None:
        return self.left.pop(0) if self.left else None

    def close(self) -> None: ...


def test_a_probe_without_an_answer_finds_no_hole_and_asks_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(holes, "Consumer", Consumer)
    monkeypatch.setattr(holes, "STEADY_SECONDS", 0.0)
    probe, missing = HoleProbe(CONFIG, [TOPIC], 0.01), {KEY: BitMap64([3, 4])}
    with pytest.raises(KafkaUnreachable, match=r"ticks partition 0.*broker:9092: nothing came for 0\.01 s"):
        probe.probe(*KEY, missing[KEY])
    assert [probe.without_holes(missing) for _ in range(3)] == [missing] * 3
    assert caplog.text.count("Kafka is waited for") == 2
    monkeypatch.setattr(holes, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(KafkaUnreachable):
        probe.without_holes(missing)


@pytest.mark.parametrize(("answer", "said"), [(gone, "is gone"), (anew, "created again")])
def test_a_look_tells_what_has_changed(monkeypatch: pytest.MonkeyPatch, answer: Answer, said: str) -> None:
    looking, _ = guarding(monkeypatch, there, answer)
    looking.look()
    with pytest.raises(K2BeamError, match=said):
        looking.look()


def test_a_look_does_not_wait_for_a_cluster_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, answering = guarding(monkeypatch, away)
    looking.look()
    assert answering.asked == 1


QUOTES = Topic("quotes", "kafka:c/quotes/2", (0,))


def both() -> list[Topic]:
    return [TOPIC, QUOTES]


def another() -> list[Topic]:
    return [TOPIC, replace(QUOTES, source="kafka:c/quotes/3")]


@pytest.mark.parametrize(("answer", "said"), [(gone, "is gone"), (another, "quotes was deleted and created again")])
def test_a_topic_that_came_since_is_watched_too(monkeypatch: pytest.MonkeyPatch, answer: Answer, said: str) -> None:
    looking, _ = guarding(monkeypatch, both, answer)
    looking.add([TOPIC, QUOTES])
    looking.look()
    with pytest.raises(K2BeamError, match=said):
        looking.look()


def test_a_worker_learns_of_a_topic_that_came_since_by_what_it_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    committing, _ = guarding(monkeypatch, there, both, another)
    committing.check([TOPIC.source])
    committing.check([QUOTES.source])
    with pytest.raises(K2BeamError, match="quotes was deleted and created again"):
        committing.check([TOPIC.source])


def test_a_source_of_a_topic_made_anew_is_not_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    committing, _ = guarding(monkeypatch, there)
    with pytest.raises(K2BeamError, match="ticks was deleted and created again"):
        committing.check(["kafka:c/ticks/0"])
