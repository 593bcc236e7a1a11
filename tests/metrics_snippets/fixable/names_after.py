"""Misspelt metrics with one that is meant."""

from __future__ import annotations

from k2beam.metrics.handle import Metrics

_WRITTEN = "k2_rows_written_total"


def record(metrics: Metrics) -> None:
    metrics.increment(_WRITTEN, table="t")
    metrics.increment(_WRITTEN, 2, table="t")
    metrics.increment("k2_kafka_messages_produced_total", exchange="ASX", asset_class="a", topic="t")
    metrics.gauge("k2_freshness_seconds", 1.5, table="t")
    metrics.histogram("k2_write_duration_seconds", 1.5, table="t")
