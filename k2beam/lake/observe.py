"""What is counted and logged of a commit, whoever makes it: a job's worker, or what mends the ledger after a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from k2beam.logs import commit_logged, get_logger
from k2beam.metrics.config import MetricsConfig
from k2beam.metrics.handle import Metrics
from k2beam.model import CommitReceipt

_COMPONENT = "commit"


@contextmanager
def failures_counted(metrics: Metrics, table: str, stage: str) -> Iterator[None]:
    """Count an error that leaves the block in ``k2_write_failures_total``; it goes on to the caller.

    ``stage`` is ``write`` (of a data file) or ``commit``.
    """
    try:
        yield
    except Exception:
        metrics.increment("k2_write_failures_total", table=table, stage=stage)
        raise


class CommitObserver:
    """Counts commits, and logs a line for each."""

    def __init__(self, metrics: MetricsConfig) -> None:
        self._metrics = metrics.open(_COMPONENT)
        self._log = get_logger(_COMPONENT)

    def failures_counted(self, table: str) -> AbstractContextManager[None]:
        """Around a commit with all of its tries: count it where it is given up."""
        return failures_counted(self._metrics, table, "commit")

    def retried(self, table: str, reason: str) -> None:
        """A try failed for ``reason`` (conflict or unknown), and another follows."""
        self._metrics.increment("k2_commit_retries_total", table=table, reason=reason)
        self._log.warning("commit retried", table=table, reason=reason)

    def committed(self, receipt: CommitReceipt) -> None:
        """The commit ended well, if only by finding that there is nothing left to do."""
        table = receipt.table
        self._metrics.histogram("k2_commit_duration_seconds", receipt.duration_us / 1e6, table=table)
        if receipt.rows:
            self._metrics.increment("k2_iceberg_transactions_total", table=table)
            self._metrics.histogram("k2_iceberg_transaction_rows", receipt.rows, table=table)
            self._metrics.increment("k2_rows_written_total", receipt.rows, table=table)
            self._metrics.increment("k2_data_files_written_total", receipt.files, table=table)
            self._metrics.increment("k2_data_bytes_written_total", receipt.bytes, table=table)
        commit_logged(receipt)

    def aged(self, receipt: CommitReceipt, now: int) -> None:
        """How old the log's messages were when they could be queried; never below 0, whatever the log's clock says."""
        for oldest, _ in receipt.element_times:
            self._metrics.histogram("k2_end_to_end_latency_seconds", max(now - oldest, 0) / 1e6, table=receipt.table)
        newest = max(newest for _, newest in receipt.element_times)
        self._metrics.gauge("k2_freshness_seconds", max(now - newest, 0) / 1e6, table=receipt.table)
