"""The backlog of a partition: equal to what the audit misses, whatever the log and the tables have."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap64

from k2beam.coverage import Coverage, runs
from k2beam.errors import KafkaUnreachable
from k2beam.exporter import backlog, log_reader
from k2beam.exporter.backlog import Backlog, Backlogs, LogMessage
from k2beam.exporter.log_reader import LogReader
from k2beam.kafka.cluster import Bounds, Topic
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.count import count_topics

TOPIC = Topic("trades", "kafka:c/trades/1", (0,))
KEY = (TOPIC.source, 0)


class Log:
    """A partition with messages at some offsets, one microsecond apart; notes where it was looked at."""

    def __init__(self, offsets: set[int], low: int, end: int) -> None:
        self.offsets = sorted(offset for offset in offsets if low <= offset < end)
        self.limits = Bounds(low, end)
        self.asked: list[int] = []

    def peek(self, topic: str, partition: int, offset: int) -> LogMessage | None:
        assert (topic, partition) == ("trades", 0)
        self.asked.append(offset)
        return next((LogMessage(found, 1_000 + found) for found in self.offsets if found >= offset), None)

    def bounds(self, topics: object) -> dict[tuple[str, int], Bounds]:
        del topics
        return {KEY: self.limits}

    def probe(self, source: str, partition: int, offsets: BitMap64) -> BitMap64:
        """The holes at the beginning of each stretch, as k2beam.kafka.holes finds them."""
        assert (source, partition) == KEY
        holes = BitMap64()
        for first, last in runs(offsets):
            until = next((offset for offset in self.offsets if first <= offset <= last), last + 1)
            holes.add_range(first, until)
        return holes


def state(log: Log, covered: set[int], known: Backlogs | None = None) -> Backlog:
    return (known or Backlogs(log.peek)).of(TOPIC, 0, log.limits, BitMap64(covered))


@given(
    st.sets(st.integers(0, 40)), st.integers(0, 30), st.integers(0, 15), st.sets(st.integers(0, 45)), st.integers(1, 3)
)
def test_lag_and_losses_together_are_what_the_audit_misses(
    messages: set[int], low: int, length: int, covered: set[int], repeats: int
) -> None:
    log = Log(messages, low, low + length)
    claimed = Coverage()
    claimed.add_many(*KEY, sorted(covered))
    expected = count_topics(log, [TOPIC], log, claimed)  # type: ignore[arg-type]
    missing = set(expected[KEY]) - covered
    known = Backlogs(log.peek)
    for _ in range(repeats):
        found = state(log, covered, known)
        assert found.lag == len({offset for offset in missing if offset >= low})
        assert found.lost == len({offset for offset in missing if offset < low})
        assert found.covered == len(covered)
        uncovered = [offset for offset in log.offsets if offset not in covered]
        assert found.oldest == (1_000 + uncovered[0] if uncovered else None)


def test_a_hole_is_looked_for_once_and_a_message_again() -> None:
    log = Log({0, 1, 3, 6}, 0, 8)
    known = Backlogs(log.peek)
    assert state(log, {0, 1, 3}, known).lag == 2
    assert sorted(log.asked) == [2, 4]
    log.asked.clear()
    assert state(log, {0, 1, 3, 6}, known).lag == 0
    assert log.asked == [7]
    log.asked.clear()
    assert state(log, {0, 1, 3, 6}, known) == Backlog(0, None, 4, 0)
    assert log.asked == []


def test_holes_of_other_topics_are_forgotten() -> None:
    log = Log({0, 2}, 0, 3)
    known = Backlogs(log.peek)
    state(log, {0, 2}, known)
    known.keep([TOPIC])
    state(log, {0, 2}, known)
    assert log.asked == [1]
    known.keep([Topic("trades", "kafka:c/trades/2", (0,))])
    state(log, {0, 2}, known)
    assert log.asked == [1, 1]


def test_a_reading_looks_at_so_many_stretches_and_the_next_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "PROBES", 2)
    log = Log(set(range(0, 10, 2)), 0, 10)
    known = Backlogs(log.peek)
    covered = set(range(0, 10, 2))
    assert [state(log, covered, known).lag for _ in range(4)] == [3, 1, 0, 0]


def test_a_covered_message_is_not_the_oldest_of_a_backlog() -> None:
    log = Log({1, 2}, 0, 3)
    assert state(log, {1}) == Backlog(lag=1, oldest=1_002, covered=1, lost=0)


class Consumer:
    """Stands in for Kafka's client: gives what it's told to, one message for each assignment."""

    def __init__(self, answers: list[Any], settings: Mapping[str, Any]) -> None:
        self._answers = answers
        self.settings = settings
        self.places: list[TopicPartition] = []
        self.closed = False

    def assign(self, places: list[TopicPartition]) -> None:
        self.places += places

    def unassign(self) -> None:
        pass

    def poll(self, timeout: float) -> Any:
        if self._answers[0] is None:
            time.sleep(timeout)
            return None
        return self._answers.pop(0)

    def get_watermark_offsets(self, _place: TopicPartition, timeout: float) -> tuple[int, int]:
        del timeout
        return 70, 90

    def close(self) -> None:
        self.closed = True


class Answer:
    """A message of Kafka's client."""

    def __init__(self, error: int | None = None, timestamp: tuple[int, int] = (1, 1_700)) -> None:
        self._error = error
        self._timestamp = timestamp

    def error(self) -> KafkaError | None:
        return None if self._error is None else KafkaError(self._error)

    def offset(self) -> int:
        return 12

    def timestamp(self) -> tuple[int, int]:
        return self._timestamp


def reader(*answers: list[Any]) -> tuple[LogReader, list[Consumer]]:
    made: list[Consumer] = []

    def make(settings: Mapping[str, Any], logger: object) -> Consumer:
        del logger
        made.append(Consumer(list(answers[len(made)]), settings))
        return made[-1]

    return LogReader(KafkaConfig("broker:1"), make), made


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(), LogMessage(12, 1_700_000)),
        (Answer(timestamp=(0, -1)), LogMessage(12, None)),
        (Answer(KafkaError._PARTITION_EOF), None),
        (Answer(KafkaError._AUTO_OFFSET_RESET), LogMessage(70, None)),
    ],
    ids=["message", "without a time", "end", "retention took it"],
)
def test_what_is_found_at_an_offset(answer: Answer, expected: LogMessage | None) -> None:
    log, made = reader([answer])
    assert log.peek("trades", 3, 11) == expected
    (consumer,) = made
    assert [(place.topic, place.partition, place.offset) for place in consumer.places] == [("trades", 3, 11)]
    assert (consumer.settings["bootstrap.servers"], consumer.settings["enable.auto.commit"]) == ("broker:1", False)


def test_an_error_of_an_outage_that_is_over_is_passed_over() -> None:
    log, made = reader([Answer(KafkaError._ALL_BROKERS_DOWN), Answer()])
    assert log.peek("trades", 3, 11) == LogMessage(12, 1_700_000)
    assert len(made) == 1


@pytest.mark.parametrize(
    ("answers", "said"),
    [([None], "nothing came"), ([Answer(KafkaError.TOPIC_AUTHORIZATION_FAILED), None], "Topic authorization failed")],
    ids=["silence", "error"],
)
def test_a_broker_that_gives_nothing_is_an_error_and_the_next_look_connects_anew(
    answers: list[Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "ASK_SECONDS", 0.01)
    log, made = reader(answers, [Answer()])
    with pytest.raises(KafkaUnreachable, match=f"topic trades partition 3 can't be read at offset 11: .*{said}"):
        log.peek("trades", 3, 11)
    assert made[0].closed
    assert log.peek("trades", 3, 11) == LogMessage(12, 1_700_000)
    assert len(made) == 2
