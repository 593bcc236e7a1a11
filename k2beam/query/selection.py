"""What a query asks for: symbol, exchange, time span and moment, pushed down into the Iceberg scan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeGuard

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import BooleanExpression, GreaterThanOrEqual, LessThan
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot

from k2beam.errors import QueryFailed, UsageError
from k2beam.lake.expiry import Expired
from k2beam.lake.pins import PIN_NAME
from k2beam.lake.predicates import all_of, any_of, term
from k2beam.lake.scan import bound_of, find_readable, plan_files, read_ahead, read_file, table_name
from k2beam.lake.tables import SPECS
from k2beam.query.duck import quoted
from k2beam.query.selections import AsOf, EventSelection, Names, Snapshots, names_of
from k2beam.query.times import EPOCH, Instant, micros_of, moment, to_instant


def named(symbol: Names, exchange: Names) -> list[BooleanExpression]:
    """Terms for what has the names. Raises UsageError for an empty list."""
    return any_of({"exchange": names_of(exchange, "exchange"), "symbol": names_of(symbol, "symbol")})


def event_filter(selection: EventSelection, time_column: str) -> BooleanExpression:
    """The selection as pyiceberg's expression. Raises UsageError for a time that can't be read."""
    return all_of([*named(selection.symbol, selection.exchange), *between(time_column, selection.start, selection.end)])


def between(time_column: str, start: Instant | None, end: Instant | None) -> list[BooleanExpression]:
    """Terms for times from ``start`` to before ``end``. Raises UsageError for a time that can't be read."""
    terms = []
    if start is not None:
        terms.append(term(GreaterThanOrEqual, time_column, to_instant(start, "--from").isoformat()))
    if end is not None:
        terms.append(term(LessThan, time_column, to_instant(end, "--to").isoformat()))
    return terms


def bounds_of_selection(selection: EventSelection) -> tuple[int | None, int | None]:
    """Where a selection begins and ends, microseconds. Raises UsageError for a time that can't be read."""
    start = None if selection.start is None else micros_of(to_instant(selection.start, "--from"))
    end = None if selection.end is None else micros_of(to_instant(selection.end, "--to"))
    return start, end


def _condition(selection: EventSelection, time_column: str) -> str:
    """The selection as an SQL condition."""
    terms = ["true"]
    for name, given in (("exchange", selection.exchange), ("symbol", selection.symbol)):
        if found := names_of(given, name):
            terms.append(f"{name} IN ({', '.join(map(quoted, found))})")
    return " AND ".join([*terms, *_within(time_column, *bounds_of_selection(selection))])


def _within(time_column: str, start: int | None, end: int | None) -> list[str]:
    """SQL conditions for times from ``start`` to before ``end``, microseconds."""
    bounds = ((">=", start), ("<", end))
    return [f'"{time_column}" {sign} make_timestamptz({micros})' for sign, micros in bounds if micros is not None]


def snapshot_of(table: Table, as_of: AsOf | None) -> Snapshot | None:
    """The snapshot to read: the current one, or the one of ``as_of``; None where the table was still empty.

    Raises UsageError for an unknown snapshot id or tag, and for a moment whose snapshot has been expired.
    """
    if as_of is None:
        return table.current_snapshot()
    if isinstance(as_of, Snapshots):
        found = as_of.ids.get(table.name()[-1])
        return None if found is None else _snapshot_by_id(table, found)
    if isinstance(as_of, int) or is_id(as_of):
        return _snapshot_by_id(table, int(as_of))
    if isinstance(as_of, str) and PIN_NAME.fullmatch(as_of):
        return _snapshot_of_tag(table, as_of)
    return _snapshot_at(table, to_instant(as_of, "--as-of"))


def is_id(as_of: AsOf | None) -> TypeGuard[int | str]:
    """Whether it is the id of a snapshot."""
    return isinstance(as_of, int) or (isinstance(as_of, str) and as_of.isdecimal())


def _snapshot_by_id(table: Table, snapshot_id: int) -> Snapshot:
    found = table.metadata.snapshot_by_id(snapshot_id)
    if found is None:
        raise UsageError(
            f"--as-of {snapshot_id}: table {table_name(table)} has no such snapshot (any more){_expired_of(table)}; "
            "`k2beam query snapshots` lists them, and a time is written in ISO 8601"
        )
    return found


def _snapshot_of_tag(table: Table, name: str) -> Snapshot:
    found = table.metadata.snapshot_by_name(name)
    if found is None:
        tags = ", ".join(sorted(ref for ref in table.metadata.refs if ref != MAIN_BRANCH)) or "none yet"
        raise UsageError(
            f"--as-of {name!r} is not a time and no tag of table {table_name(table)}; its tags are {tags}, and a time "
            "is written in ISO 8601, such as 2026-01-05T09:30:00Z"
        )
    return found


def _snapshot_at(table: Table, when: datetime) -> Snapshot | None:
    milliseconds = (when - EPOCH) // timedelta(milliseconds=1)
    entries = sorted(table.history(), key=lambda entry: entry.timestamp_ms)
    before = [entry.snapshot_id for entry in entries if entry.timestamp_ms <= milliseconds]
    found = table.metadata.snapshot_by_id(before[-1]) if before else None
    following = [entry.snapshot_id for entry in entries[len(before) :]]
    if (before and found is None) or (following and _lost_between(table, found, following[0])):
        raise UsageError(
            f"--as-of {when.isoformat()}: the snapshot of table {table_name(table)} from then was expired, "
            f"or may have been{_expired_of(table)}; `k2beam query snapshots` lists those that are left: name one "
            "of them by its id"
        )
    return found


def _expired_of(table: Table) -> str:
    """What is known of the snapshots of a table that were expired, as a part of a sentence."""
    expired = Expired.from_properties(table.properties)
    if expired is None:
        return ""
    until, at = (moment(milliseconds * 1_000) for milliseconds in (expired.until_ms, expired.at_ms))
    return (
        f": {expired.snapshots:,} were expired, of up to {until.isoformat(timespec='seconds')}, "
        f"the last at {at.isoformat(timespec='seconds')}"
    )


def _lost_between(table: Table, earlier: Snapshot | None, later_id: int) -> bool:
    """Whether a snapshot between two (None: before the first) was expired.

    Expiry leaves no trace in the history, but each snapshot took the next sequence number (Iceberg
    format, version 2).
    """
    later = table.metadata.snapshot_by_id(later_id)
    if later is None or later.sequence_number is None:
        return later is None
    first = 1 if earlier is None else (earlier.sequence_number or 0) + 1
    left = {snapshot.sequence_number for snapshot in table.snapshots()}
    return any(number not in left for number in range(first, later.sequence_number))


def plan(table: Table, row_filter: BooleanExpression, snapshot: Snapshot | None) -> list[FileScanTask]:
    """The data files of a snapshot that may hold rows of the filter; none where the table was empty (None).

    Raises UnreadableFile when a manifest is gone or damaged.
    """
    return [] if snapshot is None else plan_files(table, row_filter, snapshot)


@dataclass(frozen=True, slots=True)
class PlannedRead:
    """Rows that are to be read: the data files of one snapshot, planned once, so that each read gives the same."""

    table: Table
    columns: Sequence[str]
    tasks: Sequence[FileScanTask]
    row_filter: BooleanExpression
    former: Snapshot | None
    time_column: str
    condition: str
    """The filter as SQL."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, a few data files at a time, in no order. Raises LakeError for an unreadable file."""
        ahead = read_ahead(self.table, self.tasks, self.columns, self.row_filter, self.former)
        return (batch for _, rows in ahead for batch in rows())

    def check_files(self) -> None:
        """Read all files, after a query that failed. Raises UnreadableFile for the first one that can't be read."""
        for task in self.tasks:
            for _ in read_file(self.table, task, self.columns, self.row_filter, self.former):
                pass

    def spans(self) -> Iterator[tuple[FileScanTask, int | None, int | None]]:
        """Each file with its first and last time, microseconds; None where its statistics don't say."""
        for task in self.tasks:
            bounds = task.file.lower_bounds, task.file.upper_bounds
            low, high = (bound_of(self.table, found, self.time_column) for found in bounds)
            yield task, low, high

    def between(self, start: int | None, end: int | None) -> PlannedRead:
        """The rows from ``start`` to before ``end``, microseconds (None: all); for SQL only."""
        tasks = [
            task
            for task, low, high in self.spans()
            if (start is None or high is None or high >= start) and (end is None or low is None or low < end)
        ]
        condition = " AND ".join([self.condition, *_within(self.time_column, start, end)])
        return replace(self, tasks=tasks, condition=condition)

    def only(self, tasks: Sequence[FileScanTask]) -> PlannedRead:
        """The same of some of the files."""
        return replace(self, tasks=tasks)


@contextmanager
def naming_the_file(readings: Iterable[PlannedRead | None]) -> Iterator[None]:
    """Where a query over the files of ``readings`` fails: raises UnreadableFile if one of them can't be read."""
    try:
        yield
    except QueryFailed:
        for reading in readings:
            if reading is not None:
                reading.check_files()
        raise


def plan_reading(table: Table, columns: Sequence[str], selection: EventSelection, time_column: str) -> PlannedRead:
    """The selected rows, only the columns named. Raises UsageError for bad options, and as :func:`plan` does."""
    row_filter = event_filter(selection, time_column)
    snapshot = snapshot_of(table, selection.as_of)
    tasks, former = plan(table, row_filter, snapshot), _with_former_columns(table, columns, snapshot)
    return PlannedRead(table, columns, tasks, row_filter, former, time_column, _condition(selection, time_column))


def _with_former_columns(table: Table, columns: Sequence[str], snapshot: Snapshot | None) -> Snapshot | None:
    """The snapshot, if another column had one of these names in it: a table that was upgraded has new ones."""
    if snapshot is None or snapshot.schema_id is None:
        return None
    schema = table.schemas()[snapshot.schema_id]
    names = [name for name in columns if name in schema.column_names]
    changed = any(schema.find_field(name).field_id != table.schema().find_field(name).field_id for name in names)
    return snapshot if changed else None


def pin_snapshots(catalog: Catalog, namespace: str, as_of: AsOf | None, names: Iterable[str] = SPECS) -> Snapshots:
    """The snapshots of the tables ``names`` as of a moment (None: now), so that several reads see the same rows.

    A snapshot's id belongs to one table: of the others it is the moment when that snapshot was committed. Raises
    UsageError for a bad ``as_of``, LakeError for unreadable metadata.
    """
    tables = {name: table for name in names if (table := find_readable(catalog, namespace, name)) is not None}
    if is_id(as_of):
        owner = next((table for table in tables.values() if table.metadata.snapshot_by_id(int(as_of))), None)
        if owner is None:
            raise UsageError(f"--as-of {as_of}: none of the tables {', '.join(tables)} has such a snapshot (any more)")
        as_of = moment(_snapshot_by_id(owner, int(as_of)).timestamp_ms * 1_000)
    found = {name: snapshot_of(table, as_of) for name, table in tables.items()}
    return Snapshots({name: None if snapshot is None else snapshot.snapshot_id for name, snapshot in found.items()})
