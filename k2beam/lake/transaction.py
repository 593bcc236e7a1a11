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
from typing import Any

from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, RESTError
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.table.update import (
    AssertCurrentSchemaId,
    AssertRefSnapshotId,
    RemovePropertiesUpdate,
    SetPropertiesUpdate,
    TableUpdate,
)
from pyiceberg.types import DecimalType
from sqlalchemy.exc import DBAPIError

from k2beam.clock import now_us
from k2beam.config import Retention, RetryPolicy
from k2beam.errors import CommitConflict, CommitUnknown, LakeError
from k2beam.lake.expiry import expirable, remembered, removal_of
from k2beam.lake.lean import LeanTransaction, MergingAppend, MergingOverwrite, MergingReplace
from k2beam.lake.patience import is_away, is_refused, own_error
from k2beam.lake.runs import RUN_ID, RunRecord, run_record, with_run

COMMIT_ID = "k2.commit-id"
"""Entry of a snapshot's summary: one value for all tries of one commit."""

UNKNOWN_OUTCOME = (CommitStateUnknownException, RESTError, DBAPIError, OSError)
"""Errors after which a commit may or may not have landed."""

_NOT_WRITTEN = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR}
)
"""What a file system says that has no room or no place for a file: metadata is written before a commit is made."""


COMMITTED_IN = "k2.warehouse"
"""Entry of a snapshot's summary: the warehouse folder, or the name of the catalog, that it was committed in."""

REPLACED_AT = "k2.replaced.at-ms"
"""Table property: when files were last replaced by others with the same rows, milliseconds UTC."""

ROWS_ADDED = "k2.rows"
"""Entry of a snapshot's summary: the rows that the commit added."""


@dataclass(frozen=True, slots=True)
class Append:
    """What one snapshot adds: files, changed table properties and entries of the summary.

    Files that are ``replaced`` leave the table in the same snapshot: they hold the rows of ``files``, or else
    (``rows_change``) rows that are to go. ``removed``: properties that go. ``retention``: which snapshots it leaves in
    the table (None: all). ``updates``: changes of the metadata that come before all that, such as another schema.
    """

    files: Sequence[DataFile]
    properties: Mapping[str, str] = field(default_factory=dict)
    summary: Mapping[str, str] = field(default_factory=dict)
    replaced: Sequence[DataFile] = ()
    rows_change: bool = False
    removed: Sequence[str] = ()
    retention: Retention | None = None
    updates: Sequence[TableUpdate] = ()


@dataclass(frozen=True, slots=True)
class Landed:
    """A commit that is in a table: the ids of the snapshots before it (None: it was the first) and after it."""

    before: int | None
    after: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the loop ended: the table as it is now, and the number of tries."""

    table: Table
    attempts: int

    def landed(self, summary: Mapping[str, str]) -> Landed | None:
        """The commit with the ids of ``summary``, also where its outcome was reported wrongly; None if it isn't there.

        Its snapshot may be expired already, or the one before it: so the record of the run is asked first.
        """
        record = run_record(self.table.properties, summary.get(RUN_ID, ""))
        if record is not None and record.commit_id == summary[COMMIT_ID]:
            return Landed(record.before, record.after)
        for snapshot in reversed(self.table.metadata.snapshots):
            if snapshot.summary and snapshot.summary.additional_properties.get(COMMIT_ID) == summary[COMMIT_ID]:
                return Landed(snapshot.parent_snapshot_id, snapshot.snapshot_id)
        return None

    def ids(self, landed: Landed | None) -> tuple[int | None, int | None]:
        """The ids of the snapshots before and after the commit; the current one twice, where nothing landed.

        Another writer's may be newer already than the one that landed.
        """
        if landed is None:
            current = self.table.metadata.current_snapshot_id
            return current, current
        return landed.before, landed.after


def append(table: Table, change: Append) -> None:
    """Append, or replace files, in one snapshot; properties, the record of the run and what expires change with it.

    Raises CommitFailedException when another writer won, and one of :data:`UNKNOWN_OUTCOME` when
    the outcome isn't known. No file is deleted either way. Raises LakeError for files of before the table's partition
    spec or a column of it was changed: pyiceberg would describe them by the new one, and read null.
    """
    if any(file.spec_id != table.metadata.default_spec_id for file in change.files):
        raise LakeError(
            f"the partition spec of table {'.'.join(table.name())} was changed while rows were written for it; "
            "nothing of them was committed: run it again"
        )
    now_ms = now_us() // 1_000
    transaction = LeanTransaction(table)
    if change.updates:
        current = AssertCurrentSchemaId.model_validate({"current-schema-id": table.metadata.current_schema_id})
        transaction._stage(tuple(change.updates), (current,))
    schema = transaction.table_metadata.schema() if change.updates else table.schema()
    _check_columns(schema, table, change.files)
    producer = _producer(transaction, table, change)
    gone = [] if change.retention is None else expirable(table.metadata, change.retention, now_ms, appended=1)
    properties, forgotten = _of_run(table, change, producer.snapshot_id, now_ms)
    if gone:
        properties |= remembered(table.properties, gone, now_ms)
    if change.replaced:
        properties[REPLACED_AT] = str(now_ms)
    properties |= change.properties
    if properties:
        transaction.set_properties(properties)
    if removed := [*change.removed, *forgotten]:
        transaction.remove_properties(*removed)
    with producer as snapshot:
        for data_file in change.files:
            snapshot.append_data_file(data_file)
        for data_file in change.replaced:
            snapshot.delete_data_file(data_file)
    if gone:
        transaction._stage((removal_of(gone),))
    # With the producers gone pyiceberg has nothing to delete after a conflict.
    transaction._snapshot_producers = []
    transaction.commit_transaction()


def _check_columns(schema: Schema, table: Table, files: Sequence[DataFile]) -> None:
    decimals = {
        field.field_id for field in schema.fields if field.required and isinstance(field.field_type, DecimalType)
    }
    for file in files:
        if not decimals <= set(file.column_sizes):
            raise LakeError(
                f"columns of table {'.'.join(table.name())} were changed while rows were written for it; nothing of "
                "them was committed: run it again, a streaming job without its old state"
            )


def warehouse_of(table: Table) -> str:
    """The folder of the table's warehouse, or the name of its catalog."""
    return str(table.catalog.properties.get("warehouse") or table.catalog.name)


def _producer(transaction: LeanTransaction, table: Table, change: Append) -> MergingAppend | MergingOverwrite:
    summary = {**change.summary, COMMITTED_IN: warehouse_of(table)}
    if not change.replaced:
        return MergingAppend(Operation.APPEND, transaction, table.io, snapshot_properties=summary)
    overwrite = MergingOverwrite if change.rows_change else MergingReplace
    return overwrite(Operation.OVERWRITE, transaction, table.io, snapshot_properties=summary)


def _of_run(table: Table, change: Append, snapshot_id: int, now_ms: int) -> tuple[dict[str, str], list[str]]:
    """What the record of the run that commits becomes: properties to set and to remove."""
    run_id = change.summary.get(RUN_ID)
    if not run_id:
        return {}, []
    before = table.metadata.current_snapshot_id
    rows = int(change.summary.get(ROWS_ADDED, 0))
    return with_run(
        table.properties, run_id, RunRecord(rows, 1, change.summary[COMMIT_ID], before, snapshot_id, now_ms)
    )


def commit_updates(table: Table, updates: Sequence[TableUpdate]) -> None:
    """Change the table's metadata and add no snapshot; refused where another one became current. Raises as append."""
    transaction = LeanTransaction(table)
    current = {"ref": MAIN_BRANCH, "snapshot-id": table.metadata.current_snapshot_id}
    transaction._stage(tuple(updates), (AssertRefSnapshotId.model_validate(current),))
    transaction.commit_transaction()


def change_properties(
    open_table: Callable[[], Table], change: Callable[[Mapping[str, str]], Mapping[str, str | None]]
) -> None:
    """Set the properties that ``change`` makes of those that a table has (None: takes it away); no snapshot is added.

    Raises as :func:`commit_loop` does.
    """

    def plan(table: Table) -> list[TableUpdate] | None:
        news = {name: value for name, value in change(table.properties).items() if table.properties.get(name) != value}
        given = {name: value for name, value in news.items() if value is not None}
        gone = [name for name, value in news.items() if value is None]
        found = [SetPropertiesUpdate(updates=given)] if given else []
        return [*found, *([RemovePropertiesUpdate(removals=gone)] if gone else [])] or None

    commit_loop(open_table, plan, RetryPolicy(), commit=commit_updates)


def commit_loop(
    open_table: Callable[[], Table],
    plan: Callable[[Table], Any],
    policy: RetryPolicy,
    on_retry: Callable[[str], None] = lambda reason: None,
    commit: Callable[[Table, Any], None] | None = None,
) -> Outcome:
    """Refresh, plan, commit; on a conflict or an unknown outcome once more, from the refresh on.

    ``plan`` looks at the fresh table and says what is left to do; None ends the loop. It
    must find out by itself what an earlier try has landed (by the coverage, by the ledger's rows).
    ``commit`` does it (None: :func:`append`), in one commit. ``on_retry`` hears why (conflict, unknown, or unreachable:
    the catalog gave no table) before each further try.

    Raises CommitConflict, CommitUnknown or, where no try was made at all, LakeError when ``policy.attempts`` are used
    up; at once what ``plan`` raises, StoreRefused, and OSError where the store has no room or no place for the
    commit's metadata.
    """
    reason, unsure, last = "", False, Exception()
    for attempt in range(1, policy.attempts + 1):
        if attempt > 1:
            on_retry(reason)
            policy.wait(attempt - 1)
        try:
            table = open_table()
        except Exception as error:
            if not is_away(error):
                raise
            reason, last = "unreachable", error
            continue
        change = plan(table)
        if change is None:
            return Outcome(table, attempt)
        try:
            (commit or append)(table, change)
        except CommitFailedException as error:
            reason, last = "conflict", error
        except UNKNOWN_OUTCOME as error:
            if isinstance(error, OSError) and error.errno in _NOT_WRITTEN:
                raise
            if is_refused(error):  # also metadata that could not be written: that comes before the commit
                name = ".".join(table.name())
                raise own_error(error, f"table {name}: nothing of this commit landed: ") or error from error
            reason, last, unsure = "unknown", error, True
        else:
            return Outcome(table, attempt)
    raise _exhausted("unknown" if unsure and reason == "unreachable" else reason, policy.attempts, last) from last


def replaces(snapshot: Snapshot) -> bool:
    """Whether a snapshot changed files and no rows, as a compaction does."""
    return snapshot.summary is not None and snapshot.summary.operation == Operation.REPLACE


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
