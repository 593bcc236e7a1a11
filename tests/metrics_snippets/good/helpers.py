"""A private helper passes on what its callers write."""

# ruff: noqa: PIE804 - the lint has to follow it
from __future__ import annotations

from k2beam.metrics.handle import Metrics

RECONNECTS = "k2_feed_reconnects_total"


class Feed:
    def __init__(self) -> None:
        self._metrics = Metrics("feed")

    def lost(self, reason: str) -> None:
        self._count(RECONNECTS, reason=reason)
        self._count("k2_feed_messages_total", kind="trades")
        self._count(name="k2_feed_duplicates_total", **{"kind": "trades"})

    def _count(self, name: str, **labels: str) -> None:
        self._count_all(1, name, {**labels})

    def _count_all(self, value: float, name: str, labels: dict[str, str]) -> None:
        self._metrics.increment(name, value, exchange="BINANCE", **labels)


class Sink:
    """Has a helper of the same name, with another meaning."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def sent(self) -> None:
        self._count("topic", None)

    def _count(self, topic: str, error: str | None) -> None:
        name = "k2_rows_written_total" if error is None else "k2_data_files_written_total"
        self._metrics.increment(name, table=topic)


def _observe(metrics: Metrics, seconds: float, name: str = "k2_write_duration_seconds") -> None:
    metrics.histogram(name, seconds, table="trades_v2")


def write(metrics: Metrics) -> None:
    _observe(metrics, 1.0)
    _observe(metrics, 1.0, "k2_commit_duration_seconds")
