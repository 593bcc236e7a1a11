"""Rules of sequences: whose numbers are counted together, and when they begin anew."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.errors import UsageError
from k2beam.sequence import DayFold, KeyName, KeyState, SequenceRules, SequenceTracker, slice_runs
from k2beam.sequence.rules import NO_RULES, RAISED, NumberedRows, key_name

DAY = 86_400_000_000
START = 20_458 * DAY  # 2026-01-05
Row = tuple[int, int | None]


def rules(*lines: str) -> SequenceRules:
    return SequenceRules.parse("[[rule]]\n" + "\n".join(lines), "here")


def numbered(given: SequenceRules, rows: Iterable[Row], symbol: str = "A", **further: str | None) -> NumberedRows:
    found = list(rows)
    times = np.array([time for time, _ in found], dtype=np.int64)
    sequences = np.array([-1 if number is None else number for _, number in found], dtype=np.int64)
    exchange, symbols = (pa.array([text] * len(found)).dictionary_encode() for text in ("X", symbol))
    return given.number(
        exchange, symbols, times, sequences, lambda name: pa.array([further[name]] * len(found), pa.string())
    )


def gaps(given: SequenceRules, rows: Iterable[Row], **further: str) -> list[tuple[int, int, int]]:
    """Epoch and missing numbers of one symbol, by the state of each key and by its days alike."""
    found = numbered(given, rows, **further)
    times = np.array([time for time, _ in rows], dtype=np.int64)
    told = []
    for code, piece in slice_runs(found.codes, found.sequences, times):
        name = KeyName.read(found.keys[code][1])
        fold = DayFold()
        for one in (*name.beginning, piece):
            fold.add(one)
        state = KeyState.from_slices((*name.beginning, piece))
        assert name.told_apart(fold.epochs) == name.told_apart(state.epochs)
        told += [(epoch.number, gap.first, gap.last) for epoch in name.told_apart(fold.epochs) for gap in epoch.gaps]
    return sorted(told)


def feed(day: int, numbers: Iterable[int]) -> list[Row]:
    return [(START + day * DAY + number * 1_000_000, number) for number in numbers]


def test_numbers_that_begin_anew_each_day_are_counted_by_day() -> None:
    daily = rules('exchange = "X"', 'restart = "daily"')
    rows = feed(0, [*range(1, 61), *range(71, 101)]) + feed(1, range(55, 131))
    assert gaps(daily, rows) == [(20260105, 61, 70)]
    assert gaps(NO_RULES, rows) == []
    assert gaps(rules('exchange = "X"', 'restart = "daily"', "first = 1"), rows) == [
        (20260105, 61, 70),
        (20260106, 1, 54),
    ]
    assert gaps(rules('exchange = "X"', 'restart = "daily"', "first = 0"), feed(0, [1])) == [(20260105, 0, 0)]


def test_numbers_that_never_begin_anew_are_late_however_low_they_are() -> None:
    rows = [(START, 1000), (START + 5 * DAY, 1), (START + 5 * DAY + 1, 2), (START + 5 * DAY + 2, 3)]
    assert gaps(NO_RULES, rows) == []
    assert gaps(rules('exchange = "X"', 'restart = "never"'), rows) == [(0, 4, 999)]


def test_symbols_of_a_channel_share_its_numbers() -> None:
    shared = rules('exchange = "X"', 'channel = "stream"', 'restart = "never"')
    found = numbered(shared, feed(0, [1, 2]), stream="7")
    assert found.keys == [("X", key_name("7", 0))]
    without = numbered(shared, feed(0, [1, 2]), stream=None)
    assert (without.keys, without.sequences.tolist()) == ([("X", key_name("A", 0))], [-1, -1])


def test_a_session_is_named_by_a_value() -> None:
    named = rules('exchange = "X"', 'restart = "session"', 'session = "id"')
    assert gaps(named, feed(0, [5, 7]), id="42") == [(42, 6, 6)]
    ((_, text),) = numbered(named, feed(0, [5]), id="AM").keys
    assert 0 < (KeyName.read(text).epoch or 0) < 2**31
    ((_, long),) = numbered(named, feed(0, [5]), id="9" * 12).keys
    assert 0 < (KeyName.read(long).epoch or 0) < 2**31


def test_a_feed_without_numbers_has_none() -> None:
    assert numbered(rules('exchange = "X"', "unsequenced = true"), feed(0, [1, 5])).sequences.tolist() == [-1, -1]
    assert numbered(rules('exchange = "Y"', "unsequenced = true"), feed(0, [1, 5])).sequences.tolist() == [1, 5]
    assert numbered(rules('exchange = "X"', 'restart = "never"'), [(0, RAISED)]).sequences.tolist() == [-1]


def test_a_rule_of_topics_is_for_their_messages() -> None:
    of_topic = rules("topic = 'market[.]x[.].*'", "unsequenced = true")
    for source, number in (("kafka:c/market.x.y/a/b", -1), ("kafka:c/market.z/a", 1), ("archive:1", 1)):
        assert numbered(of_topic, feed(0, [1]), _source=source).sequences.tolist() == [number]


def test_the_first_rule_that_fits_counts() -> None:
    text = '[[rule]]\nexchange = "X"\nunsequenced = true\n[[rule]]\nexchange = "X"\nrestart = "never"'
    assert numbered(SequenceRules.parse(text, "here"), feed(0, [1])).sequences.tolist() == [-1]
    quotes = rules('exchange = "X"', 'kinds = ["quotes"]', "unsequenced = true")
    assert quotes.of_kind("trades") == NO_RULES
    assert (quotes.columns("quotes"), rules('topic = "x"', 'channel = "c"').columns("trades")) == (
        set(),
        {"c", "_source"},
    )


@settings(max_examples=60, deadline=None)
@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2036, 12, 31)),
    st.sampled_from(["UTC", "America/New_York", "Australia/Sydney"]),
    st.sampled_from(["00:00", "18:00", "09:30"]),
)
def test_a_day_begins_at_its_time_by_the_clocks_of_its_zone(moment: datetime, zone: str, at: str) -> None:
    time = int(moment.replace(tzinfo=UTC).timestamp()) * 1_000_000
    daily = rules('exchange = "X"', 'restart = "daily"', f'zone = "{zone}"', f'at = "{at}"')
    ((_, text),) = numbered(daily, [(time, 1)]).keys
    local = datetime.fromtimestamp(time / 1e6, ZoneInfo(zone)).replace(tzinfo=None)
    hour, minute = map(int, at.split(":"))
    began = local.date().toordinal() - ((local.hour, local.minute) < (hour, minute))
    day = datetime.fromordinal(began)
    assert KeyName.read(text).epoch == day.year * 10_000 + day.month * 100 + day.day


@given(st.text(max_size=5), st.none() | st.integers(0, 2**31 - 1), st.none() | st.integers(0, 9))
def test_a_name_is_read_as_it_was_made(symbol: str, epoch: int | None, first: int | None) -> None:
    first = None if epoch is None else first
    assert KeyName.read(key_name(symbol + "\x1f", epoch, first)) == (symbol + "\x1f", epoch, first)
    assert KeyName.read(key_name(symbol, epoch, first)) == (symbol, epoch, first)


def test_rules_are_kept_as_they_were_given() -> None:
    given = rules('exchange = "X"', 'restart = "daily"', 'zone = "Asia/Tokyo"', "first = 1", 'kinds = ["trades"]')
    assert SequenceRules.from_json(given.to_json()) == given


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["exchange ="], "not TOML"),
        (["first = 1"], "must name an exchange, or a topic"),
        (['exchange = "X"', "wrong = 1"], "rule 1 has no 'wrong'; known are exchange, topic"),
        (['exchange = "X"', 'first = "1"'], "first must be a int"),
        (['exchange = "X"', "first = 1"], "needs a restart"),
        (['exchange = "X"', 'restart = "hourly"'], "restart is one of guess, never, daily, session"),
        (['exchange = "X"', 'kinds = ["bonds"]'], "kinds are of trades, quotes, reference_data"),
        (['exchange = "X"', 'restart = "session"'], "the column or key that names it, go together"),
        (['exchange = "X"', 'restart = "daily"', 'zone = "Nowhere"'], "Nowhere"),
        (['exchange = "X"', 'restart = "daily"', 'at = "25:00"'], "hour must be in"),
        (["topic = '('"], "missing \\)"),
    ],
)
def test_rules_that_are_none_are_refused(lines: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=f"here: .*{message}"):
        rules(*lines)
    with pytest.raises(UsageError, match="there is nothing but"):
        SequenceRules.parse("[exchange]", "here")


def test_the_tracker_follows_the_rules() -> None:
    tracker = SequenceTracker(rules('exchange = "X"', 'restart = "daily"', "first = 1"))

    def check(day: int, number: int) -> tuple[Any, ...]:
        answer = tracker.check_sequence("X", "A", number, START + day * DAY + number)
        return answer.classification.name, answer.epoch, answer.expected, answer.missing_first, answer.missing_last

    assert check(0, 1) == ("OK", 20260105, 1, None, None)
    assert check(0, 4) == ("SMALL_GAP", 20260105, 2, 2, 3)
    assert check(1, 3) == ("SMALL_GAP", 20260106, 1, 1, 2)
    assert check(0, 2) == ("OUT_OF_ORDER", 20260105, 5, None, None)
    told = [
        (epoch.number, epoch.received, [(gap.first, gap.last) for gap in epoch.gaps])
        for epoch in tracker.epochs("X", "A")
    ]
    assert told == [(20260105, 3, [(3, 3)]), (20260106, 1, [(1, 2)])]
    assert tracker.check_sequence("X", "A", None, START).classification.name == "UNSEQUENCED"
