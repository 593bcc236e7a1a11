"""Fields of frames: every digit is kept, and what does not fit is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2beam.errors import BadFrame, UsageError
from k2beam.feeds.fields import (
    Instrument,
    check_addresses,
    decimal_number,
    iso_time,
    json_object,
    listed,
    parse_instruments,
)

RECEIVED = 1_767_571_200_000_000
"""2026-01-05T00:00:00Z."""


@given(st.decimals(min_value=0, max_value=10**19, places=18))
def test_a_number_of_json_keeps_its_digits(value: Decimal) -> None:
    payload = json_object(f'{{"x": {value:f}}}')
    assert decimal_number(payload, "x") == value


@pytest.mark.parametrize(
    ("text", "value"), [("7", "7"), ("0.1", "0.1"), ("1e-7", "0.0000001"), ("2.5E+3", "2500"), ("0", "0")]
)
def test_numbers_of_json_in_all_their_forms(text: str, value: str) -> None:
    assert decimal_number(json_object(f'{{"x": {text}}}'), "x") == Decimal(value)


@pytest.mark.parametrize(
    "text", ["-1", "-0.5", '"1"', "true", "null", "[1]", "1e400", "1e-99", "1" + "0" * 20, "0." + "0" * 18 + "1"]
)
def test_what_is_no_number_of_a_column_is_refused(text: str) -> None:
    with pytest.raises(BadFrame) as raised:
        decimal_number(json_object(f'{{"x": {text}}}'), "x")
    assert raised.value.reason == "value"


def test_a_missing_field_is_refused() -> None:
    with pytest.raises(BadFrame, match="x is not"):
        decimal_number({}, "x")
    with pytest.raises(BadFrame, match="x is not"):
        iso_time({}, "x", RECEIVED)


@given(
    st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2026, 1, 4)),
    st.integers(min_value=-14 * 60, max_value=14 * 60),
)
def test_times_are_microseconds_whatever_their_zone(moment: datetime, offset: int) -> None:
    there = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=offset)))
    micros = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    assert iso_time({"x": there.isoformat()}, "x", RECEIVED) == micros


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2026-01-04T23:59:59Z", RECEIVED - 1_000_000),
        ("2026-01-04T23:59:59.5Z", RECEIVED - 500_000),
        ("2026-01-04T23:59:59.123456Z", RECEIVED - 876_544),
        ("2026-01-04T23:59:59.123456789Z", RECEIVED - 876_544),
    ],
)
def test_times_have_as_many_digits_as_they_have(text: str, micros: int) -> None:
    assert iso_time({"x": text}, "x", RECEIVED) == micros


@pytest.mark.parametrize(
    "value",
    ["2026-01-04T23:59:59", "yesterday", "", 1_767_571_200, None, "1969-12-31T23:59:59Z", "2026-01-06T00:00:01Z"],
)
def test_what_is_no_time_of_an_event_is_refused(value: Any) -> None:
    with pytest.raises(BadFrame) as raised:
        iso_time(json.loads(json.dumps({"x": value})), "x", RECEIVED)
    assert raised.value.reason == "value"


def test_instruments_are_written_as_the_exchange_does() -> None:
    assert parse_instruments("btc/usd, ETH-EUR,btc-usd", "-") == (
        Instrument("BTC-USD", "USD"),
        Instrument("ETH-EUR", "EUR"),
    )
    assert parse_instruments("AAPLx/USD,1inch/usd", "/") == (
        Instrument("AAPLx/USD", "USD"),
        Instrument("1INCH/USD", "USD"),
    )


@pytest.mark.parametrize(
    "text", ["", ",", "btcusd", "btc/", "/usd", "btc/usd/x", "btc usd", "b\N{LATIN SMALL LETTER E WITH ACUTE}/usd"]
)
def test_what_is_no_pair_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--symbols"):
        parse_instruments(text, "-")


def test_lists_and_addresses() -> None:
    assert listed("b, a,b", "--streams", ("a", "b")) == ("b", "a")
    with pytest.raises(UsageError, match="--streams takes a,b or one of them, not 'c'"):
        listed("c", "--streams", ("a", "b"))
    check_addresses(["wss://ws.kraken.com/v2", "ws://127.0.0.1:1"], path=True)
    for wrong in ("https://x", "wss://", "x", "ws://x#y", "ws://x:70000"):
        with pytest.raises(UsageError, match="--url"):
            check_addresses([wrong], path=True)
