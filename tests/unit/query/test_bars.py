"""Bars against a plain calculation with fractions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from k2beam.errors import LakeError, UsageError
from k2beam.query.bar_rules import BarRule
from k2beam.query.bars import BAR_SCHEMA, BarMaking, bars_of
from k2beam.query.lake import Lake
from k2beam.query.selections import EventSelection
from tests.query_fixtures import DAY, SECOND, append_events, each_once, make_catalog, stored_in_memory, trade

WIDE = Context(prec=200)
PLACES = Decimal("1e-18")
NAMES = ("exchange", "symbol", "open", "high", "low", "close", "volume", "trades", "vwap")


def computed(rows: list[dict[str, Any]], every: str, *, empty: bool = False, **selected: Any) -> list[dict[str, Any]]:
    stored = stored_in_memory("trades", rows)
    batches = list(bars_of(stored, BarMaking(BarRule.parse(every), EventSelection(**selected), empty)))
    assert all(batch.schema == BAR_SCHEMA for batch in batches)
    return pa.Table.from_batches(batches, BAR_SCHEMA).to_pylist()


def numbered(rows: list[dict[str, Any]], every: str) -> Iterable[tuple[int, dict[str, Any]]]:
    """The bar of each trade of one symbol, in order."""
    rule, bar, volume = BarRule.parse(every), 0, Decimal(0)
    for place, row in enumerate(rows):
        if rule.volume:
            if volume >= rule.volume:
                bar, volume = bar + 1, Decimal(0)
            volume += row["quantity"]
            yield bar, row
        else:
            yield place // rule.trades if rule.trades else row["timestamp"] // rule.micros, row


def expected(rows: list[dict[str, Any]], every: str) -> list[dict[str, Any]]:
    """The answer in the most literal way."""

    def order(row: dict[str, Any]) -> tuple[Any, ...]:
        number = row["source_sequence"]
        return row["timestamp"], number is None, number or 0, row["_offset"], row["_source"], row["_partition"]

    def key(row: dict[str, Any]) -> tuple[str, str]:
        return row["exchange"], row["symbol"]

    bars = []
    for name, found in groupby(sorted(each_once(rows), key=lambda row: (key(row), order(row))), key):
        for _, pairs in groupby(numbered(list(found), every), lambda pair: pair[0]):
            bars.append(bar_of(name, [row for _, row in pairs]))
    return bars


def bar_of(name: tuple[str, str], rows: list[dict[str, Any]]) -> dict[str, Any]:
    prices = [row["price"] for row in rows]
    volume = sum(Fraction(row["quantity"]) for row in rows)
    notional = sum(Fraction(row["price"]) * Fraction(row["quantity"]) for row in rows)
    values = (prices[0], max(prices), min(prices), prices[-1], decimal(volume), len(rows))
    return dict(zip(NAMES, (*name, *values, decimal(notional / volume) if volume else None), strict=True))


def decimal(value: Fraction) -> Decimal:
    exact = WIDE.divide(Decimal(value.numerator), Decimal(value.denominator))
    return exact.quantize(PLACES, rounding=ROUND_HALF_EVEN, context=WIDE)


AS_QUOTED = st.integers(1, 10**14).map(lambda units: Decimal(units).scaleb(-8))
LONG = st.integers(1, 10**36).map(lambda units: Decimal(units).scaleb(-18, WIDE))
ROWS = st.tuples(st.integers(0, 200), st.sampled_from("ab"), st.none() | st.integers(0, 40), st.integers(0, 30))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(ROWS, max_size=16),
    st.sampled_from([AS_QUOTED, LONG]).flatmap(lambda values: st.lists(values, min_size=32, max_size=32)),
    st.sampled_from(["1s", "1m", "1h", "1d", "1 trades", "3 trades", "volume 0.5", "volume 1000000"]),
)
@example([], [Decimal(1)] * 32, "1m")
def test_they_are_the_plain_calculation(given_rows: list[Any], values: list[Decimal], every: str) -> None:
    rows = [
        trade(place, second, str(values[2 * place]), str(values[2 * place + 1]), symbol=symbol)
        | {"source_sequence": number, "message_id": f"m{copy}"}
        for place, (second, symbol, number, copy) in enumerate(given_rows)
    ]
    assert [{name: bar[name] for name in NAMES} for bar in computed(rows, every)] == expected(rows, every)


def moment(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=DAY + round(seconds * SECOND))


def test_times_of_bars() -> None:
    rows = [trade(0, 61.5), trade(1, 62), trade(2, 200)]
    spans = [(bar["start"], bar["end"]) for bar in computed(rows, "1m")]
    assert spans == [(moment(60), moment(120)), (moment(180), moment(240))]
    spans = [(bar["start"], bar["end"]) for bar in computed(rows, "2 trades")]
    assert spans == [(moment(61.5), moment(62)), (moment(200), moment(200))]


def test_empty_bars() -> None:
    rows = [trade(0, 61.5), trade(1, 300), trade(2, 130, symbol="ETHUSDT")]

    def counts(**selected: Any) -> list[tuple[str, int, int]]:
        bars = computed(rows, "1m", empty=True, **selected)
        assert {bar["trades"] for bar in bars if bar["volume"]} == {1}
        assert all(bar["open"] is None and bar["vwap"] is None for bar in bars if not bar["trades"])
        return [(bar["symbol"], (bar["start"] - moment(0)) // timedelta(minutes=1), bar["trades"]) for bar in bars]

    assert counts() == [
        *(("BTCUSDT", minute, int(minute in (1, 5))) for minute in range(1, 6)),
        ("ETHUSDT", 2, 1),
    ]
    assert counts(start=moment(0), end=moment(360)) == [
        *(("BTCUSDT", minute, int(minute in (1, 5))) for minute in range(6)),
        *(("ETHUSDT", minute, int(minute == 2)) for minute in range(6)),
    ]
    assert computed([], "1m", empty=True) == []
    long = [{**row, "price": Decimal("1.000000000000000001")} for row in rows]
    assert len(computed(long, "1m", empty=True)) == 6


def test_products_beyond_128_bits_are_summed_exactly() -> None:
    largest = "92233720368.54775807"
    rows = [trade(number, number / 10, largest, largest) for number in range(9)]
    assert [{name: bar[name] for name in NAMES} for bar in computed(rows, "1m")] == expected(rows, "1m")


def test_a_volume_that_no_column_holds_is_an_error() -> None:
    rows = [trade(number, 1, "1", "9" * 20 + ".5") for number in range(2)]
    with pytest.raises(LakeError, match="more digits"):
        computed(rows, "1m")


def test_from_the_tables(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    append_events(catalog, "trades", [trade(0, 1, "10"), trade(1, 70, "12")])
    append_events(
        catalog, "trades", [trade(2, 2, "11", "3"), trade(3, 3, "7", message_id="m2"), trade(4, 4, symbol="X")]
    )
    lake = Lake(str(tmp_path))
    rows = lake.bars("1m", "BTCUSDT").to_pylist()
    assert [(row["open"], row["close"], row["volume"], row["vwap"]) for row in rows] == [
        (10, 11, 4, Decimal("10.75")),
        (12, 12, 1, 12),
    ]
    assert lake.bars("1m", ["BTCUSDT", "X"]).num_rows == 3
    assert lake.bars("1d", with_duplicates=True)["trades"].to_pylist() == [4, 1]
    assert lake.bars("1m", as_of="2020-01-01").num_rows == 0
    with pytest.raises(UsageError, match="empty bars"):
        lake.bars("2 trades", empty=True)
    with pytest.raises(UsageError, match="no symbol is named"):
        lake.bars("1m", [])
