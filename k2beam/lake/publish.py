"""Publishes what is staged for a table: data files with their coverage, or changes of the ledger."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from k2beam.codec.clock import now_us
from k2beam.lake.catalog import LakeConfig, open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.config import WriteConfig
from k2beam.lake.files import StagedFile
from k2beam.lake.ledger import append_gaps
from k2beam.lake.tables import SEQUENCE_GAPS
from k2beam.logs import commit_logged, get_logger
from k2beam.metrics.worker import DEFAULT_METRICS, MetricsConfig
from k2beam.model import CommitReceipt
from k2beam.sequence import GapBatch

Staged = StagedFile | GapBatch
"""What waits for a commit."""


def weight(staged: Staged) -> tuple[int, int]:
    """Rows and bytes that a staged item adds to its commit."""
    if isinstance(staged, StagedFile):
        return staged.rows, staged.nbytes
    return len(staged.gaps), 0


class _UnderWay:
    """Counts the commits of this process that have begun and not ended."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 0

    def __enter__(self) -> None:
        with self._changed:
            self._number += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._number -= 1
            self._changed.notify_all()

    def ended(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._number, timeout_s)


_under_way = _UnderWay()


def commits_done(timeout_s: float) -> bool:
    """Wait until no commit is under way in this process; whether that came within ``timeout_s`` seconds.

    Once the guard of a job's sources lets nothing more pass, nothing of the job is committed after this.
    """
    return _under_way.ended(timeout_s)


class Publisher:
    """Holds the open catalog and commits to its tables; one for each worker.

    Logs one line a commit and keeps the metrics of commits. Latency and freshness are those of a live job, whose
    element time is the log's; what an archive holds may be of any age, so a bounded job has none.
    """

    def __init__(self, lake: LakeConfig, config: WriteConfig, metrics: MetricsConfig = DEFAULT_METRICS) -> None:
        self._lake = lake
        self._config = config
        self._catalog = open_catalog(lake)
        self._metrics = metrics.open("commit")
        self._log = get_logger("commit")

    def publish(self, table: str, items: Sequence[Staged]) -> CommitReceipt:
        """Commit ``items`` to ``table`` in one snapshot; what is there already is left out.

        Raises CommitConflict and CommitUnknown, and what the guard of the sources raises.
        """
        with _under_way:
            return self._publish(table, items)

    def _publish(self, table: str, items: Sequence[Staged]) -> CommitReceipt:
        if self._config.guard is not None:
            self._config.guard.check()

        def on_retry(reason: str) -> None:
            self._metrics.increment("k2_commit_retries_total", table=table, reason=reason)
            self._log.warning("commit retried", table=table, reason=reason)

        if table == SEQUENCE_GAPS:
            receipt = append_gaps(
                self._catalog,
                self._lake.namespace,
                [gap for item in items if isinstance(item, GapBatch) for gap in item.gaps],
                detected_at=now_us(),
                run_id=self._config.run_id,
                policy=self._config.retry,
                on_retry=on_retry,
            )
        else:
            receipt = commit_files(
                self._catalog,
                self._lake.namespace,
                table,
                [item for item in items if isinstance(item, StagedFile)],
                run_id=self._config.run_id,
                policy=self._config.retry,
                on_retry=on_retry,
            )
        self._observe(receipt)
        return receipt

    def _observe(self, receipt: CommitReceipt) -> None:
        table = receipt.table
        self._metrics.histogram("k2_commit_duration_seconds", receipt.duration_us / 1e6, table=table)
        if receipt.rows:
            self._metrics.increment("k2_iceberg_transactions_total", table=table)
            self._metrics.histogram("k2_iceberg_transaction_rows", receipt.rows, table=table)
            self._metrics.increment("k2_rows_written_total", receipt.rows, table=table)
            self._metrics.increment("k2_data_files_written_total", receipt.files, table=table)
            self._metrics.increment("k2_data_bytes_written_total", receipt.bytes, table=table)
        if receipt.element_times and not self._config.bounded:
            self._observe_age(receipt, now_us())
        commit_logged(receipt)

    def _observe_age(self, receipt: CommitReceipt, now: int) -> None:
        """How old the log's messages were when they could be queried; never below 0, whatever the log's clock says."""
        for oldest, _ in receipt.element_times:
            self._metrics.histogram("k2_end_to_end_latency_seconds", max(now - oldest, 0) / 1e6, table=receipt.table)
        newest = max(newest for _, newest in receipt.element_times)
        self._metrics.gauge("k2_freshness_seconds", max(now - newest, 0) / 1e6, table=receipt.table)
