"""Names that the registry lacks, and metrics of another type."""

from __future__ import annotations

from k2beam.metrics.handle import Metrics

SENT = "k2_sent_total"


def record(metrics: Metrics, late: bool) -> None:
    # expect: k2_sent_total: is not in k2beam.metrics.registry; add it there
    metrics.increment(SENT, table="t")
    # expect: k2_rows_writen_total: is not in k2beam.metrics.registry; add it there, did you mean k2_rows_written_total?
    metrics.increment("k2_rows_writen_total", table="t")
    # expect: k2_freshness_seconds: is a gauge, not a counter; call gauge
    metrics.increment("k2_freshness_seconds", table="t")
    # expect: k2_rows_written_total: is a counter, not a histogram; call increment
    metrics.histogram("k2_rows_written_total", 3, table="t")
    # expect: k2_rows_written_total: is a counter, not a gauge; call increment
    metrics.remove_gauge("k2_rows_written_total", table="t")
    # expect: k2_write_duration_seconds: is a histogram, not a gauge; call histogram
    metrics.gauge("k2_write_duration_seconds", 3, table="t")
    # expect: k2_sent_total: is not in k2beam.metrics.registry; add it there
    Metrics("writer").increment("k2_rows_written_total" if late else SENT, table="t")
