"""Labels in mappings: merged, chosen, inline."""

from __future__ import annotations

from k2beam.metrics.handle import Metrics


def merged(metrics: Metrics, table: str) -> None:
    base = {"table": table}
    whole = {**base, "reason": "conflict"}
    metrics.increment("k2_commit_retries_total", **whole)
    metrics.increment("k2_commit_retries_total", 1, **base, reason="timeout")
    metrics.increment("k2_commit_retries_total", value=2, **{**base, "reason": "timeout"})
    metrics.increment("k2_commit_retries_total", **(base | {"reason": "timeout"}))
    metrics.increment("k2_commit_retries_total", **dict(base, reason="timeout"))
    print(base["table"], "table" in base, f"{base}", base.items())


def chosen(metrics: Metrics, table: str, late: bool) -> None:
    labels = {"table": table} if late else {"table": "none"}
    metrics.histogram("k2_commit_duration_seconds" if late else "k2_write_duration_seconds", 0.5, **labels)
    if late:
        name = "k2_rows_written_total"
    elif table:
        name = "k2_data_files_written_total"
    else:
        name = "k2_data_bytes_written_total"
    metrics.increment(name, table=table)
    for each in ("k2_rows_written_total", "k2_data_bytes_written_total"):
        metrics.increment(each, 1, **labels)
    first, second = "k2_freshness_seconds", {"table": table}
    metrics.gauge(first, 1.5, **second)
    metrics.remove_gauge(first, **second)
