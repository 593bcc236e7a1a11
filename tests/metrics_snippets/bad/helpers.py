"""A helper's callers are told what they got wrong, each in its own line."""

from __future__ import annotations

from collections.abc import Callable

from k2beam.metrics.handle import Metrics


class Feed:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def lost(self) -> None:
        self._count("k2_feed_reconnects_total", reason="closed")
        # expect: k2_feed_reconnects_total: missing label(s) reason, unknown label(s) kind
        self._count("k2_feed_reconnects_total", kind="closed")

    def _count(self, name: str, **labels: str) -> None:
        self._metrics.increment(name, exchange="BINANCE", **labels)


class Known:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def give(self, take: Callable[[Callable[[str], None]], None]) -> None:
        take(self._handed_on)
        self._unused("k2_rows_written_total")

    def _handed_on(self, name: str) -> None:
        # expect: increment: cannot tell: self._handed_on is handed on in line 28, so its callers are not known; ...
        self._metrics.increment(name, table="t")

    def _unused(self, *names: str) -> None:
        # expect: increment: cannot tell: names is given by a * argument; ...
        self._metrics.increment(names, table="t")  # type: ignore[arg-type]
