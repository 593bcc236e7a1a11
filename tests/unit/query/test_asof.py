"""The quote that held at each trade, against a plain search; and the spread."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.errors import UsageError
from k2beam.query import nearest
from k2beam.query.asof import AS_OF_SCHEMA
from k2beam.query.events import StoredEvents
from k2beam.query.lake import Lake
from k2beam.query.selections import EventSelection
from k2beam.query.spread import Spread, list_spreads
from tests.query_fixtures import DAY, SECOND, append_events, each_once, make_catalog, quote, trade


def moment(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=DAY + round(seconds * SECOND))


def prices(bid: str, ask: str) -> dict[str, Decimal]:
    return {"bid_price": Decimal(bid), "ask_price": Decimal(ask)}


def held(row: dict[str, Any], quotes: list[dict[str, Any]], tolerance: int | None) -> dict[str, Any] | None:
    """The last quote at or before a trade, in the most literal way."""

    def order(found: dict[str, Any]) -> tuple[Any, ...]:
        number = found["source_sequence"]
        return found["timestamp"], number is None, number or 0, found["_offset"]

    mine = [found for found in quotes if found["symbol"] == row["symbol"] and found["timestamp"] <= row["timestamp"]]
    last = max(mine, key=order, default=None)
    late = last is not None and tolerance is not None and row["timestamp"] - last["timestamp"] > tolerance * SECOND
    return None if late else last


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab")), min_size=1, max_size=8),
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from("ab"), st.none() | st.integers(0, 20)), min_size=1, max_size=8
    ),
    st.none() | st.integers(0, 9),
    st.none() | st.integers(0, 3),
)
def test_it_is_the_plain_search(
    tmp_path_factory: pytest.TempPathFactory,
    trades: list[tuple[int, str]],
    quotes: list[tuple[int, str, int | None]],
    start: int | None,
    tolerance: int | None,
) -> None:
    folder = tmp_path_factory.mktemp("lake")
    catalog = make_catalog(folder)
    given_trades = [trade(place, second, symbol=symbol) for place, (second, symbol) in enumerate(trades)]
    given_quotes = [
        quote(place, second, symbol=symbol, source_sequence=number, bid_quantity=Decimal(place))
        for place, (second, symbol, number) in enumerate(quotes)
    ]
    append_events(catalog, "trades", given_trades)
    for place in range(0, len(given_quotes), 3):
        append_events(catalog, "quotes", given_quotes[place : place + 3])
    found = Lake(str(folder)).asof(
        start=None if start is None else moment(start),
        tolerance=None if tolerance is None else timedelta(seconds=tolerance),
    )
    assert found.schema == AS_OF_SCHEMA
    selected = [row for row in each_once(given_trades) if start is None or row["timestamp"] >= DAY + start * SECOND]
    in_order = sorted(selected, key=lambda row: (row["timestamp"], row["source_sequence"]))
    # Copies are told among the quotes of the selection, and among those before it.
    since = DAY if start is None else DAY + start * SECOND
    parts = [[row for row in given_quotes if (row["timestamp"] >= since) is inside] for inside in (True, False)]
    wanted = [held(row, [*each_once(parts[0]), *each_once(parts[1])], tolerance) for row in in_order]
    assert found["bid_quantity"].to_pylist() == [None if row is None else row["bid_quantity"] for row in wanted]
    assert found["trade_id"].to_pylist() == [row["trade_id"] for row in in_order]


def test_spread_mid_and_times(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    append_events(catalog, "trades", [trade(0, 5, "100"), trade(1, 1)])
    append_events(catalog, "quotes", [quote(0, 3, **prices("99.5", "100.50000001")), quote(1, 6)])
    early, row = Lake(str(tmp_path)).asof("BTCUSDT").to_pylist()
    assert (row["spread"], row["mid"]) == (Decimal("1.00000001"), Decimal("100.000000005"))
    assert (row["quote_timestamp"], row["timestamp"], row["price"]) == (moment(3), moment(5), 100)
    assert [early[name] for name in ("quote_timestamp", "bid_price", "ask_quantity", "spread", "mid")] == [None] * 5
    with pytest.raises(UsageError, match="--tolerance"):
        Lake(str(tmp_path)).asof(tolerance=timedelta(seconds=-1))


def test_the_quote_before_the_selection_is_looked_for_in_as_few_files_as_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = make_catalog(tmp_path)
    append_events(catalog, "trades", [trade(0, 100), trade(1, 101, symbol="ETHUSDT"), trade(2, 102, symbol="X")])
    for second in range(40):
        append_events(catalog, "quotes", [quote(second, second, symbol=("BTCUSDT", "ETHUSDT")[second % 2])])
    read: list[int] = []
    original = nearest._nearest

    def watched(stored: StoredEvents, *rest: Any, **options: Any) -> Any:
        read.append(len(stored.local_files()))
        return original(stored, *rest, **options)

    monkeypatch.setattr(nearest, "_nearest", watched)
    lake = Lake(str(tmp_path))
    rows = lake.asof(["BTCUSDT", "ETHUSDT"], start=moment(50)).to_pylist()
    assert [row["quote_timestamp"] for row in rows] == [moment(38), moment(39)]
    assert read == [1, 2]
    assert [row["quote_timestamp"] for row in lake.asof("X", start=moment(50)).to_pylist()] == [None]
    late = lake.asof(start=moment(50), tolerance=timedelta(seconds=61.5)).to_pylist()
    assert [row["quote_timestamp"] for row in late] == [None, None, None]


def test_spreads(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    append_events(
        catalog,
        "quotes",
        [
            quote(0, 0, **prices("10", "10.1")),
            quote(1, 3, **prices("10", "10.2")),
            quote(2, 4, **prices("10", "9.9")),
            quote(3, 4.5, message_id="q-copy"),
            quote(4, 5, message_id="q-copy"),
            quote(9, 9, symbol="ETHUSDT", **prices("1", "4")),
        ],
    )
    found = list_spreads(catalog, "market_data", EventSelection())
    third = Decimal("0.3")
    assert found == [
        Spread(
            "BINANCE",
            "BTCUSDT",
            4,
            1,
            Decimal("-0.1"),
            third,
            Decimal("1.0"),
            Decimal("0.1"),
        ),
        Spread("BINANCE", "ETHUSDT", 1, 0, Decimal(3), Decimal(3), Decimal(3), None),
    ]
    assert list_spreads(catalog, "market_data", EventSelection(symbol="NONE")) == []
