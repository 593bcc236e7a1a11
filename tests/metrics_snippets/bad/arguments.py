"""Calls that Python itself refuses when they are made."""

from __future__ import annotations

from k2beam.metrics.handle import Metrics

_BASE = {"table": "t"}
_VALUE = {"value": 2}
_MORE = {"table": "t", "reason": "r"}


def twice(metrics: Metrics, late: bool) -> None:
    # expect: k2_rows_written_total: label(s) table given twice, by name and by **
    metrics.increment("k2_rows_written_total", table="t", **_BASE)
    # expect: k2_commit_retries_total: label(s) table given twice, by name and by **
    metrics.increment("k2_commit_retries_total", **_BASE, **_MORE)
    # expect: k2_commit_retries_total: label(s) reason given twice, by name and by **
    metrics.increment("k2_commit_retries_total", reason="r", **({**_BASE, "reason": "x"} if late else _MORE))
    # expect: k2_rows_written_total: label(s) table given twice, by name and by **
    metrics.increment("k2_rows_written_total", **dict(_BASE, table="t", **_BASE))
    # expect: k2_rows_written_total: label(s) table given twice, by name and by **
    _count(metrics, table="u")
    # expect: k2_rows_written_total: the value is given twice
    metrics.increment("k2_rows_written_total", 1, value=2, table="t")
    # expect: k2_rows_written_total: the value is given twice
    metrics.increment("k2_rows_written_total", value=2, **_VALUE, **_BASE)


def _count(metrics: Metrics, **labels: str) -> None:
    metrics.increment("k2_rows_written_total", table="t", **labels)


def too_few(metrics: Metrics) -> None:
    # expect: k2_freshness_seconds: no value is given; gauge needs one
    metrics.gauge("k2_freshness_seconds", table="t")
    # expect: k2_write_duration_seconds: no value is given; histogram needs one
    metrics.histogram("k2_write_duration_seconds", table="t")
    # expect: increment: no metric is given; write its name as the first argument
    metrics.increment(name="k2_rows_written_total", table="t")
    # expect: gauge: no metric is given; write its name as the first argument
    metrics.gauge()


def too_many(metrics: Metrics, both: tuple[float, str]) -> None:
    # expect: k2_rows_written_total: 3 positional arguments; increment takes name and value only
    metrics.increment("k2_rows_written_total", 1, "t", table="t")
    # expect: k2_freshness_seconds: 2 positional arguments; remove_gauge takes the name only
    metrics.remove_gauge("k2_freshness_seconds", 1, table="t")
    # expect: k2_freshness_seconds: unknown label(s) value
    metrics.remove_gauge("k2_freshness_seconds", value=1, table="t")
    # expect: k2_freshness_seconds: cannot tell: how many arguments a * gives is decided when the program runs; ...
    metrics.gauge("k2_freshness_seconds", *both, table="t")
