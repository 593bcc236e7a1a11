"""What counting adds to a message on its way into Kafka: in the producer, and in the client of the feed.

No broker and no exchange take part. CPU time and the least of several rounds, as in :mod:`bench.metrics`. Of the
producer it is the dearest case: each poll reports one message, where a broker's acknowledgements come many at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from k2beam.feeds.binance.frames import BinanceFeed, parse_pairs
from k2beam.feeds.client import FeedClient
from k2beam.feeds.feed import Market
from k2beam.metrics.handle import Metrics, NullMetrics
from k2beam.produce.delivery import Delivery, DeliveryConfig
from k2beam.produce.spool import OutgoingMessage

MESSAGES = 20_000
ROUNDS = 5
TOPIC = "market.crypto.trades.binance"
VALUE = bytes(200)


def counting(scratch: Path) -> list[dict[str, Any]]:
    """CPU microseconds a message without metrics and with them, and the ratios; the least of five rounds in turns."""
    handles: dict[str, Callable[[], Metrics]] = {
        "without metrics": NullMetrics,
        "with metrics": lambda: Metrics("bench", registry=CollectorRegistry(), strict=True),
    }
    jobs: dict[str, Callable[[Metrics], float]] = {
        "producer's message": lambda metrics: _producing(metrics, scratch / "spool"),
        "feed's message": _feeding,
    }
    results = []
    for job, run in jobs.items():
        taken: dict[str, list[float]] = {name: [] for name in handles}
        for _ in range(ROUNDS):
            for name, handle in handles.items():
                taken[name].append(run(handle()))
        floor = min(taken["without metrics"])
        for name, seconds in taken.items():
            results.append(
                {
                    "what": f"{job} {name}",
                    "rows": MESSAGES,
                    "value": round(min(seconds) / MESSAGES * 1e6, 2),
                    "unit": "CPU us/message",
                    "ratio": round(min(seconds) / floor, 2),
                    "beside": "without metrics",
                }
            )
    return results


class _Acknowledging:
    """The client of a broker that has acknowledged each message by the next poll."""

    def __init__(self, _options: dict[str, Any], logger: Any = None) -> None:
        del logger
        self._reports: list[Callable[[None, None], None]] = []

    def __len__(self) -> int:
        return len(self._reports)

    def produce(self, _topic: str, *, on_delivery: Callable[[None, None], None], **_message: Any) -> None:
        self._reports.append(on_delivery)

    def poll(self, _timeout: float) -> int:
        reports, self._reports = self._reports, []
        for report in reports:
            report(None, None)
        return len(reports)

    def flush(self, timeout: float) -> int:
        self.poll(timeout)
        return 0


class _Nowhere:
    """A sink that keeps nothing."""

    def produce_trade(self, record: Any) -> None: ...
    def produce_quote(self, record: Any) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...
    def stats(self) -> None: ...


def _producing(metrics: Metrics, spool: Path) -> float:
    """CPU seconds in which all messages are handed over, acknowledged and counted."""
    delivery = Delivery(
        DeliveryConfig("nowhere", spool=spool), metrics, {TOPIC: ("BINANCE", "crypto")}, client=_Acknowledging
    )
    started = time.process_time()
    for _ in range(MESSAGES):
        delivery.send(OutgoingMessage(TOPIC, b"BINANCE|BTCUSDT", VALUE))
    taken = time.process_time() - started
    delivery.close()
    if delivery.delivered != MESSAGES:
        raise SystemExit(f"{delivery.delivered:,} of {MESSAGES:,} messages were acknowledged: the benchmark is wrong")
    return taken


def _feeding(metrics: Metrics) -> float:
    """CPU seconds in which a queue of trades and quotes is counted and given to a sink that does nothing.

    What :meth:`FeedClient.run` does beside it (the connection, decoding) is left out, so this is the client's own part.
    """
    subscription = BinanceFeed(parse_pairs("btcusdt"))
    markets = [Market("trades", "btcusdt@trade", {}), Market("quotes", "btcusdt@bookTicker", {})]

    async def run() -> float:
        client = FeedClient(subscription, _Nowhere(), metrics=metrics)
        for number in range(MESSAGES):
            client._queue.put_nowait(markets[number % 2])
        client._queue.put_nowait(None)
        started = time.process_time()
        await client._deliver()
        return time.process_time() - started

    return asyncio.run(run())
