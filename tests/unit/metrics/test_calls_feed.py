"""What the feed's client counts, driven by a websocket server of this process."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from k2beam.feeds.binance.frames import BinanceFeed, parse_pairs
from k2beam.feeds.client import FeedClient, Limits
from k2beam.metrics.handle import Metrics
from tests.integration.binance_exchange import plays, quote, trade
from tests.integration.feed_servers import DEADLINE, Exchange, Recorder
from tests.metrics_recorder import Samples


def counted(exchange: Exchange, messages: int, **limits: float) -> dict[str, float]:
    """The samples that a client changes until it has taken some messages."""
    registry = CollectorRegistry()
    samples = Samples("feed", registry)

    async def run() -> None:
        async with exchange:
            subscription = BinanceFeed(parse_pairs("btcusdt"), bases=(exchange.address,))
            chosen = Limits(**{"backoff": 0.01, "close_timeout": 0.1, "request_pause": 0.01, **limits})  # type: ignore[arg-type]
            client = FeedClient(
                subscription, Recorder(), chosen, metrics=Metrics("feed", registry=registry, strict=True)
            )
            async with asyncio.timeout(DEADLINE):
                await client.run(asyncio.Event(), messages)

    asyncio.run(run())
    return samples.changed()


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is not for the local server."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_messages_repeats_bad_frames_and_lost_connections_are_counted() -> None:
    dropping = plays(trade(1), "no json", trade(2), quote(7), then="drop")
    assert counted(Exchange(dropping, plays(trade(2), quote(7), "{}", trade(3))), messages=4) == {
        "k2_feed_messages_total{exchange=BINANCE,kind=trades}": 3,
        "k2_feed_messages_total{exchange=BINANCE,kind=quotes}": 1,
        "k2_feed_duplicates_total{exchange=BINANCE,kind=trades}": 1,
        "k2_feed_duplicates_total{exchange=BINANCE,kind=quotes}": 1,
        "k2_feed_bad_frames_total{exchange=BINANCE,reason=json}": 1,
        "k2_feed_bad_frames_total{exchange=BINANCE,reason=shape}": 1,
        "k2_feed_reconnects_total{exchange=BINANCE,reason=closed}": 1,
    }


def test_a_planned_hand_over_is_counted() -> None:
    """The third connection is made after the first was replaced, and gives the message that ends the run."""
    exchange = Exchange(plays(trade(1)), plays(), plays(trade(2)))
    changed = counted(exchange, messages=2, lifetime=0.05, overlap=0.05)
    assert changed["k2_feed_reconnects_total{exchange=BINANCE,reason=planned}"] >= 1
    assert changed["k2_feed_messages_total{exchange=BINANCE,kind=trades}"] == 2
