"""Text to numbers and times, against Python's own Decimal and zoneinfo."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.csv.numbers import read_decimals, read_integers
from k2beam.csv.times import TimeRule
from k2beam.errors import UsageError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MODERN = st.datetimes(datetime(1980, 1, 1), datetime(2036, 12, 31))


def strings(*texts: str) -> pa.Array:
    return pa.array(texts, pa.string())


def holds(value: Decimal) -> bool:
    """Whether a column has room for it."""
    scaled = value.scaleb(18, Context(prec=200))
    return abs(scaled) < 10**38 and scaled == scaled.to_integral_value(context=Context(prec=200))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.from_regex(r"[+-]?[0-9]{0,22}\.?[0-9]{0,20}([eE][+-]?[0-9]{1,2})?", fullmatch=True), min_size=1))
def test_decimals_are_exact_or_refused(texts: list[str]) -> None:
    found = read_decimals(strings(*texts))
    for row, text in enumerate(texts):
        try:
            value = Decimal(text)
        except ArithmeticError:
            assert found.unreadable[row], text
            continue
        fits = holds(value)
        assert (not found.unreadable[row], not found.overflow[row]) == (True, fits), text
        assert not fits or found.values[row].as_py() == value, text


@pytest.mark.parametrize(
    "text", ["", ".", "+", "1,5", "1_000", "NaN", "Infinity", "0x1", "\uff11", "1 2", "--1", "1e", "e5"]
)
def test_what_is_no_number(text: str) -> None:
    assert read_decimals(strings(text, "1")).unreadable.tolist() == [True, False]


@pytest.mark.parametrize("text", ["1e999", "1e-999", "0." + "0" * 18 + "1", "1" + "0" * 20, "12345678901234567890e-30"])
def test_what_does_not_fit(text: str) -> None:
    found = read_decimals(strings(text))
    assert (found.unreadable.tolist(), found.overflow.tolist()) == ([False], [True])


def test_integers() -> None:
    found = read_integers(
        strings("12", "+7", "-3", "1.0", "", f"{2**63 - 1}", f"-000{2**63 - 1}", f"{2**63}", "9" * 40)
    )
    assert found.values.to_pylist() == [12, 7, -3, 0, 0, 2**63 - 1, 1 - 2**63, 0, 0]
    assert np.flatnonzero(found.unreadable).tolist() == [3, 4]
    assert np.flatnonzero(found.overflow).tolist() == [7, 8]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 18), st.from_regex(r"[+-]?[0-9]{1,12}(\.[0-9]{1,9})?([eE][+-]?[0-9])?", fullmatch=True))
def test_scaled_numbers_are_exact_or_refused(scale: int, text: str) -> None:
    found, value = read_decimals(strings(text), scale), Decimal(text).scaleb(-scale)
    fits = holds(value)
    assert (bool(found.unreadable[0]), bool(found.overflow[0])) == (False, not fits)
    assert not fits or found.values[0].as_py() == value


def test_numbers_of_few_and_of_many_digits_may_stand_together() -> None:
    texts = ("18500000000", "0.000012345", "-0.00002102", "1.5e-12", "9" * 20 + "." + "9" * 18, "x", "7")
    found = read_decimals(strings(*texts))
    assert found.unreadable.tolist() == [text == "x" for text in texts]
    assert not found.overflow.any()
    for text, value in zip(texts, found.values.to_pylist(), strict=True):
        assert text == "x" or value == Decimal(text)


def test_a_format_that_reads_a_text_exactly_is_preferred() -> None:
    found = TimeRule.parse(["epoch-ns", "epoch-ms"], None, "refuse").read(strings("1583020801030.5", "5", "1001"))
    assert found.values.tolist() == [1_583_020_801_030_500, 5000, 1_001_000]
    assert found.finer.to_pylist() == ["", "", ""]


@settings(max_examples=200, deadline=None)
@given(MODERN, st.sampled_from(["Australia/Sydney", "America/New_York", "Europe/London", "Asia/Kolkata", "UTC"]))
def test_local_times_are_those_of_the_zone(local: datetime, zone: str) -> None:
    first, second = (local.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC) for fold in (0, 1))
    exists = first.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == local
    text = strings(local.strftime("%Y-%m-%d %H:%M:%S.%f"))
    for word, expected in (("refuse", first), ("first", first), ("second", second)):
        found = TimeRule.parse(["%Y-%m-%d %H:%M:%S.%f"], zone, word).read(text)
        assert found.left_out[0] != exists
        assert found.ambiguous[0] == (word == "refuse" and exists and first != second)
        if exists and not found.ambiguous[0]:
            assert EPOCH + int(found.values[0]) * MICROSECOND == expected


@pytest.mark.parametrize(
    ("word", "hour"), [("first", 15), ("second", 16)]
)  # Sydney's clocks went from 3 to 2 on 6 April 2014, at 16:00 UTC
def test_the_hour_that_comes_twice(word: str, hour: int) -> None:
    rule = TimeRule.parse(["%Y-%m-%d %H:%M:%S"], "Australia/Sydney", word)
    found = rule.read(strings("2014-04-06 02:30:00"))
    assert EPOCH + int(found.values[0]) * MICROSECOND == datetime(2014, 4, 5, hour, 30, tzinfo=UTC)


@settings(max_examples=100, deadline=None)
@given(MODERN)
def test_every_directive(moment: datetime) -> None:
    expected = (moment.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
    for form in ("%d-%b-%Y %H:%M:%S.%f", "%Y%m%dT%I:%M:%S.%f %p"):
        found = TimeRule.parse([form], "UTC", "refuse").read(strings(moment.strftime(form)))
        assert (found.unreadable[0], found.values[0]) == (False, expected), form


@pytest.mark.parametrize(
    ("form", "text", "micros"),
    [
        ("epoch-s", "1700000000", 1_700_000_000_000_000),
        ("epoch-ms", "1700000000123", 1_700_000_000_123_000),
        ("epoch-us", "-5", -5),
        ("epoch-ns", "1700000000123456000", 1_700_000_000_123_456),
        ("epoch-ns", "1700000000123456001", (1_700_000_000_123_456, "001")),
        ("epoch-ns", "9223372036854775000", 9_223_372_036_854_775),
        ("epoch-ns", "-9223372036854775000", -9_223_372_036_854_775),
        ("epoch-ns", "9223372036854776000", 9_223_372_036_854_776),
        ("epoch-ns", "-9223372036854776000", -9_223_372_036_854_776),
        ("epoch-ns", "99999999999999999999", None),
        ("epoch-ns", "00000000000000001000", 1),
        ("epoch-ns", "-7", None),
        ("epoch-ns", "5.5", (0, "0055")),
        ("epoch-s", "1585180700.0647", 1_585_180_700_064_700),
        ("epoch-s", "1585180700.", None),
        ("epoch-s", ".5", None),
        ("epoch-s", "-1.5", -1_500_000),
        ("epoch-s", "1585180700.064700126647949", (1_585_180_700_064_700, "126647949")),
        ("epoch-ms", "1585180700064.7", 1_585_180_700_064_700),
        ("epoch-us", "1585180700064700.000", 1_585_180_700_064_700),
        ("epoch", "1585180700", 1_585_180_700_000_000),
        ("epoch", "1585180700064.7", 1_585_180_700_064_700),
        ("epoch", "1585180700064700", 1_585_180_700_064_700),
        ("epoch", "1585180700064700126", (1_585_180_700_064_700, "126")),
        ("epoch", "15851807000", None),
        ("epoch", "-1585180700", None),
        ("epoch-us", "1585180700064700.25", (1_585_180_700_064_700, "25")),
        ("%Y-%m-%d %N%z", "2012-06-21 34200.017459617Z", (1_340_271_000_017_459, "617")),
        ("%Y-%m-%d %N%z", "2012-06-21 5-0100", 1_340_240_405_000_000),
        ("%Y-%m-%d %N%z", "2012-06-21 86399.999999Z", 1_340_323_199_999_999),
        ("%Y-%m-%d %N%z", "2012-06-21 86400Z", None),
        ("%Y-%m-%d %H:%M:%S,%f%z", "1970-01-01 00:00:01,000000100200Z", (1_000_000, "1002")),
        ("epoch-s", "253402300799", 253_402_300_799_000_000),
        ("epoch-s", "253402300800", None),
        ("epoch-s", "-62135596800", -62_135_596_800_000_000),
        ("epoch-s", "-62135596801", None),
        ("epoch-s", "-99999999999", None),
        ("epoch-s", "9223372036854775807", None),
        ("epoch-ns", "170000000012345600", (170_000_000_012_345, "6")),
        ("epoch-ns", "170000000012345000", 170_000_000_012_345),
        ("%Y-%m-%dT%H:%M:%S%z", "1970-01-01T02:00:01+02:00", 1_000_000),
        ("%Y-%m-%dT%H:%M:%S%z", "1969-12-31T19:00:01-0500", 1_000_000),
        ("%Y-%m-%dT%H:%M:%S%z", "1970-01-01T00:00:01Z", 1_000_000),
        ("%Y-%m-%dT%H:%M:%S.%f%z", "1970-01-01T00:00:00.000001000Z", 1),
        ("%Y-%m-%dT%H:%M:%S.%f%z", "1970-01-01T00:00:00.000001001Z", (1, "001")),
        ("%Y-%m-%d%z", "1970-01-01-2359", 86_340_000_000),
        ("%Y-%m-%d%z", "2020-01-01+24:00", None),
        ("%Y-%m-%d%z", "2020-01-01+99:99", None),
        ("%Y-%m-%d%z", "2020-01-01+10:75", None),
        ("%Y-%m-%d %H%z", "0001-01-01 01+01:00", -62_135_596_800_000_000),
        ("%Y-%m-%d %H%z", "0001-01-01 00+01:00", None),
        ("%Y-%m-%d %H%z", "9999-12-31 22-01:00", 253_402_297_200_000_000),
        ("%Y-%m-%d %H%z", "9999-12-31 23-01:00", None),
        ("%Y-%m-%d%z", "2023-02-29Z", None),
        ("%Y-%m-%d%z", "2024-02-29Z", 1_709_164_800_000_000),
        ("%Y-%m-%d%z", "2024-13-01Z", None),
        ("%Y-%m-%d%z", "2024-01-00Z", None),
        ("%Y-%m-%dT%H:%M:%S%z", "1970-01-01T24:00:00Z", None),
        ("%Y-%m-%dT%H:%M:%S%z", "1970-01-01T00:60:00Z", None),
        ("%Y-%m-%dT%H:%M:%S%z", " 1970-01-01T00:00:00Z", None),
    ],
)
def test_formats_that_need_no_zone(form: str, text: str, micros: int | tuple[int, str] | None) -> None:
    found = TimeRule.parse([form], None, "refuse").read(strings(text))
    exact, finer = int(found.values[0]), found.finer[0].as_py()
    assert (None if found.unreadable[0] else (exact, finer) if finer else exact) == micros


@pytest.mark.parametrize(
    ("zone", "text"), [("Australia/Sydney", "0001-01-01 00:00:00"), ("America/New_York", "9999-12-31 23:00:00")]
)
def test_a_zone_that_moves_a_time_out_of_the_years_1_to_9999(zone: str, text: str) -> None:
    found = TimeRule.parse(["%Y-%m-%d %H:%M:%S"], zone, "refuse").read(strings(text, "2014-03-10 10:00:00"))
    assert found.unreadable.tolist() == [True, False]


@pytest.mark.parametrize(
    ("formats", "zone", "word", "said"),
    [
        (["%Y-%m-%d"], None, "refuse", "give its `zone`"),
        (["%Y-%m-%d"], "Mars/Olympus", "refuse", "Mars/Olympus"),
        (["%Y-%m-%d %Q"], "UTC", "refuse", "%Q is not known"),
        (["%Y-%Y-%d"], "UTC", "refuse", "twice"),
        (["%H:%M"], "UTC", "refuse", "year, month and day"),
        (["%Y-%m-%d %I:%M"], "UTC", "refuse", "only together"),
        (["epoch-ms"], None, "guess", "refuse, first or second"),
    ],
)
def test_a_rule_that_can_not_be(formats: list[str], zone: str | None, word: str, said: str) -> None:
    with pytest.raises(UsageError, match=r"zone|format|ambiguous") as caught:
        TimeRule.parse(formats, zone, word)
    assert said in str(caught.value)
