"""Publishes what is staged for a table: data files with their coverage, or changes of the ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

from k2beam.clock import now_us
from k2beam.config import LakeConfig, WriteConfig
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.files import StagedFile
from k2beam.lake.ledger import append_gaps
from k2beam.lake.observe import CommitObserver
from k2beam.lake.sweep import Sweeper
from k2beam.lake.tables import SEQUENCE_GAPS, open_table
from k2beam.metrics.config import DEFAULT_METRICS, MetricsConfig
from k2beam.model import CommitReceipt
from k2beam.sequence import GapBatch

Staged = StagedFile | GapBatch
"""What waits for a commit."""


def weight(staged: Staged) -> tuple[int, int]:
    """Rows and bytes that a staged item adds to its commit."""
    if isinstance(staged, StagedFile):
        return staged.rows, staged.nbytes
    return len(staged.gaps), 0


def _sources(items: Sequence[Staged]) -> set[str]:
    return {source for item in items if isinstance(item, StagedFile) for source, _ in item.coverage}


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

    Logs one line a commit and keeps the metrics of commits (:mod:`k2beam.lake.observe`). Latency and freshness are
    those of a live job, whose element time is the log's; what an archive holds may be of any age, so a bounded job
    has none. Where commits expire snapshots, their files are deleted a grace later (:mod:`k2beam.lake.sweep`).
    """

    def __init__(self, lake: LakeConfig, config: WriteConfig, metrics: MetricsConfig = DEFAULT_METRICS) -> None:
        self._lake = lake
        self._config = config
        self._catalog = open_catalog(lake)
        self._observer = CommitObserver(metrics)
        self._sweeper = Sweeper()

    def publish(self, table: str, items: Sequence[Staged]) -> CommitReceipt:
        """Commit ``items`` to ``table`` in one snapshot; what is there already is left out.

        Raises CommitConflict and CommitUnknown, and what the guard of the sources raises.
        """
        with _under_way:
            return self._publish(table, items)

    def _publish(self, table: str, items: Sequence[Staged]) -> CommitReceipt:
        if self._config.guard is not None:
            self._config.guard.check(_sources(items))
        with self._observer.failures_counted(table):
            receipt = self._commit(table, items, partial(self._observer.retried, table))
        if receipt.element_times and not self._config.bounded:
            self._observer.aged(receipt, now_us())
        self._observer.committed(receipt)
        if self._config.retention is not None:
            self._sweeper.sweep(table, lambda: open_table(self._catalog, self._lake.namespace, table))
        return receipt

    def _commit(self, table: str, items: Sequence[Staged], on_retry: Callable[[str], None]) -> CommitReceipt:
        if table == SEQUENCE_GAPS:
            return append_gaps(
                self._catalog,
                self._lake.namespace,
                [gap for item in items if isinstance(item, GapBatch) for gap in item.gaps],
                detected_at=now_us(),
                run_id=self._config.run_id,
                policy=self._config.retry,
                retention=self._config.retention,
                on_retry=on_retry,
            )
        return commit_files(
            self._catalog,
            self._lake.namespace,
            table,
            [item for item in items if isinstance(item, StagedFile)],
            run_id=self._config.run_id,
            policy=self._config.retry,
            retention=self._config.retention,
            retired=self._config.retired,
            on_retry=on_retry,
        )
