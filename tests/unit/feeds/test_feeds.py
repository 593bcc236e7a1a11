"""What holds of every feed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.errors import BadFrame
from k2beam.feeds.binance.frames import BinanceFeed, parse_pairs
from k2beam.feeds.coinbase import CoinbaseFeed
from k2beam.feeds.feed import Feed, Market
from k2beam.feeds.fields import parse_instruments
from k2beam.feeds.kraken import KrakenFeed
from tests.unit.feeds import test_binance, test_coinbase, test_kraken
from tests.unit.feeds.checks import RECEIVED, known_rules, round_trip

FEEDS: dict[str, Feed] = {
    "binance": BinanceFeed(parse_pairs("bnbbtc,bnbusdt")),
    "coinbase": CoinbaseFeed(parse_instruments("btc-usd,eth-eur", "-")),
    "kraken": KrakenFeed(parse_instruments("matic/usd,algo/usd", "/")),
}
EVENTS: dict[str, list[dict[str, Any]]] = {
    "binance": [test_binance.TRADE, test_binance.QUOTE],
    "coinbase": [test_coinbase.MATCH, test_coinbase.TICKER],
    "kraken": [
        {"channel": "trade", "data": [json.loads(test_kraken.TRADE)]},
        {"channel": "ticker", "data": [json.loads(test_kraken.TICKER)]},
    ],
}
names = pytest.mark.parametrize("name", FEEDS)


def markets(name: str) -> list[Market]:
    found = [FEEDS[name].read(json.dumps(event), RECEIVED)[0] for event in EVENTS[name]]
    return [one for one in found if isinstance(one, Market)]


@names
def test_its_records_name_it_and_are_of_its_streams(name: str) -> None:
    feed = FEEDS[name]
    found = markets(name)
    assert [one.kind for one in found] == list(feed.kinds) == ["trades", "quotes"]
    for one in found:
        assert (one.record["exchange"], one.record["asset_class"]) == (feed.exchange, feed.asset_class)
        assert one.stream in feed.streams
        assert round_trip(one) == one.record
        assert (one.record["source_sequence"] is not None) == (one.kind in feed.numbered)


@names
def test_every_stream_is_asked_for_once(name: str) -> None:
    asked = [stream for request in FEEDS[name].requests for stream in request.streams]
    assert len(asked) == len(set(asked))
    assert set(FEEDS[name].streams) <= set(asked)
    assert all(json.loads(request.text) for request in FEEDS[name].requests)


@names
def test_how_its_numbers_count_is_known(name: str) -> None:
    known, feed = known_rules(), FEEDS[name]
    for kind in feed.numbered:
        assert feed.exchange in {rule.exchange for rule in known.of_kind(kind).rules}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["BTC-USD", "1.5"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@names
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_spoilt_frame_is_refused_or_gives_valid_records(name: str, data: st.DataObject) -> None:
    event = data.draw(st.sampled_from(EVENTS[name]))
    inner = event["data"][0] if "data" in event else event
    fields = st.sampled_from([*inner, "method", "type", "channel", "result", "success"])
    changed = {**inner, **data.draw(st.dictionaries(fields, values, max_size=3))}
    spoilt = {**event, "data": [changed, inner]} if "data" in event else changed
    if data.draw(st.booleans()):
        spoilt = {**spoilt, data.draw(st.sampled_from(["channel", "method", "type", "data"])): data.draw(values)}
    try:
        found = FEEDS[name].read(json.dumps(spoilt), RECEIVED)
    except BadFrame:
        return
    for one in found:
        if isinstance(one, Market):
            round_trip(one)


@names
@settings(max_examples=100, deadline=None)
@given(noise=st.binary(max_size=60) | st.text(max_size=60))
def test_noise_is_refused(name: str, noise: bytes | str) -> None:
    with pytest.raises(BadFrame):
        FEEDS[name].read(noise, RECEIVED)
