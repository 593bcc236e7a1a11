"""Labels that are missing, unknown, misspelt, or those of the handle."""

# ruff: noqa: PIE804 - the lint has to follow it
from __future__ import annotations

from k2beam.metrics.handle import Metrics

BASE = {"table": "t"}


class Reader:
    LABELS = {"error_class": "truncated"}

    def __init__(self) -> None:
        self.counts = Metrics("reader")

    def read(self) -> None:
        # expect: k2_dead_letters_total: missing label(s) stage
        self.counts.increment("k2_dead_letters_total", **self.LABELS)


def record(metrics: Metrics, late: bool) -> None:
    # expect: k2_rows_written_total: missing label(s) table
    metrics.increment("k2_rows_written_total")
    # expect: k2_rows_written_total: unknown label(s) symbol
    metrics.increment("k2_rows_written_total", **BASE, symbol="s")
    # expect: k2_rows_written_total: missing label(s) table, unknown label(s) tabel, did you mean table?
    metrics.increment("k2_rows_written_total", 5, tabel="t")
    # expect: k2_rows_written_total: standard label(s) component, which the handle adds
    metrics.increment("k2_rows_written_total", table="t", component="c")
    # expect: k2_commit_retries_total: missing label(s) reason, unknown label(s) cause
    metrics.increment("k2_commit_retries_total", **{**BASE, "cause": "c"})
    # expect: k2_commit_retries_total: missing label(s) reason
    metrics.increment("k2_commit_retries_total", **({"table": "t"} if late else {"table": "t", "reason": "r"}))
    # expect: k2_metric_errors_total: missing label(s) metric, problem
    metrics.increment("k2_metric_errors_total", **{})
