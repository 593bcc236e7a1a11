"""One commit to one table, and the loop around it.

pyiceberg's retries are off (see :mod:`k2beam.lake.tables`), and so is its clean-up of manifests
after a conflict: a commit that is reported as a conflict may have landed, and then deleting its
manifests would make the table unreadable. Whatever happens, the loop refreshes the table, asks
the caller again what is left to do, and goes by that.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, RESTError
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from sqlalchemy.exc import DBAPIError

from k2beam.config import RetryPolicy
from k2beam.errors import CommitConflict, CommitUnknown, LakeError

COMMIT_ID = "k2.commit-id"
"""Entry of a snapshot's summary: one value for all tries of one commit."""

UNKNOWN_OUTCOME = (CommitStateUnknownException, RESTError, DBAPIError, OSError)
"""Errors after which a commit may or may not have landed."""

UNREACHABLE = (RESTError, DBAPIError, ConnectionError, TimeoutError)
"""Errors of a catalog that may soon answer again."""

_NOT_WRITTEN = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR}
)
"""What a file system says that has no room or no place for a file: metadata is written before a commit is made."""


@dataclass(frozen=True, slots=True)
class Append:
    """What one snapshot adds: files, changed table properties and entries of the summary."""

    files: Sequence[DataFile]
    properties: Mapping[str, str] = field(default_factory=dict)
    summary: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the loop ended: the table as it is now, and the number of tries."""

    table: Table
    attempts: int

    def landed(self, commit_id: str) -> Snapshot | None:
        """The snapshot of the try that landed, also where its outcome was reported wrongly; None where none did."""
        return next((snapshot for snapshot in reversed(self.table.snapshots()) if _is_of(snapshot, commit_id)), None)

    def ids(self, landed: Snapshot | None) -> tuple[int | None, int | None]:
        """The ids of the snapshots before and after the commit; the current one twice, where nothing landed.

        Another writer's may be newer already than the one that landed.
        """
        if landed is None:
            current = self.table.metadata.current_snapshot_id
            return current, current
        return landed.parent_snapshot_id, landed.snapshot_id


def append(table: Table, change: Append) -> None:
    """Append in one snapshot; the properties change in the same commit.

    Raises CommitFailedException when another writer won, and one of :data:`UNKNOWN_OUTCOME` when
    the outcome isn't known. No file is deleted either way.
    """
    transaction = table.transaction()
    if change.properties:
        transaction.set_properties(dict(change.properties))
    with transaction.update_snapshot(snapshot_properties=dict(change.summary)).fast_append() as snapshot:
        for data_file in change.files:
            snapshot.append_data_file(data_file)
    # With the producers gone pyiceberg has nothing to delete after a conflict.
    transaction._snapshot_producers = []
    transaction.commit_transaction()


def commit_loop(
    open_table: Callable[[], Table],
    plan: Callable[[Table], Append | None],
    policy: RetryPolicy,
    on_retry: Callable[[str], None] = lambda reason: None,
) -> Outcome:
    """Refresh, plan, append; on a conflict or an unknown outcome once more, from the refresh on.

    ``plan`` looks at the fresh table and says what is left to append; None ends the loop. It
    must find out by itself what an earlier try has landed (by the coverage, by the ledger's rows).
    ``on_retry`` hears why (conflict, unknown, or unreachable: the catalog gave no table) before each further try.

    Raises CommitConflict, CommitUnknown or, where no try was made at all, LakeError when ``policy.attempts`` are used
    up; at once what ``plan`` raises, and OSError where the store has no room or no place for the commit's metadata.
    """
    reason, unsure, last = "", False, Exception()
    for attempt in range(1, policy.attempts + 1):
        if attempt > 1:
            on_retry(reason)
            policy.wait(attempt - 1)
        try:
            table = open_table()
        except UNREACHABLE as error:
            reason, last = "unreachable", error
            continue
        change = plan(table)
        if change is None:
            return Outcome(table, attempt)
        try:
            append(table, change)
        except CommitFailedException as error:
            reason, last = "conflict", error
        except UNKNOWN_OUTCOME as error:
            if isinstance(error, OSError) and error.errno in _NOT_WRITTEN:
                raise
            reason, last, unsure = "unknown", error, True
        else:
            return Outcome(table, attempt)
    raise _exhausted("unknown" if unsure and reason == "unreachable" else reason, policy.attempts, last) from last


def _is_of(snapshot: Snapshot, commit_id: str) -> bool:
    return snapshot.summary is not None and snapshot.summary.additional_properties.get(COMMIT_ID) == commit_id


def _exhausted(reason: str, attempts: int, error: Exception) -> LakeError:
    if reason == "unreachable":
        return LakeError(
            f"the catalog gave no table in {attempts} tries ({error}); nothing of this commit landed: "
            "run the job again when it answers"
        )
    if reason == "conflict":
        return CommitConflict(
            f"another writer won {attempts} times in a row ({error}); nothing of this commit landed, run it again"
        )
    return CommitUnknown(
        f"the outcome of a commit is unknown after {attempts} tries ({error}); no file was deleted: "
        "run the job again, the coverage in the table decides what is left to do"
    )
