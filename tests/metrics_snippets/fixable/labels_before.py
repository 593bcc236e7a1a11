"""Labels with one way to mend them."""

# ruff: noqa: PIE800, PIE804 - the lint has to follow them
from __future__ import annotations

from k2beam.metrics.handle import Metrics


class Writer:
    def __init__(self) -> None:
        self._metrics = Metrics("writer")

    def misspelt(self) -> None:
        self._count("k2_feed_reconnects_total", reasn="closed")
        self._metrics.increment("k2_rows_written_total", 3, tabel="trädes")  # stays as it is

    def _count(self, name: str, **labels: str) -> None:
        self._metrics.increment(name, exchange="BINANCE", **labels)


def extra(metrics: Metrics, rows: int) -> None:
    metrics.increment(
        "k2_kafka_produce_errors_total",
        exchange="ASX",
        asset_class="equities",
        data_type="trades",
        topic="market.equities.trades.asx",  # the topic stays
        error_type="timeout",
    )
    metrics.increment("k2_rows_written_total", rows, symbol=str(rows), table="t")
    metrics.increment("k2_rows_written_total", rows, table="t", symbol="s")
    metrics.increment("k2_rows_written_total", rows, table="t", component="c", service="s", environment="e")
    labels = {"table": "t", "service": "s"}
    metrics.increment("k2_rows_written_total", **labels)
    metrics.increment("k2_iceberg_transactions_total", **{"tabel": "t", "symbol": ("s")})
    metrics.increment("k2_commit_retries_total", **{**{"table": "t", "symbol": "s"}, "reson": "r"})
