"""The tracker: one message, one answer; and after all of them the same epochs as a recount."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.errors import UsageError
from k2beam.sequence import SequenceClass, SequenceTracker, recount
from k2beam.sequence.runs import HOUR

SECOND = 1_000_000


def classes(messages: list[tuple[int, int | None]]) -> list[str]:
    tracker = SequenceTracker()
    return [tracker.check_sequence("X", "S", s, t * SECOND).classification.name for t, s in messages]


def test_first_next_gap_late_fill_and_duplicate() -> None:
    tracker = SequenceTracker()
    answers = [tracker.check_sequence("X", "S", s, t) for t, s in enumerate([100, 101, 105, 103, 103, 120, None, 121])]
    assert [a.classification.name for a in answers] == [
        "OK", "OK", "SMALL_GAP", "OUT_OF_ORDER", "DUPLICATE", "LARGE_GAP", "UNSEQUENCED", "OK",
    ]  # fmt: skip
    gap, late = answers[2], answers[3]
    assert (gap.expected, gap.missing_first, gap.missing_last, gap.missing_count) == (102, 102, 104, 3)
    assert late.filled
    assert not answers[4].filled
    assert answers[-1].expected == 121
    stats = tracker.stats()
    assert (stats.messages, stats.keys, stats.late_fills, stats.open_gaps, stats.missing) == (8, 1, 1, 3, 16)
    assert stats.by_class[SequenceClass.OK] == 3


def test_a_fall_that_is_continued_is_a_reset_at_the_third_message() -> None:
    tracker = SequenceTracker()
    for i in range(3):
        tracker.check_sequence("BINANCE", "BTCUSDT", 26_941_142 + i, i * SECOND)
    tracker.check_sequence("BINANCE", "ETHUSDT", 26_941_144, 0)
    answers = [tracker.check_sequence("BINANCE", "BTCUSDT", 624_086 + i, (3 + i) * SECOND) for i in range(5)]
    assert [a.classification.name for a in answers] == ["OUT_OF_ORDER", "OUT_OF_ORDER", "RESET", "OK", "OK"]
    assert [a.epoch for a in answers] == [0, 0, 1, 1, 1]
    assert tracker.epochs("BINANCE", "BTCUSDT")[1].first_sequence == 624_086
    assert [len(tracker.epochs("BINANCE", name)) for name in ("ETHUSDT", "NONE")] == [1, 0]
    assert tracker.check_sequence("BINANCE", "ETHUSDT", 26_941_145, SECOND).classification is SequenceClass.OK


def test_a_fall_an_hour_later_is_a_reset_at_once() -> None:
    assert classes([(0, 1000), (1, 1001), (3601, 1), (3602, 2)]) == ["OK", "OK", "RESET", "OK"]
    assert classes([(0, 1000), (1, 1001), (3600, 1), (3601, 1002)]) == ["OK", "OK", "OUT_OF_ORDER", "OK"]


def test_a_fall_that_does_not_rise_is_no_reset() -> None:
    assert classes([(0, 1000), (1, 10), (2, 9), (3, 8), (4, 1001)]) == ["OK", *["OUT_OF_ORDER"] * 3, "OK"]


def test_a_run_below_the_highest_goes_on_filling_its_gap() -> None:
    tracker = SequenceTracker()
    sequences = [190, 300, 200, 201, 202, 203, 204, 205, 301]
    answers = [tracker.check_sequence("X", "S", s, t) for t, s in enumerate(sequences)]
    assert [a.classification.name for a in answers] == ["OK", "LARGE_GAP", *["OUT_OF_ORDER"] * 6, "OK"]
    assert [a.filled for a in answers] == [False, False, *[True] * 6, False]


def test_timestamps_are_datetimes_or_microseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    tracker = SequenceTracker()
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_901)
    east = moment.replace(tzinfo=UTC).astimezone(tz=None) + timedelta(microseconds=1)
    micros = round(moment.replace(tzinfo=UTC).timestamp()) * SECOND
    tracker.check_sequence("X", "S", 1, moment)
    tracker.check_sequence("X", "S", 2, east)
    [epoch] = tracker.epochs("X", "S")
    assert (epoch.last_time - epoch.first_time, abs(epoch.first_time - micros) < SECOND) == (1, True)
    assert epoch.first_time % SECOND == 678_901
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("sequence", "timestamp", "said"),
    [(1, "2026", "timestamp '2026'"), (1, True, "timestamp True"), ("1", 0, "sequence '1'"), (2**63, 0, "64 bits")],
)
def test_what_is_no_sequence_or_time_is_refused(sequence: object, timestamp: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        SequenceTracker().check_sequence("X", "S", sequence, timestamp)  # type: ignore[arg-type]


def test_kinds_are_counted_apart() -> None:
    tracker = SequenceTracker()
    tracker.check_sequence("X", "S", 5, 0)
    assert tracker.check_sequence("X", "S", 50, 1, kind="quotes").classification is SequenceClass.OK


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, SECOND, HOUR, -SECOND]), st.sampled_from([1, 1, 1, 1, 2, 12, 0, -1, -300])),
        min_size=1,
        max_size=60,
    )
)
def test_epochs_are_those_of_a_recount_unless_ambiguous(steps: list[tuple[int, int]]) -> None:
    times = np.cumsum([wait for wait, _ in steps], dtype=np.int64)
    sequence = np.maximum(np.cumsum([step for _, step in steps], dtype=np.int64) + 500, 0)
    tracker = SequenceTracker()
    for t, s in zip(times.tolist(), sequence.tolist(), strict=True):
        tracker.check_sequence("X", "S", s, t)
    if not tracker.stats().ambiguous_keys:
        assert tracker.epochs("X", "S") == recount(times, sequence)[-33:]
