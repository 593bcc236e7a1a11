"""Old trades of Binance: as records, page by page, and what a server may answer instead."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from k2beam.errors import FeedError, UsageError
from k2beam.feeds.binance.frames import Pair, parse_frame
from k2beam.feeds.binance.history import HISTORY_TRIES, TradeHistory
from tests.binance_history import History, history_server

PAIR = Pair("BTC", "USDT")
BEGIN = 1_767_571_200_000_000


def moment(_symbol: str, number: int) -> int:
    return BEGIN + number * 1_000 + 7


@pytest.fixture
def history() -> History:
    return History({"BTCUSDT": (500, 4_000)}, moment)


@pytest.fixture
def url(history: History) -> Iterator[str]:
    with history_server(history) as address:
        yield address


class Clock:
    """Time that passes while one sleeps."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def client(url: str, clock: Clock | None = None, **options: str) -> TradeHistory:
    clock = clock or Clock()
    return TradeHistory(url, sleep=clock.sleep, clock=clock, **options)


def test_a_trade_is_the_record_that_its_frame_would_be(url: str) -> None:
    record = client(url).page(PAIR, 700)[0]
    frame = (
        '{"e":"trade","E":1767571200700008,"s":"BTCUSDT","t":700,"p":"100.25","q":"12.5","T":1767571200700007,"m":true}'
    )
    live = parse_frame(frame, {"BTCUSDT": PAIR}, BEGIN).record  # type: ignore[union-attr]
    assert record["timestamp"] == datetime.fromtimestamp(BEGIN / 1e6, UTC).replace(microsecond=700_007)
    assert (record["price"], record["quantity"]) == (Decimal("100.25"), Decimal("12.5"))
    assert (record["side"], record["source_sequence"], record["currency"]) == ("SELL", 700, "USDT")
    assert uuid.UUID(record["message_id"])
    assert record["vendor_data"] == {"filled_from": "historicalTrades"}
    differing = {"vendor_data", "ingestion_timestamp"}
    assert {k: v for k, v in record.items() if k not in differing} == {
        k: v for k, v in live.items() if k not in differing
    }


def test_a_page_has_a_thousand_trades_from_the_id_on(url: str, history: History) -> None:
    numbers = [record["source_sequence"] for record in client(url).page(PAIR, 700)]
    assert numbers == list(range(700, 1_700))
    assert [record["source_sequence"] for record in client(url).page(PAIR, 3_990)] == list(range(3_990, 4_001))
    assert client(url).page(PAIR, 4_001) == []
    assert history.keys == {None}


def test_a_key_is_shown_where_there_is_one(url: str, history: History) -> None:
    client(url, api_key="k").page(PAIR, 700)
    assert history.keys == {"k"}


def test_requests_are_no_faster_than_their_weight_allows(url: str) -> None:
    clock = Clock()
    asking = client(url, clock)
    for _ in range(5):
        asking.page(PAIR, 700)
    assert asking.asked == 5
    assert clock.now == pytest.approx(4 * 60 * 25 / 6_000), "6,000 a minute, and a request is 25"


@pytest.mark.parametrize("trouble", [429, 500, 503, 0], ids=str)
def test_what_passes_is_waited_for(url: str, history: History, trouble: int) -> None:
    history.troubles = [trouble, trouble]
    clock = Clock()
    assert len(client(url, clock).page(PAIR, 700)) == 1_000
    assert clock.now >= 1
    if trouble == 429:
        assert clock.slept.count(7.0) == 2, "as Retry-After says"


def test_a_server_that_stays_away_is_told(url: str, history: History) -> None:
    history.troubles = [503] * HISTORY_TRIES
    with pytest.raises(FeedError, match=f"does not answer, after {HISTORY_TRIES} tries; the last: 503"):
        client(url).page(PAIR, 700)


@pytest.mark.parametrize(
    ("status", "told"),
    [(418, "has banned this address for 7 seconds"), (403, r"refuses the trades of BTCUSDT \(403, code")],
)
def test_a_refusal_is_not_asked_again(url: str, history: History, status: int, told: str) -> None:
    history.troubles = [status]
    asking = client(url)
    with pytest.raises(FeedError, match=told):
        asking.page(PAIR, 700)
    assert asking.asked == 1


def test_a_symbol_that_there_is_not_is_named(url: str) -> None:
    with pytest.raises(FeedError, match=r"refuses the trades of NOUSDT \(400, code -1121: Invalid symbol"):
        client(url).page(Pair("NO", "USDT"), 1)


@pytest.mark.parametrize("bad", [{"price": 1.5}, {"isBuyerMaker": "yes"}, {"id": -1}, {"time": 10**18}], ids=str)
def test_a_trade_that_can_t_be_read_ends_it(
    url: str, history: History, bad: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = history.trade
    monkeypatch.setattr(history, "trade", lambda *what: {**made(*what), **bad})
    with pytest.raises(FeedError, match="gives trades of BTCUSDT that can't be read"):
        client(url).page(PAIR, 700)


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x/path", "x", "http://x?y=1"])
def test_what_is_no_base_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is not a base address such as https://data-api"):
        TradeHistory(url)
