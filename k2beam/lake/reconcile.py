"""Reconciles the ledger of sequence gaps with the rows of the event tables.

A crash between the commit of the rows and that of the ledger leaves the ledger behind; a message may
come too late for the machine that watches the stream. So at the end of a bounded run, and in the audit,
the missing intervals are recounted from the rows and the ledger gets what differs, by appending.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial

from pyiceberg.catalog import Catalog

from k2beam.clock import now_us
from k2beam.config import RetryPolicy
from k2beam.lake.certified import CertifiedDays
from k2beam.lake.ledger import append_gaps, current_gaps
from k2beam.lake.observe import CommitObserver
from k2beam.lake.recount import KeyRecount, recount_keys
from k2beam.lake.tables import SEQUENCE_GAPS
from k2beam.metrics.config import DEFAULT_METRICS, MetricsConfig
from k2beam.model import CommitReceipt, Gap
from k2beam.sequence import SequenceKey, diff_ledger, missing_gaps


@dataclass(frozen=True, slots=True)
class LedgerDiff:
    """Missing intervals in the ledger and in the recount, and the ledger rows that make them equal."""

    unfilled: int
    recounted: int
    changes: tuple[Gap, ...]


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """What a reconcile did: keys recounted, the difference found, and the commit (None: none needed)."""

    keys: int
    diff: LedgerDiff
    receipt: CommitReceipt | None


def reconcile(
    catalog: Catalog,
    namespace: str,
    *,
    run_id: str = "",
    policy: RetryPolicy | None = None,
    metrics: MetricsConfig = DEFAULT_METRICS,
) -> ReconcileResult:
    """Recount all keys (exchange, symbol, kind), append to the ledger what differs, and remember the days that it read.

    Writes nothing where nothing differs or changed. Exactly once: repeating it writes nothing more. Commits
    are counted as ``metrics`` says, and logged, as those of the job are. Raises
    UnreadableFile, before anything is written, when a file of the tables is gone: its rows would
    become gaps. Raises CommitConflict and CommitUnknown.
    """
    certified = CertifiedDays(catalog, namespace, keep=True)
    recounts = list(recount_keys(catalog, namespace, certified=certified))
    diff = compare_ledger(catalog, namespace, recounts)
    receipt = mend_ledger(catalog, namespace, diff.changes, run_id=run_id, policy=policy, metrics=metrics)
    certified.save(run_id=run_id, policy=policy, metrics=metrics)
    return ReconcileResult(len(recounts), diff, receipt)


def missing_intervals(recount: KeyRecount) -> list[Gap]:
    """The gaps that the rows of a key show, as the ledger would say it: OPEN, without a revision."""
    return missing_gaps(SequenceKey(recount.exchange, recount.symbol, recount.kind), recount.epochs)


def compare_ledger(catalog: Catalog, namespace: str, recounts: Iterable[KeyRecount]) -> LedgerDiff:
    """The difference between the ledger and ``recounts``, which must be those of all keys."""
    desired = [gap for recount in recounts for gap in missing_intervals(recount)]
    current = current_gaps(catalog, namespace)
    return LedgerDiff(len(current), len(desired), tuple(diff_ledger(desired, current)))


def mend_ledger(
    catalog: Catalog,
    namespace: str,
    changes: Collection[Gap],
    *,
    run_id: str = "",
    policy: RetryPolicy | None = None,
    metrics: MetricsConfig = DEFAULT_METRICS,
) -> CommitReceipt | None:
    """Append ``changes`` to the ledger in one snapshot; nothing, not even the table, where there are none.

    Counts and logs the commit. Raises CommitConflict and CommitUnknown.
    """
    if not changes:
        return None
    observer = CommitObserver(metrics)
    with observer.failures_counted(SEQUENCE_GAPS):
        receipt = append_gaps(
            catalog,
            namespace,
            tuple(changes),
            detected_at=now_us(),
            run_id=run_id,
            policy=policy,
            on_retry=partial(observer.retried, SEQUENCE_GAPS),
        )
    observer.committed(receipt)
    return receipt
