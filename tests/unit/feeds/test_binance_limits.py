"""How often a feed is tried, and for how long: no server is reached here."""

from __future__ import annotations

import asyncio
import random

import pytest

from k2beam.errors import FeedError, UsageError
from k2beam.feeds.binance.frames import BinanceFeed, parse_pairs
from k2beam.feeds.client import FeedClient, Limits, backoff

PAIRS = parse_pairs("btcusdt")


class Nothing:
    """A sink that gets nothing."""

    def produce_trade(self, record: object) -> None:
        raise AssertionError(record)

    produce_quote = produce_trade

    def flush(self) -> None:
        pass

    close = stats = flush


def test_attempts_are_spaced_by_the_backoff_and_limited() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    limits = Limits(backoff=1.0, backoff_limit=8.0, attempts=7)
    client = FeedClient(
        BinanceFeed(PAIRS, bases=("ws://127.0.0.1:1",)), Nothing(), limits, chance=random.Random(3), sleep=sleep
    )
    with pytest.raises(FeedError, match="gave up after 7 failures in a row"):
        asyncio.run(client.run(asyncio.Event()))
    chance = random.Random(3)
    assert waits == [backoff(number, limits, chance) for number in range(1, 7)]
    assert all(longest / 2 <= wait <= longest for wait, longest in zip(waits, [1, 2, 4, 8, 8, 8], strict=True))
    assert len(set(waits)) == 6
    assert backoff(10_000, limits, chance) <= 8.0


def test_times_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="overlap"):
        Limits(overlap=60.0, remember=60.0)
