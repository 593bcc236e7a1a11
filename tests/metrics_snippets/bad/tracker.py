"""Two mistakes that were made in earnest elsewhere."""

from __future__ import annotations

from k2beam.metrics.handle import Metrics


def produce_error_with_a_data_type(metrics: Metrics) -> None:
    # expect: k2_kafka_produce_errors_total: unknown label(s) data_type
    metrics.increment(
        "k2_kafka_produce_errors_total",
        exchange="ASX",
        asset_class="equities",
        data_type="trades",
        topic="market.equities.trades.asx",
        error_type="timeout",
    )


def transaction_with_extra_labels(metrics: Metrics) -> None:
    labels = {"exchange": "ASX", "asset_class": "equities"}
    # expect: k2_iceberg_transactions_total: unknown label(s) exchange, asset_class
    metrics.increment("k2_iceberg_transactions_total", table="trades_v2", **labels)
