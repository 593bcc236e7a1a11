"""When bars begin and end, by the clocks of a zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2beam.errors import UsageError
from k2beam.query.bar_rules import BarRule

ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia")
SIZES = ("1s", "30s", "1m", "5m", "1h", "4h", "12h", "1d")
YEAR = 365 * 86_400_000_000


def micros(text: str, zone: str = "UTC") -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def local(moment: int, zone: str) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment)).astimezone(ZoneInfo(zone)).isoformat()


@given(
    st.lists(st.integers(-5 * YEAR, 70 * YEAR), min_size=1, max_size=8), st.sampled_from(SIZES), st.sampled_from(ZONES)
)
def test_a_moment_is_in_its_bar_and_bars_follow_each_other(times: list[int], size: str, zone: str) -> None:
    rule, moments = BarRule.parse(size, zone), np.array(times)
    starts = rule.starts(moments)
    ends = rule.ends(starts)
    assert ((starts <= moments) & (moments < ends)).all()
    assert (rule.starts(starts) == starts).all()
    assert (rule.starts(ends) == ends).all()
    assert (rule.starts(ends - 1) == starts).all()
    for start in starts.tolist():
        begun = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=start)
        day = begun.astimezone(ZoneInfo(zone)).date()
        assert (begun - timedelta(microseconds=1)).astimezone(ZoneInfo(zone)).date() <= day
        last = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(rule.ends(np.array([start]))[0]) - 1)
        assert last.astimezone(ZoneInfo(zone)).date() == day


@given(
    st.integers(0, 60 * YEAR), st.integers(0, 4 * 86_400_000_000), st.sampled_from(SIZES[2:]), st.sampled_from(ZONES)
)
def test_all_bars_between_two_moments(first: int, span: int, size: str, zone: str) -> None:
    rule = BarRule.parse(size, zone)
    bars = rule.between(first, first + span)
    assert bars[0] == rule.starts(np.array([first]))[0]
    assert bars[-1] == rule.starts(np.array([first + span]))[0]
    assert (rule.ends(bars[:-1]) == bars[1:]).all()


def test_a_day_of_new_york_has_23_or_25_hours_where_its_clocks_change() -> None:
    zone = "America/New_York"
    for day, hours in (("2026-03-08", 23), ("2026-11-01", 25), ("2026-06-01", 24)):
        start = micros(day, zone)
        (end,) = BarRule.parse("1d", zone).ends(np.array([start])).tolist()
        assert end - start == hours * 3_600_000_000
        assert len(BarRule.parse("1h", zone).between(start, end - 1)) == hours
        last = BarRule.parse("4h", zone).between(start, end - 1)[-1]
        assert local(int(last), zone)[11:13] == {23: "21", 25: "23", 24: "20"}[hours]


def test_a_day_begins_where_there_is_no_midnight() -> None:
    # The clocks of São Paulo went from 00:00 to 01:00 on 2018-11-04.
    (start,) = BarRule.parse("1d", "America/Sao_Paulo").starts(np.array([micros("2018-11-04T12:00:00")])).tolist()
    assert local(start, "America/Sao_Paulo") == "2018-11-04T01:00:00-02:00"


@pytest.mark.parametrize(
    ("every", "said"),
    [
        ("7m", "does not divide a day"),
        ("0s", "does not divide a day"),
        ("2d", "does not divide a day"),
        ("1w", "is no size of a bar"),
        ("", "is no size of a bar"),
        ("0 trades", "is no size of a bar"),
        ("volume x", "must be a number above 0"),
        ("volume -1", "must be a number above 0"),
        ("volume NaN", "must be a number above 0"),
        ("volume Infinity", "must be a number above 0"),
    ],
)
def test_what_is_no_rule_is_refused(every: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"--every {every!r}.*{said}".replace("(", r"\(")):
        BarRule.parse(every)


def test_an_unknown_zone_is_refused() -> None:
    for zone in ("Mars/Base", "../etc/passwd", ""):
        with pytest.raises(UsageError, match="is not a time zone"):
            BarRule.parse("1m", zone)


def test_the_other_rules() -> None:
    assert BarRule.parse("100trades").trades == BarRule.parse("100 trades").trades == 100
    assert BarRule.parse("volume 0.1").volume == Decimal("0.1")
