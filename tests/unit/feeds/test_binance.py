"""Binance's frames as v2 records; the frames have the form that Binance documents."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.errors import BadFrame, UsageError
from k2beam.feeds.binance import frames as binance
from k2beam.feeds.binance.frames import BinanceFeed, Pair, parse_frame, parse_pairs
from k2beam.feeds.feed import FeedMessage, Market, Reply, Shutdown
from tests.unit.feeds.checks import round_trip

PAIRS = {pair.symbol: pair for pair in parse_pairs("btcusdt,bnbbtc,bnbusdt")}
RECEIVED = 1_672_515_782_200_123
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TRADE: dict[str, Any] = {
    "e": "trade",
    "E": 1672515782136,
    "s": "BNBBTC",
    "t": 12345,
    "p": "0.00100000",
    "q": "100.00000000",
    "T": 1672515782130,
    "m": True,
    "M": True,
}
QUOTE: dict[str, Any] = {
    "u": 400900217,
    "s": "BNBUSDT",
    "b": "25.35190000",
    "B": "31.21000000",
    "a": "25.36520000",
    "A": "40.66000000",
}


def read(payload: object, received_at: int = RECEIVED) -> FeedMessage:
    return parse_frame(json.dumps(payload), PAIRS, received_at)


def market(payload: object, received_at: int = RECEIVED) -> Market:
    found = read(payload, received_at)
    assert isinstance(found, Market)
    return found


def test_a_trade_becomes_a_trade_v2() -> None:
    found = market(TRADE)

    assert (found.kind, found.stream) == ("trades", "bnbbtc@trade")
    assert round_trip(found) == found.record
    assert {name: value for name, value in found.record.items() if name != "message_id"} == {
        "trade_id": "12345",
        "symbol": "BNBBTC",
        "exchange": "BINANCE",
        "asset_class": "crypto",
        "currency": "BTC",
        "timestamp": datetime(2022, 12, 31, 19, 43, 2, 130_000, tzinfo=UTC),
        "price": Decimal("0.00100000"),
        "quantity": Decimal("100.00000000"),
        "side": "SELL",
        "trade_conditions": [],
        "source_sequence": 12345,
        "ingestion_timestamp": EPOCH + timedelta(microseconds=RECEIVED),
        "platform_sequence": None,
        "vendor_data": {"event_time": "1672515782136000"},
    }


def test_a_book_ticker_becomes_a_quote_v2_without_a_sequence() -> None:
    found = market(QUOTE)

    received = EPOCH + timedelta(microseconds=RECEIVED)
    assert (found.kind, found.stream) == ("quotes", "bnbusdt@bookTicker")
    assert round_trip(found) == found.record
    assert found.record["source_sequence"] is None
    assert found.record["vendor_data"] == {"update_id": "400900217", "timestamp_is": "received"}
    assert (found.record["quote_id"], found.record["currency"]) == ("400900217", "USDT")
    assert (found.record["timestamp"], found.record["ingestion_timestamp"]) == (received, received)
    assert [found.record[name] for name in ("bid_price", "bid_quantity", "ask_price", "ask_quantity")] == [
        Decimal("25.3519"),
        Decimal("31.21"),
        Decimal("25.3652"),
        Decimal("40.66"),
    ]


def test_the_side_is_that_of_the_aggressor() -> None:
    assert [market({**TRADE, "m": maker}).record["side"] for maker in (True, False)] == ["SELL", "BUY"]


@pytest.mark.parametrize("payload", [TRADE, QUOTE])
def test_a_combined_frame_says_the_same_as_a_raw_one(payload: dict[str, Any]) -> None:
    assert read({"stream": "any@stream", "data": payload}) == read(payload)


def test_times_are_milliseconds_or_microseconds() -> None:
    precise = market({**TRADE, "T": 1672515782130456, "E": 1672515782136789}).record
    assert precise["timestamp"] == datetime(2022, 12, 31, 19, 43, 2, 130_456, tzinfo=UTC)
    assert precise["vendor_data"] == {"event_time": "1672515782136789"}


def test_older_trades_keep_their_order_ids() -> None:
    vendor = market({**TRADE, "b": 88, "a": 50}).record["vendor_data"]
    assert (vendor["buyer_order_id"], vendor["seller_order_id"]) == ("88", "50")


def test_the_message_id_is_that_of_the_event() -> None:
    """However it is received; and another event has another."""
    events: list[dict[str, Any]] = [
        TRADE,
        {**TRADE, "t": 12346},
        {**TRADE, "s": "BTCUSDT"},
        QUOTE,
        {**QUOTE, "u": 1},
        {**QUOTE, "A": "41"},
    ]
    first = [market(event).message_id for event in events]
    again = [market({"stream": "x", "data": event}, RECEIVED + 5_000_000).message_id for event in events]
    assert first == again
    assert len(set(first)) == len(events)


def test_numbers_of_many_digits_are_kept_whole() -> None:
    found = parse_frame(json.dumps({**TRADE, "p": "0.000012345", "q": "18500000000.00000000"}), PAIRS, RECEIVED)
    assert isinstance(found, Market)
    assert (found.record["price"], found.record["quantity"]) == (Decimal("0.000012345"), Decimal(18_500_000_000))


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("", "json"),
        ("garbage", "json"),
        ("[1]", "json"),
        ("null", "json"),
        ('{"t": NaN}', "json"),
        ("[" * 100_000, "json"),
        ('{"t": ' + "9" * 5_000 + "}", "json"),
        (b"\xff\xfe\x00\x01", "json"),
        ("{}", "shape"),
        ('{"stream": "x", "data": []}', "shape"),
        ('{"e": "aggTrade", "s": "BTCUSDT"}', "shape"),
        ('{"e": null, "u": 1, "s": "BTCUSDT", "b": "1", "a": "1"}', "shape"),
        (json.dumps({**TRADE, "s": "DOGEUSDT"}), "symbol"),
        (json.dumps({**TRADE, "s": ["BTCUSDT"]}), "symbol"),
        (json.dumps({**TRADE, "t": "12345"}), "value"),
        (json.dumps({**TRADE, "t": True}), "value"),
        (json.dumps({**TRADE, "t": -1}), "value"),
        (json.dumps({**TRADE, "t": 2**63}), "value"),
        (json.dumps({**TRADE, "p": 0.001}), "value"),
        (json.dumps({**TRADE, "p": "NaN"}), "value"),
        (json.dumps({**TRADE, "p": "-1"}), "value"),
        (json.dumps({**TRADE, "p": "\u0661"}), "value"),
        (json.dumps({**TRADE, "p": "1\n"}), "value"),
        (json.dumps({**TRADE, "p": "0.0000000000000000001"}), "value"),
        (json.dumps({**TRADE, "q": "100000000000000000000"}), "value"),
        (json.dumps({**TRADE, "m": 1}), "value"),
        (json.dumps({**TRADE, "T": 2**62}), "value"),
        (json.dumps({**TRADE, "T": RECEIVED + 24 * 3600 * 1_000_000 + 1}), "value"),
        (json.dumps({name: value for name, value in TRADE.items() if name != "E"}), "value"),
        (json.dumps({name: value for name, value in QUOTE.items() if name != "B"}), "value"),
    ],
)
def test_a_bad_frame_has_a_reason_and_is_shown_in_part(frame: str | bytes, reason: str) -> None:
    with pytest.raises(BadFrame) as raised:
        parse_frame(frame, PAIRS, RECEIVED)
    assert raised.value.reason == reason
    assert repr(frame[:20])[:-1] in str(raised.value)
    assert len(str(raised.value)) < 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["BTCUSDT", "1.5"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from([*TRADE, *QUOTE, "stream", "data", "result", "id", "error", "code", "msg"])


@settings(max_examples=150)
@given(st.sampled_from([TRADE, QUOTE]), st.dictionaries(fields, json_values, max_size=3), st.sets(fields, max_size=2))
def test_a_spoilt_frame_is_refused_or_a_valid_record(
    payload: dict[str, Any], changed: dict[str, Any], dropped: set[str]
) -> None:
    spoilt = {name: value for name, value in {**payload, **changed}.items() if name not in dropped}
    try:
        found = read(spoilt)
    except BadFrame:
        return
    if isinstance(found, Market):
        round_trip(found)


@settings(max_examples=100)
@given(st.binary(max_size=60) | st.text(max_size=60))
def test_noise_is_refused(noise: bytes | str) -> None:
    with pytest.raises(BadFrame):
        parse_frame(noise, PAIRS, RECEIVED)


@settings(max_examples=100)
@given(st.decimals(min_value=0, max_value="9999999999.99999999", places=8))
def test_every_number_of_the_column_is_kept(value: Decimal) -> None:
    assert market({**TRADE, "p": format(value, "f")}).record["price"] == value


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"result": None, "id": 1}, Reply(1, None)),
        ({"result": ["btcusdt@trade"], "id": 3}, Reply(3, "result ['btcusdt@trade']")),
        ({"code": 2, "msg": "too many parameters"}, Reply(None, "code 2: too many parameters")),
        ({"error": {"code": 2, "msg": "unknown variant"}, "id": 7}, Reply(7, "code 2: unknown variant")),
        ({"error": "gone", "id": "x"}, Reply(None, "gone")),
        ({"e": "serverShutdown", "E": 1770123456789}, Shutdown()),
        ({"stream": "x", "data": {"e": "serverShutdown", "E": 1770123456789}}, Shutdown()),
    ],
)
def test_replies_and_the_notice_of_a_shutdown(payload: dict[str, Any], expected: FeedMessage) -> None:
    assert read(payload) == expected


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("btcusdt, ETHUSDT,btcusdt", [("BTC", "USDT"), ("ETH", "USDT")]),
        ("ethbtc,btcbidr", [("ETH", "BTC"), ("BTC", "BIDR")]),
        ("btcfdusd,btctusd", [("BTC", "FDUSD"), ("BTC", "TUSD")]),
        ("adaeur,btceuri", [("ADA", "EUR"), ("BTC", "EURI")]),
        ("1000satstry", [("1000SATS", "TRY")]),
        ("dot/usd,sol/u", [("DOT", "USD"), ("SOL", "U")]),
        ("btcusdt,btc/usdt", [("BTC", "USDT")]),
    ],
)
def test_symbols_have_the_longest_known_quote_asset(text: str, pairs: list[tuple[str, str]]) -> None:
    assert [(pair.base, pair.quote) for pair in parse_pairs(text)] == pairs


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "usdt",
        "btcxyz",
        "btc-usdt",
        "btc/usdt/x",
        "btc/",
        "/usdt",
        "ltc btc",
        "\uff42tcusdt",
        "btcusdt,b/tcusdt",
    ],
)
def test_what_is_no_symbol_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--symbols"):
        parse_pairs(text)


def test_streams_are_named_and_limited() -> None:
    pairs = parse_pairs("btcusdt,ethusdt")
    assert binance.parse_streams("bookTicker, trade,trade") == ("bookTicker", "trade")
    assert BinanceFeed(pairs, ("trade", "bookTicker")).streams == (
        "btcusdt@trade",
        "btcusdt@bookTicker",
        "ethusdt@trade",
        "ethusdt@bookTicker",
    )
    many = tuple(Pair(f"C{number}", "USDT") for number in range(513))
    assert len(BinanceFeed(many[:512]).streams) == binance.MAX_STREAMS
    with pytest.raises(UsageError, match="1026 streams"):
        BinanceFeed(many)
    for wrong in ("", "aggTrade", "trade,depth", "bookticker"):
        with pytest.raises(UsageError, match="--streams"):
            binance.parse_streams(wrong)


@pytest.mark.parametrize(
    "url",
    ["https://x", "wss://", "stream.binance.com", "wss://x/ws", "ws://x?a=1", "ws://x:70000", "ws://[x", "ws://x#y"],
)
def test_an_address_without_a_path_is_wanted(url: str) -> None:
    with pytest.raises(UsageError, match="--url"):
        BinanceFeed(parse_pairs("btcusdt"), bases=(url,))
    with pytest.raises(UsageError, match="no address"):
        BinanceFeed(parse_pairs("btcusdt"), bases=())


def test_a_request_is_one_of_binance() -> None:
    request = json.loads(binance.subscribe_request(["btcusdt@trade"], 4))
    assert request == {"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 4}
