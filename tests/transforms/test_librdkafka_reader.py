"""LibrdkafkaReader's bundles: when they end, where they go on, and that they are never divided.

The read itself is tested on a real broker.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
from apache_beam.utils.timestamp import Timestamp

from k2beam.kafka.cluster import Topic
from k2beam.kafka.reader import Position
from tests.log_fakes import CONFIG, START, Found, Log, offsets, without_a_broker
from transforms import librdkafka_reader
from transforms.librdkafka_reader import LibrdkafkaReader, Unread, _ReadFn, _Tracker


class Watermark:
    """An estimator that starts where the last bundle left it."""

    def __init__(self, at: Timestamp | None = None) -> None:
        self.at = at

    def current_watermark(self) -> Timestamp | None:
        return self.at

    def set_watermark(self, moment: Timestamp) -> None:
        assert self.at is None or moment > self.at
        self.at = moment


class View:
    """The tracker as a DoFn sees it."""

    def __init__(self, part: Unread) -> None:
        self.tracker = _Tracker(part)
        self.rest: Unread | None = None

    def current_restriction(self) -> Unread:
        return self.tracker.current_restriction()

    def try_claim(self, positions: tuple[Position, ...]) -> bool:
        return self.tracker.try_claim(positions)

    def defer_remainder(self) -> None:
        split = self.tracker.try_split(0)
        assert split is not None
        self.rest = split[1]


@pytest.fixture
def fn(monkeypatch: pytest.MonkeyPatch) -> _ReadFn:
    without_a_broker(monkeypatch)
    return _ReadFn(Unread((START,)), CONFIG, "tick.*", None, 0.0, 10)


def test_a_bundle_reads_until_it_has_caught_up_and_the_next_goes_on(fn: _ReadFn) -> None:
    view, before = View(fn.initial_restriction(b"")), Timestamp.now()
    found = list(fn.process(b"", view, Watermark()))
    assert offsets(found) == [0, 1, 2]
    assert all(before <= element.timestamp <= Timestamp.now() + 1 for element in found)
    assert view.rest == Unread((START._replace(offset=3),))
    view.tracker.check_done()
    again = View(view.rest)
    assert offsets(list(fn.process(b"", again, Watermark()))) == []
    assert again.rest == view.rest


def test_a_bundle_of_a_backlog_ends_when_its_time_is_up(fn: _ReadFn, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=librdkafka_reader.BUNDLE_SECONDS / 2)
    monkeypatch.setattr(librdkafka_reader.time, "monotonic", lambda: next(clock))
    view = View(Unread((START,)))
    assert offsets(list(fn.process(b"", view, Watermark()))) == [0]
    assert view.rest == Unread((START._replace(offset=1),))


def test_a_bundle_that_keeps_up_goes_on_for_its_time_and_ends_at_once_without_messages(
    fn: _ReadFn, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(librdkafka_reader, "BUNDLE_SECONDS", 100.0)
    monkeypatch.setattr(librdkafka_reader.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(Log, "caught_up_at", property(lambda _: time.time()))
    monkeypatch.setattr(fn, "_bundle_seconds", 2.0)
    view = View(Unread((START,)))
    assert offsets(list(fn.process(b"", view, Watermark()))) == [0]
    assert view.rest is not None
    monkeypatch.setattr(Log, "end", 1)
    idle = View(view.rest)
    assert offsets(list(fn.process(b"", idle, Watermark()))) == []
    assert idle.rest == view.rest
    assert next(clock) == 3 + 2, "once without a message"


def test_what_comes_after_a_runner_took_the_rest_is_not_given_out(fn: _ReadFn) -> None:
    view = View(Unread((START,)))
    bundle = fn.process(b"", view, Watermark())
    assert offsets([next(bundle)]) == [0]
    assert view.tracker.try_split(0) == (Unread(()), Unread((START._replace(offset=1),)))
    assert list(bundle) == []
    assert view.rest is None, "the rest was given away once"
    view.tracker.check_done()


def test_a_part_is_not_divided_and_has_no_end() -> None:
    tracker = _Tracker(Unread((START,)))
    assert tracker.try_split(0.5) is None
    assert not tracker.is_bounded()
    with pytest.raises(ValueError, match="no end"):
        tracker.check_done()
    assert tracker.try_split(0) == (Unread(()), Unread((START,)))
    assert tracker.try_split(0) is None


def test_what_came_since_is_read_from_its_beginning(fn: _ReadFn, monkeypatch: pytest.MonkeyPatch) -> None:
    first, added = Topic("ticks", START.source, (0, 1)), Topic("ticks-2", "kafka:c/ticks-2/2", (0,))
    news = [START._replace(partition=1), Position("ticks-2", added.source, 0, 0)]
    view = View(Unread((START,)))
    list(fn.process(b"", view, Watermark()))
    monkeypatch.setattr(Found, "news", [(first, 1), (added, 0)])
    assert view.rest is not None
    for _ in range(2):
        view = View(view.rest)
        list(fn.process(b"", view, Watermark()))
        assert view.rest == Unread((START._replace(offset=3), *news))


def test_a_worker_that_ends_closes_its_connection(fn: _ReadFn) -> None:
    fn.teardown()
    list(fn.process(b"", View(Unread((START,))), Watermark()))
    log: Any = fn._log._reader
    fn.teardown()
    assert log.closed


def test_it_starts_where_it_is_told() -> None:
    topics = [Topic("ticks", START.source, (0, 1))]
    reader = LibrdkafkaReader(topics, CONFIG, {(START.source, 0): 7, (START.source, 1): 0})
    assert reader._fn._start == Unread((START._replace(offset=7), START._replace(partition=1)))


def test_a_reader_with_an_end_ends_behind_it(monkeypatch: pytest.MonkeyPatch, fn: _ReadFn) -> None:
    ending = _ReadFn(Unread((START,)), CONFIG, "tick.*", {(START.source, 0): 2}, 0.0, 10)
    view = View(Unread((START,)))
    assert offsets(list(ending.process(b"", view, Watermark()))) == [0, 1]
    assert view.rest is None
    view.tracker.check_done()
    assert view.tracker.try_split(0) is None, "nothing is left"


def test_the_watermark_is_the_time_until_which_all_was_read(fn: _ReadFn, monkeypatch: pytest.MonkeyPatch) -> None:
    begin, watermark = Timestamp.now(), Watermark()
    monkeypatch.setattr(Log, "before", time.time() - 60)
    found = []
    for element in fn.process(b"", View(Unread((START,))), watermark):
        found.append(element.timestamp)
        held = watermark.at
        assert held is not None
        assert element.timestamp > held
    assert len(found) == 3
    assert len({*found}) == 1, "all of a backlog count as read at one time"
    assert begin <= held < watermark.at


def test_the_watermark_is_held_back_for_ten_minutes_at_most_and_never_goes_back(
    fn: _ReadFn, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ago, before = Watermark(Timestamp(0)), time.time()
    next(fn.process(b"", View(Unread((START,))), long_ago))
    assert Timestamp(before - 600) <= long_ago.at <= Timestamp(time.time() - 600)
    later = Watermark(Timestamp(before))
    list(itertools.islice(fn.process(b"", View(Unread((START,))), later), 2))
    assert later.at == Timestamp(before)
