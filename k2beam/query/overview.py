"""What the lake holds: symbols, the sizes of the tables and their snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Snapshot

from k2beam.errors import UsageError
from k2beam.lake.scan import EVERYTHING, bound_of, file_rows, find_readable, read_file, whole_schema
from k2beam.lake.tables import CERTIFIED_DAYS, DEAD_LETTERS, EVENT_TABLES, LEGAL_HOLES, SEQUENCE_GAPS, SPECS
from k2beam.lake.transaction import replaces
from k2beam.model import KINDS, Kind
from k2beam.query import duck
from k2beam.query.relation import local_files, relate
from k2beam.query.selection import is_id, plan, plan_reading, snapshot_of
from k2beam.query.selections import AsOf, EventSelection
from k2beam.query.times import moment
from k2beam.schemas import EVENT_TIME_COLUMN

TIME_COLUMNS: dict[str, str] = {
    **{EVENT_TABLES[kind]: EVENT_TIME_COLUMN[kind] for kind in KINDS},
    DEAD_LETTERS: "failed_at",
    SEQUENCE_GAPS: "opened_at",
    CERTIFIED_DAYS: "day",
    LEGAL_HOLES: "found_at",
}
"""The column whose first and last value the statistics give."""


@dataclass(frozen=True, slots=True)
class SymbolCount:
    """How many rows (copies included) one symbol has in one event table, and between which events."""

    exchange: str
    symbol: str
    kind: Kind
    rows: int
    first_event: datetime
    last_event: datetime


@dataclass(frozen=True, slots=True)
class TableStats:
    """Live rows, data files and their bytes of one table, and its first and last time."""

    table: str
    snapshot_id: int | None
    rows: int
    files: int
    bytes: int
    first_event: datetime | None
    last_event: datetime | None


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One snapshot of one table; None where its summary does not say.

    A compaction (``operation`` replace) adds files and no rows: those in them were there before.
    """

    table: str
    snapshot_id: int
    parent_id: int | None
    committed_at: datetime
    operation: str | None
    added_rows: int | None
    added_files: int | None
    total_rows: int | None


def list_symbols(catalog: Catalog, namespace: str, selection: EventSelection) -> list[SymbolCount]:
    """The symbols of each event table in the selection, sorted by exchange, symbol and kind."""
    found = [count for kind in KINDS for count in _symbols_of(catalog, namespace, kind, selection)]
    return sorted(found, key=lambda count: (count.exchange, count.symbol, KINDS.index(count.kind)))


def _symbols_of(catalog: Catalog, namespace: str, kind: Kind, selection: EventSelection) -> Iterator[SymbolCount]:
    time_column = EVENT_TIME_COLUMN[kind]
    columns = ["exchange", "symbol", time_column]
    table = find_readable(catalog, namespace, EVENT_TABLES[kind])
    if table is None:
        return
    whole = whole_schema(table)
    reading = plan_reading(table, columns, selection, time_column)
    schema = pa.schema([whole.field(name) for name in columns])
    sql = f"""
        SELECT exchange, symbol, count(*) AS rows,
               epoch_us(min("{time_column}")) AS first_event, epoch_us(max("{time_column}")) AS last_event
        FROM events GROUP BY exchange, symbol
    """  # noqa: S608
    with duck.session(local_files(reading)) as session:
        relate(session, "events", reading, schema)
        found = session.rows(sql)
    for row in found:
        yield SymbolCount(
            row["exchange"], row["symbol"], kind, row["rows"], moment(row["first_event"]), moment(row["last_event"])
        )


def list_stats(catalog: Catalog, namespace: str, as_of: AsOf | None = None) -> list[TableStats]:
    """The size of each table that was ever made, from the metadata of its files where that suffices.

    Raises UsageError for a snapshot id: an id belongs to one table, a time to all.
    """
    return [stats for stats, _ in stats_and_sizes(catalog, namespace, as_of)]


def stats_and_sizes(catalog: Catalog, namespace: str, as_of: AsOf | None = None) -> list[tuple[TableStats, list[int]]]:
    """The same, each with the bytes of its data files."""
    if is_id(as_of):
        raise UsageError("--as-of must be a time here: a snapshot id belongs to one table only")
    return [_stats_of(table, name, snapshot_of(table, as_of)) for name, table in _tables(catalog, namespace, ())]


def list_snapshots(catalog: Catalog, namespace: str, names: Sequence[str] = ()) -> list[SnapshotInfo]:
    """The snapshots of the tables named (none: all), oldest first. Raises UsageError for an unknown name."""
    return [
        _snapshot_info(name, snapshot)
        for name, table in _tables(catalog, namespace, names)
        for snapshot in sorted(table.snapshots(), key=lambda snapshot: snapshot.timestamp_ms)
    ]


def _tables(catalog: Catalog, namespace: str, names: Sequence[str]) -> Iterator[tuple[str, Table]]:
    if unknown := [name for name in names if name not in SPECS]:
        raise UsageError(f"there is no table {', '.join(unknown)}; the tables are {', '.join(SPECS)}")
    for name in names or SPECS:
        table = find_readable(catalog, namespace, name)
        if table is not None:
            yield name, table


def _stats_of(table: Table, name: str, snapshot: Snapshot | None) -> tuple[TableStats, list[int]]:
    tasks = plan(table, EVERYTHING, snapshot)
    sizes = [int(task.file.file_size_in_bytes) for task in tasks]
    spans = [_span(table, task, TIME_COLUMNS[name]) for task in tasks]
    times = [time for span in spans if span is not None for time in span]
    stats = TableStats(
        table=name,
        snapshot_id=snapshot.snapshot_id if snapshot else None,
        rows=sum(_rows(table, task, TIME_COLUMNS[name]) for task in tasks),
        files=len(tasks),
        bytes=sum(sizes),
        first_event=moment(min(times)) if times else None,
        last_event=moment(max(times)) if times else None,
    )
    return stats, sizes


def _rows(table: Table, task: FileScanTask, column: str) -> int:
    known = file_rows(task)
    return known if known is not None else sum(int(batch.num_rows) for batch in read_file(table, task, [column]))


def _span(table: Table, task: FileScanTask, column: str) -> tuple[int, int] | None:
    """The first and last time in a file, microseconds: from its bounds, else (none, or deletes) from its rows."""
    lowest, highest = (bound_of(table, bounds, column) for bounds in (task.file.lower_bounds, task.file.upper_bounds))
    if lowest is not None and highest is not None and not task.delete_files:
        return lowest, highest
    ends = [pc.min_max(batch[column].cast(pa.int64())).as_py() for batch in read_file(table, task, [column])]
    known = [end for end in ends if end["min"] is not None]
    return (min(end["min"] for end in known), max(end["max"] for end in known)) if known else None


def _snapshot_info(name: str, snapshot: Snapshot) -> SnapshotInfo:
    summary = snapshot.summary
    details = dict(summary.additional_properties) if summary else {}
    return SnapshotInfo(
        table=name,
        snapshot_id=snapshot.snapshot_id,
        parent_id=snapshot.parent_snapshot_id,
        committed_at=moment(snapshot.timestamp_ms * 1_000),
        operation=str(summary.operation.value) if summary else None,
        added_rows=0 if replaces(snapshot) else _count(details, "added-records"),
        added_files=_count(details, "added-data-files"),
        total_rows=_count(details, "total-records"),
    )


def _count(details: dict[str, str], name: str) -> int | None:
    """The summary leaves out a count of 0, but says the totals."""
    if name in details:
        return int(details[name])
    return 0 if details and name.startswith("added-") else None
