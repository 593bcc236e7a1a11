"""The summary of a day, against a plain calculation with fractions."""

from __future__ import annotations

from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from k2beam.errors import UsageError
from k2beam.query.lake import Lake
from k2beam.query.summary import DaySummary, summarise_trades
from tests.query_fixtures import append_events, each_once, make_catalog, stored_in_memory, trade

MONDAY = date(2026, 1, 5)
LARGEST = "9" * 20 + "." + "9" * 18


def expected(rows: list[dict[str, Any]], with_duplicates: bool) -> tuple[Any, ...]:
    """The answer in the most literal way."""
    trades = sorted(
        rows if with_duplicates else each_once(rows),
        key=lambda row: (
            row["timestamp"],
            row["source_sequence"] is None,
            row["source_sequence"] or 0,
            row["_offset"],
            row["_source"],
            row["_partition"],
        ),
    )
    prices = [row["price"] for row in trades]
    volume = sum((Fraction(row["quantity"]) for row in trades), Fraction(0))
    notional = sum((Fraction(row["price"]) * Fraction(row["quantity"]) for row in trades), Fraction(0))
    wide = Context(prec=200)
    places = Decimal("1e-18")
    vwap = None
    if volume:
        ratio = notional / volume
        exact = wide.divide(Decimal(ratio.numerator), Decimal(ratio.denominator))
        vwap = exact.quantize(places, rounding=ROUND_HALF_EVEN, context=wide)
    total = wide.divide(Decimal(volume.numerator), Decimal(volume.denominator)).quantize(places, context=wide)
    return (
        (prices or [None])[0],
        max(prices, default=None),
        min(prices, default=None),
        (prices or [None])[-1],
        total,
        len(trades),
        vwap,
    )


def answer(summary: DaySummary) -> tuple[Any, ...]:
    return (
        summary.open,
        summary.high,
        summary.low,
        summary.close,
        summary.volume,
        summary.trades,
        summary.vwap,
    )


def computed(rows: list[dict[str, Any]], with_duplicates: bool) -> tuple[Any, ...]:
    stored = stored_in_memory("trades", rows)
    return answer(summarise_trades("BTCUSDT", None, MONDAY, stored, with_duplicates=with_duplicates))


EXACT = Context(prec=76)
DECIMALS = st.integers(1, 10**38 - 1).map(lambda unscaled: Decimal(unscaled).scaleb(-18, EXACT))
TRADES = st.lists(
    st.builds(
        lambda seconds, price, quantity, sequence, copy, source: {
            "seconds": seconds,
            "price": price,
            "quantity": quantity,
            "source_sequence": sequence,
            "message_id": f"m{copy}",
            "_source": source,
        },
        st.integers(0, 3),
        DECIMALS,
        DECIMALS,
        st.none() | st.integers(0, 3),
        st.integers(0, 8),
        st.sampled_from(["a", "b"]),
    ),
    max_size=12,
)


def numbered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        trade(offset, row["seconds"], str(row["price"]), str(row["quantity"]))
        | {name: row[name] for name in ("source_sequence", "message_id", "_source")}
        for offset, row in enumerate(rows)
    ]


@settings(max_examples=40, deadline=None)
@given(TRADES, st.booleans())
@example([], False)
def test_it_is_the_plain_calculation(rows: list[dict[str, Any]], with_duplicates: bool) -> None:
    trades = numbered(rows)
    assert computed(trades, with_duplicates) == expected(trades, with_duplicates)


def test_the_largest_values_do_not_overflow() -> None:
    rows = [trade(offset, 1, LARGEST, LARGEST) for offset in range(1_000)]
    volume = Decimal("99999999999999999999999.999999999999999000")
    largest = Decimal(LARGEST)
    assert computed(rows, False) == (largest, largest, largest, largest, volume, 1_000, largest)


def test_negative_quantities_keep_their_sign() -> None:
    rows = [trade(0, 1, "3", "5.00000001"), trade(1, 2, "7", "-12.345678912345678912")]
    assert computed(rows, False) == expected(rows, False)


def test_half_goes_to_even() -> None:
    one, two, three = (f"0.{number:018}" for number in (1, 2, 3))
    down = [trade(0, 1, one, "1"), trade(1, 2, two, "1"), trade(2, 3, "0", "0")]
    assert computed(down, False)[-1] == Decimal(two)
    up = [trade(0, 1, two, "1"), trade(1, 2, three, "1")]
    assert computed(up, False)[-1] == Decimal(two)


def test_without_volume_there_is_no_vwap() -> None:
    assert computed([trade(0, 1, "5", "0")], False)[4:] == (Decimal("0.00000000"), 1, None)


def test_a_day_of_the_table(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    append_events(
        catalog,
        "trades",
        [
            trade(0, -1, "1"),
            trade(1, 0, "10", "2"),
            trade(2, 50, "30", "1"),
            trade(3, 86_399.999999, "20.5", "1"),
            trade(4, 86_400, "1"),
            trade(5, 50, "5", symbol="ETHUSDT"),
            trade(6, 60, "40", exchange="ASX"),
        ],
    )
    append_events(catalog, "trades", [trade(9, 51, "30", "1", message_id="m2")])
    lake = Lake(str(tmp_path))
    first = catalog.load_table(("market_data", "trades_v2")).history()[0].snapshot_id

    def of(**options: Any) -> tuple[Any, ...]:
        return answer(lake.summary("BTCUSDT", "2026-01-05", **options))

    def decimals(*texts: str) -> tuple[Decimal, ...]:
        return tuple(Decimal(text) for text in texts)

    binance = (*decimals("10", "30", "10", "20.5", "4"), 3, Decimal("17.625"))
    assert of(exchange="BINANCE") == binance
    assert of(exchange="BINANCE", with_duplicates=True) == (*binance[:4], Decimal(5), 4, Decimal("20.1"))
    assert of(exchange="BINANCE", with_duplicates=True, as_of=first) == binance
    assert of() == (*decimals("10", "40", "10", "20.5", "5"), 4, Decimal("22.1"))
    nothing = lake.summary("NONE", MONDAY)
    assert answer(nothing) == (None, None, None, None, Decimal(0), 0, None)
    assert (nothing.symbol, nothing.exchange, nothing.day) == ("NONE", None, MONDAY)
    with pytest.raises(UsageError, match="--day '5 January' is not a day"):
        lake.summary("BTCUSDT", "5 January")
    with pytest.raises(UsageError, match="last day"):
        lake.summary("BTCUSDT", date.max)
