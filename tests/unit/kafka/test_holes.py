"""Where a log has no message: found by reading on, told from what retention took."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
from confluent_kafka import KafkaError, TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap64

from k2beam.coverage import runs
from k2beam.errors import K2BeamError
from k2beam.kafka import cluster, cursor, holes
from k2beam.kafka.cluster import Cluster, Topic
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.holes import HoleProbe

CONFIG = KafkaConfig("broker:9092")
TOPIC = Topic("ticks", "kafka:c/ticks/1", (0,))
KEY = (TOPIC.source, 0)


class Event:
    """What a consumer gives: a message, or an error."""

    def __init__(self, offset: int, code: int | None = None) -> None:
        self._offset = offset
        self._code = code

    def offset(self) -> int:
        return self._offset

    def error(self) -> KafkaError | None:
        return None if self._code is None else KafkaError(self._code)


class Log:
    """A partition with messages at some offsets, and its consumer."""

    def __init__(self, offsets: Sequence[int], end: int, low: int = 0) -> None:
        self.offsets = sorted(offsets)
        self.end = end
        self.low = low
        self.jumps: list[int] = []
        self.polled = 0
        self.place: int | None = None
        self.settings: Mapping[str, Any] = {}
        self.closed = 0

    def consumer(self, settings: Mapping[str, Any], logger: object) -> Log:
        del logger
        self.settings = settings
        return self

    def assign(self, places: list[TopicPartition]) -> None:
        ((self.place),) = (place.offset for place in places)
        assert self.place is not None
        self.jumps.append(self.place)

    def unassign(self) -> None:
        self.place = None

    def poll(self, _timeout: float) -> Event | None:
        assert self.place is not None, "nothing is assigned"
        self.polled += 1
        if not self.low <= self.place <= self.end:
            lost, self.place = self.place, None
            return Event(lost, KafkaError._AUTO_OFFSET_RESET)
        found = next((offset for offset in self.offsets if self.place <= offset < self.end), None)
        if found is None:
            self.place = self.end
            return Event(self.end, KafkaError._PARTITION_EOF)
        self.place = found + 1
        return Event(found)

    def get_watermark_offsets(self, _place: TopicPartition, timeout: float) -> tuple[int, int]:
        del timeout
        return self.low, self.end

    def close(self) -> None:
        self.closed += 1


class Said:
    """A logger that keeps its warnings, whatever form others have set for the log."""

    lines: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    def __init__(self, _name: str) -> None: ...

    def warning(self, text: str, **place: Any) -> None:
        self.lines.append((text, place))


def probing(
    monkeypatch: pytest.MonkeyPatch, log: Log, stop: threading.Event | None = None, timeout_s: float = 20.0
) -> HoleProbe:
    monkeypatch.setattr(holes, "Consumer", log.consumer)
    return HoleProbe(CONFIG, [TOPIC], timeout_s, stop)


def test_stretches_near_each_other_are_found_by_reading_on(monkeypatch: pytest.MonkeyPatch) -> None:
    markers = range(9, 1_000, 10)
    log = Log([offset for offset in range(1_000) if offset not in markers], 1_000)
    probe = probing(monkeypatch, log)
    assert probe.probe(*KEY, BitMap64(markers)) == BitMap64(markers)
    assert log.jumps == [9]
    assert log.place is None, "nothing is fetched any more"
    assert log.settings["isolation.level"] == "read_committed"
    assert log.closed == 0
    probe.close()
    assert log.closed == 1


def test_what_is_known_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log([0, 1, 3, 4, 6], 8)
    first = probing(monkeypatch, log)
    assert list(first.probe(*KEY, BitMap64([2, 5, 7]))) == [2, 5, 7]
    assert list(first.holes[KEY]) == [2, 5, 7]
    asked = len(log.jumps)
    again = HoleProbe(CONFIG, [TOPIC], known=first.holes)
    assert list(again.probe(*KEY, BitMap64([2, 5, 7]))) == [2, 5, 7]
    assert again.first_given(*KEY, BitMap64([2, 5])) is None
    assert again.known({KEY: BitMap64([2, 6])}) == {KEY: BitMap64([6])}
    assert len(log.jumps) == asked
    assert again.first_given(*KEY, BitMap64([2, 6])) == 6


def test_what_lies_behind_the_end_of_the_log_is_no_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that is new may be behind for a moment, and a log may have lost its end."""
    log = Log([0, 1, 2], 4)
    probe = probing(monkeypatch, log)
    assert list(probe.probe(*KEY, BitMap64(range(3, 10)))) == [3]
    assert probe.known({KEY: BitMap64(range(3, 10))}) == {KEY: BitMap64(range(4, 10))}
    assert not probe.probe(*KEY, BitMap64(range(4, 10)))


def test_nothing_is_begun_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log([0, 1, 3, 4, 6], 8)
    probe = probing(monkeypatch, log)
    assert not probe.probe(*KEY, BitMap64([2, 5]), until=time.monotonic())
    assert not probe.holes
    assert log.polled == 0


def test_stretches_far_from_each_other_are_jumped_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursor, "NEAR", 100)
    log = Log([offset for offset in range(1_000) if offset not in (5, 50, 500)], 1_000)
    assert list(probing(monkeypatch, log).probe(*KEY, BitMap64([5, 50, 500]))) == [5, 50, 500]
    assert log.jumps == [5, 500]
    assert log.polled < 60


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)), st.integers(0, 61), st.integers(1, 20))
def test_a_hole_is_what_lies_before_the_first_message_of_a_stretch(
    messages: set[int], missing: set[int], end: int, near: int
) -> None:
    log = Log([offset for offset in messages if offset < end], end)
    asked = BitMap64(offset for offset in missing if offset < end)
    found = set()
    for first, last in runs(asked):
        until = next((offset for offset in log.offsets if first <= offset <= last), last + 1)
        found |= set(range(first, until))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cursor, "NEAR", near)
        probe = probing(patched, log)
        assert set(probe.probe(*KEY, asked)) == found
        assert probe.known({KEY: asked}) == ({KEY: asked - BitMap64(found)} if asked - BitMap64(found) else {})
        given_first = probing(patched, log).first_given(*KEY, asked)
        assert given_first == next((offset for offset in log.offsets if offset in asked), None)


def test_what_retention_took_is_no_hole_but_is_not_waited_for_and_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holes, "STEADY_SECONDS", 0.0)
    monkeypatch.setattr(holes, "get_logger", Said)
    Said.lines.clear()
    log = Log([6, 8, 9], 10, low=5)
    probe = probing(monkeypatch, log)
    missing = {KEY: BitMap64([1, 2, 3, 4, 5, 7])}
    assert list(probe.probe(*KEY, missing[KEY])) == [5, 7]
    ((text, place),) = Said.lines
    assert text.startswith("retention took offsets before they were read")
    assert place == {"topic": "ticks", "partition": 0, "first": 1, "last": 4}
    assert probe.known(missing) == {}
    assert probe.without_holes(missing) == {}
    assert len(Said.lines) == 1
    assert log.jumps == [1, 5]


def test_retention_that_overtakes_the_reading_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log([0, 1, 8], 10)
    probe = probing(monkeypatch, log)
    poll = log.poll

    def overtaken(timeout: float) -> Event | None:
        event = poll(timeout)
        log.low = 6
        return event

    monkeypatch.setattr(log, "poll", overtaken)
    assert list(probe.probe(*KEY, BitMap64([0, 3, 7]))) == [7]
    assert probe.known({KEY: BitMap64([0, 3, 7])}) == {KEY: BitMap64([0])}


def test_a_log_that_ends_before_an_offset_makes_no_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log([0, 1], 2)
    assert list(probing(monkeypatch, log).probe(*KEY, BitMap64([5, 9]))) == []


def test_a_refusal_is_told_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log([0], 2)
    monkeypatch.setattr(log, "poll", lambda _timeout: Event(0, KafkaError.TOPIC_AUTHORIZATION_FAILED))
    with pytest.raises(K2BeamError, match=r"kafka:c/ticks/1 partition 0 can't be probed"):
        probing(monkeypatch, log).probe(*KEY, BitMap64([1]))
    assert log.closed == 1


def test_a_signal_ends_the_wait_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holes, "STEADY_SECONDS", 0.0)
    stop, log = threading.Event(), Log([], 2)

    def silent(_timeout: float) -> None:
        assert not stop.is_set(), "nothing is waited for any more"
        stop.set()

    monkeypatch.setattr(log, "poll", silent)
    probe, missing = probing(monkeypatch, log, stop, timeout_s=3_600), {KEY: BitMap64([0, 1])}
    assert probe.first_given(*KEY, missing[KEY]) == 0
    assert [probe.without_holes(missing) for _ in range(2)] == [missing, missing]
    assert log.closed == 2


class Admin:
    """Knows these topics."""

    def __init__(self, _options: Any, logger: Any) -> None:
        del logger

    def list_topics(self, timeout: float) -> Any:
        del timeout
        names = ("__consumer_offsets", "__transaction_state", "market.crypto.trades.x", "_schemas", "marketXcrypto")
        return type("Metadata", (), {"topics": dict.fromkeys(names)})


def test_a_pattern_matches_whole_names_and_none_of_kafkas_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "AdminClient", Admin)
    asked = Cluster(CONFIG)
    assert asked.names(".*") == ["_schemas", "market.crypto.trades.x", "marketXcrypto"]
    assert asked.names("market[.].*") == ["market.crypto.trades.x"]
    assert asked.names("__consumer_offsets") == []
    for pattern, said in (
        ("market", "matches no topic"),
        ("__.*", "matches no topic"),
        ("(", "not a regular expression"),
    ):
        with pytest.raises(K2BeamError, match=f"--topic-pattern .*{said}"):
            asked.topics([], pattern)
