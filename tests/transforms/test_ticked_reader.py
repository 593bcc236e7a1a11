"""TickedReader's ticks: when they read, where they go on, and which are dropped. The read itself is tested on Flink."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
from apache_beam.utils.timestamp import Timestamp

from k2beam.kafka.cluster import Topic
from k2beam.kafka.reader import Position
from tests.log_fakes import CONFIG, START, Found, Log, offsets, without_a_broker
from transforms import ticked_reader
from transforms.ticked_reader import TickedReader, _Read, _ReadFn


class State:
    """What is kept of the one key."""

    kept: _Read | None = None

    def read(self) -> _Read | None:
        return self.kept

    def write(self, value: _Read) -> None:
        self.kept = value


@pytest.fixture
def fn(monkeypatch: pytest.MonkeyPatch) -> _ReadFn:
    without_a_broker(monkeypatch)
    return _ReadFn((START,), CONFIG, "tick.*", 0.0, 10)


def tick(fn: _ReadFn, state: State, at: Timestamp | None = None) -> list[Any]:
    """One tick, now or at another time."""
    return list(fn.process((b"", 0), at or Timestamp.now(), state))


def test_a_tick_reads_until_it_has_caught_up_and_the_next_goes_on(fn: _ReadFn) -> None:
    state, before = State(), Timestamp.now()
    found = tick(fn, state)
    assert offsets(found) == [0, 1, 2]
    assert all(before <= element.timestamp <= Timestamp.now() for element in found)
    assert state.kept is not None
    assert state.kept.positions == (START._replace(offset=3),)
    assert tick(fn, state) == []
    assert state.kept.positions == (START._replace(offset=3),)


def test_a_tick_of_the_time_in_which_its_forerunner_read_is_dropped(fn: _ReadFn) -> None:
    state, before = State(), Timestamp.now()
    tick(fn, state)
    kept, log = state.kept, fn._log._reader
    assert isinstance(log, Log)
    asked = len(log.sent_to)
    assert tick(fn, state, before) == []
    assert state.kept is kept
    assert len(log.sent_to) == asked, "it does not even look"


@pytest.mark.parametrize("stopped", [30.0, -5.0], ids=["a clock ahead", "long ago"])
def test_clocks_that_are_apart_do_not_stop_the_reading(fn: _ReadFn, stopped: float) -> None:
    """The stop is that of another worker, or the TaskManager's clock is behind."""
    state, behind = State(), Timestamp.now() - 60
    state.kept = _Read((START,), time.time() + stopped)
    assert offsets(tick(fn, state, behind)) == [0, 1, 2]


def test_a_tick_over_a_backlog_ends_when_its_time_is_up(fn: _ReadFn, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=ticked_reader.READING_SECONDS / 2)
    monkeypatch.setattr(ticked_reader.time, "monotonic", lambda: next(clock))
    state = State()
    assert offsets(tick(fn, state)) == [0]
    assert state.kept is not None
    assert state.kept.positions == (START._replace(offset=1),)


def test_a_tick_that_keeps_up_goes_on_for_its_time(fn: _ReadFn, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(ticked_reader, "READING_SECONDS", 100.0)
    monkeypatch.setattr(ticked_reader.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(Log, "caught_up_at", property(lambda _: time.time()))
    monkeypatch.setattr(fn, "_bundle_seconds", 2.0)
    assert offsets(tick(fn, State())) == [0]


def test_no_message_is_older_than_its_tick(fn: _ReadFn) -> None:
    ahead = Timestamp.now() + 60
    assert [element.timestamp for element in tick(fn, State(), ahead)] == [ahead] * 3


def test_a_state_of_before_is_read_again(fn: _ReadFn) -> None:
    """As after a restart from a checkpoint, by a worker that had read on."""
    state = State()
    tick(fn, state)
    state.kept = _Read((START._replace(offset=1),), 0.0)
    assert offsets(tick(fn, state)) == [1, 2]


def test_what_came_since_is_read_from_its_beginning(fn: _ReadFn, monkeypatch: pytest.MonkeyPatch) -> None:
    first, added = Topic("ticks", START.source, (0, 1)), Topic("ticks-2", "kafka:c/ticks-2/2", (0,))
    state = State()
    tick(fn, state)
    monkeypatch.setattr(Found, "news", [(first, 1), (added, 0)])
    for _ in range(2):
        tick(fn, state)
        assert state.kept is not None
        assert state.kept.positions == (
            START._replace(offset=3),
            START._replace(partition=1),
            Position("ticks-2", added.source, 0, 0),
        )


def test_a_worker_that_ends_closes_its_connection(fn: _ReadFn) -> None:
    fn.teardown()
    tick(fn, State())
    log: Any = fn._log._reader
    fn.teardown()
    assert log.closed


def test_it_starts_where_it_is_told() -> None:
    topics = [Topic("ticks", START.source, (0, 1))]
    reader = TickedReader(topics, CONFIG, {(START.source, 0): 7, (START.source, 1): 0}, "localhost:8096")
    assert reader._fn._start == (START._replace(offset=7), START._replace(partition=1))
