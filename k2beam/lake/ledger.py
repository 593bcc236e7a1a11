"""The ledger of sequence gaps: append-only rows, of which the highest revision of a gap counts.

Revisions are given here, against the freshly read ledger and under the catalog's compare-and-swap,
so two writers never give the same revision, and a change that is there already is not written.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import BooleanExpression
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from k2beam.config import Retention, RetryPolicy
from k2beam.lake.files import StagedFile, write_rows
from k2beam.lake.runs import RUN_ID
from k2beam.lake.scan import EVERYTHING, find_readable, plan_files, read_file
from k2beam.lake.tables import GAP_SCHEMA, SEQUENCE_GAPS, open_table
from k2beam.lake.transaction import COMMIT_ID, ROWS_ADDED, Append, commit_loop
from k2beam.model import CommitReceipt, Gap

_COLUMNS = (
    "exchange",
    "symbol",
    "kind",
    "epoch",
    "first_missing",
    "last_missing",
    "status",
    "opened_at",
    "gap_id",
    "revision",
    "detected_at",
)


def read_revisions(
    table: Table, row_filter: BooleanExpression = EVERYTHING, snapshot: Snapshot | None = None
) -> Iterator[Gap]:
    """Every row of the ledger, one data file at a time, in no order; of a snapshot, or else of the current one.

    Raises LakeError for an unreadable file.
    """
    for task in plan_files(table, row_filter, snapshot):
        for batch in read_file(table, task, _COLUMNS, row_filter):
            yield from _gaps(batch)


def read_ledger(
    table: Table, row_filter: BooleanExpression = EVERYTHING, snapshot: Snapshot | None = None
) -> list[Gap]:
    """The state of each gap, its highest revision, sorted by key, epoch and first missing sequence.

    ``row_filter`` may only name what is the same in every revision of a gap (exchange, symbol, kind):
    a filter on status would bring back what a later revision has closed. Holds one row a gap in
    memory. Raises LakeError for an unreadable file.
    """
    newest: dict[str, Gap] = {}
    for gap in read_revisions(table, row_filter, snapshot):
        known = newest.get(gap.gap_id)
        if known is None or _age(gap) > _age(known):
            newest[gap.gap_id] = gap
    return sorted(newest.values(), key=sort_key)


def current_gaps(catalog: Catalog, namespace: str) -> list[Gap]:
    """The gaps that are not FILLED now, sorted; none where no ledger was ever written."""
    table = find_readable(catalog, namespace, SEQUENCE_GAPS)
    return [] if table is None else [gap for gap in read_ledger(table) if gap.status != "FILLED"]


def sort_key(gap: Gap) -> tuple[str, str, str, int, int, int]:
    """The order of the ledger: key, epoch, first missing sequence, revision."""
    return gap.exchange, gap.symbol, gap.kind, gap.epoch, gap.first_missing, gap.revision


def _age(gap: Gap) -> tuple[int, int]:
    return gap.revision, gap.detected_at or 0


def _gaps(batch: pa.RecordBatch) -> Iterator[Gap]:
    columns: dict[str, list[Any]] = {
        name: (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    for values in zip(*columns.values(), strict=True):
        yield Gap(**dict(zip(columns, values, strict=True)))


def append_gaps(
    catalog: Catalog,
    namespace: str,
    gaps: Sequence[Gap],
    *,
    detected_at: int,
    run_id: str = "",
    policy: RetryPolicy | None = None,
    retention: Retention | None = None,
    on_retry: Callable[[str], None] = lambda reason: None,
) -> CommitReceipt:
    """Append the changes among ``gaps`` in one snapshot; what the ledger says already is left out.

    Of several states of one gap the last counts. ``detected_at`` is microseconds, UTC; ``retention`` says which
    snapshots of the ledger are left.
    Exactly once: repeating it writes nothing. Raises CommitConflict and CommitUnknown.
    """
    started = time.monotonic_ns()
    ids = {RUN_ID: run_id, COMMIT_ID: uuid.uuid4().hex}
    tries: list[list[StagedFile]] = []

    def plan(table: Table) -> Append | None:
        changes = changed(gaps, {gap.gap_id: gap for gap in read_ledger(table)})
        if not changes:
            return None
        staged = write_rows(table, ledger_rows(changes, detected_at), window=0)
        tries.append(staged)
        summary = {**ids, ROWS_ADDED: str(len(changes))}
        return Append([file.data_file() for file in staged], summary=summary, retention=retention)

    outcome = commit_loop(
        lambda: open_table(catalog, namespace, SEQUENCE_GAPS), plan, policy or RetryPolicy(), on_retry
    )
    # What was staged for a try that lost may be in the ledger by another job's commit.
    commit = outcome.landed(ids)
    before, after = outcome.ids(commit)
    landed = tries[-1] if commit is not None else []
    rows = sum(file.rows for file in landed)
    return CommitReceipt(
        table=SEQUENCE_GAPS,
        snapshot_before=before,
        snapshot_after=after,
        rows=rows,
        files=len(landed),
        bytes=sum(file.nbytes for file in landed),
        duration_us=(time.monotonic_ns() - started) // 1000,
        attempts=outcome.attempts,
        rows_left_out=len(gaps) - rows,
        coverage_digest="",
    )


def changed(gaps: Iterable[Gap], ledger: Mapping[str, Gap]) -> list[Gap]:
    """The gaps that differ from the ledger, each with its next revision; the last state of a gap counts.

    A gap that is closed and was never in the ledger has opened and closed in between: it is not written.
    """
    result = []
    for gap in {gap.gap_id: gap for gap in gaps}.values():
        known = ledger.get(gap.gap_id)
        if known is None and gap.status == "FILLED":
            continue
        if known is None or _state(known) != _state(gap):
            result.append(replace(gap, revision=0 if known is None else known.revision + 1))
    return sorted(result, key=lambda gap: (gap.exchange, gap.symbol, gap.kind, gap.epoch, gap.first_missing))


def ledger_rows(gaps: Sequence[Gap], detected_at: int) -> pa.Table:
    """The ledger's rows for ``gaps``; a gap with a ``detected_at`` of its own keeps it."""
    columns = {
        field.name: pa.array([_value(gap, field.name, detected_at) for gap in gaps], type=field.type)
        for field in GAP_SCHEMA
    }
    return pa.table(columns, schema=GAP_SCHEMA)


def _value(gap: Gap, name: str, detected_at: int) -> object:
    if name == "detected_at" and gap.detected_at is None:
        return detected_at
    return getattr(gap, name)


def _state(gap: Gap) -> tuple[int, int, bool]:
    """What makes two rows of one gap differ; whether it is OPEN or PARTIAL is history."""
    return gap.last_missing, gap.opened_at, gap.status == "FILLED"
