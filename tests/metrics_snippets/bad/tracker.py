"""Two mistakes that were made in earnest elsewhere."""

from __future__ import annotations

from k2beam.metrics.handle import Metrics


def produce_error_with_a_data_type(metrics: Metrics) -> None:
    metrics.increment(
        "k2_kafka_produce_errors_total",
        exchange="ASX",
        asset_class="equities",
        data_type="trades",
        topic="market.equities.trades.asx",
        error_type="timeout",
    )


def transaction_with_extra_labels(metrics: Metrics) -> None:
    metrics.increment("k2_iceberg_transactions_total", exchange="ASX", asset_class="equities", table="trades_v2")
