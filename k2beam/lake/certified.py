"""What is remembered of the days of event tables, so that a recount reads only days that have changed.

A row of ``certified_days`` holds a day of one exchange: the digest of its data files, and the slice of each symbol. It
is believed where the day has the same files still, whoever wrote the row and whenever. So it is a cache: a row that is
lost, damaged or out of date costs time, and never makes an answer wrong.

Rows are kept by month. A month is written anew, and its old files removed in the same commit, once most of its rows
are out of date or it has many files; so the table does not grow with the number of jobs.
"""

from __future__ import annotations

import hashlib
import itertools
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import Any, NamedTuple

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import FileScanTask, Table

from k2beam.clock import MICROS_PER_DAY, now_us
from k2beam.config import Retention, RetryPolicy
from k2beam.errors import LakeError
from k2beam.lake.days import DayFiles, DaySlices
from k2beam.lake.files import StagedFile, write_rows
from k2beam.lake.observe import CommitObserver
from k2beam.lake.runs import RUN_ID
from k2beam.lake.scan import find_readable, partition_value, plan_files, read_file
from k2beam.lake.tables import CERTIFIED_DAYS, CERTIFIED_SCHEMA, open_table
from k2beam.lake.transaction import COMMIT_ID, ROWS_ADDED, UNKNOWN_OUTCOME, Append, commit_loop
from k2beam.logs import get_logger
from k2beam.metrics.config import DEFAULT_METRICS, MetricsConfig
from k2beam.model import CommitReceipt, Kind
from k2beam.sequence import Slice, unpack_slices

SMALL_DAY_BYTES = 1 << 20
WORTH_BYTES_A_ROW = 2
"""A day that takes more than both is not remembered: numbers in disorder are read again as quickly as unpacked."""

MOST_FILES = 8
"""A month with so many files is written anew."""

_NOT_WRITTEN = (*UNKNOWN_OUTCOME, LakeError, CommitFailedException, pa.ArrowException)
_FILE_BYTES = 64 << 20
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_DAY = (datetime(9999, 12, 31, tzinfo=UTC) - _FIRST).days

Month = tuple[Kind, int]
"""Kind, and months since January 1970, as Iceberg counts them."""


class _Place(NamedTuple):
    date: datetime
    exchange: str


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the table, as it is written."""

    kind: Kind
    day: int
    exchange: str
    digest: str
    snapshot_id: int
    rows: int
    unsequenced: int
    symbols: list[str]
    slices: list[bytes]
    certified_at: int
    checksum: str = ""

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.slices)) + sum(map(len, self.symbols))

    def summed(self) -> str:
        """Its checksum; a digest of files says nothing of a row that was damaged."""
        told = hashlib.sha256(repr((self.kind, self.day, self.exchange, self.digest)).encode())
        told.update(repr((self.rows, self.unsequenced, self.symbols, list(map(len, self.slices)))).encode())
        told.update(b"".join(self.slices))
        return told.hexdigest()[:32]

    def content(self) -> dict[tuple[str, str], Slice]:
        return {(self.exchange, name): Slice(data) for name, data in zip(self.symbols, self.slices, strict=True)}


class CertifiedDays:
    """What is remembered of the days of one namespace, asked in order of kind and day.

    ``believe``: give what is remembered; otherwise it is only compared with what is noted. ``keep``: what is noted is
    written month by month, and committed by :meth:`save`; without it nothing is ever written. Nothing here raises for a
    table that can't be read or written: then nothing is remembered, and ``trouble`` says why. ``remembered`` and
    ``read`` count days; ``wrong`` names days whose rows say something else than what is remembered of the same files.
    """

    def __init__(self, catalog: Catalog, namespace: str, *, believe: bool = True, keep: bool = False) -> None:
        self.remembered = 0
        self.read = 0
        self.wrong: list[str] = []
        self.trouble = ""
        self._catalog = catalog
        self._namespace = namespace
        self._believe = believe
        self._keep = keep
        self._month: Month | None = None
        self._known: dict[str, _Row] = {}
        self._live: set[str] = set()  # digests of this month that are up to date
        self._spoiled = False  # the month has a row or a file that can't be used
        self._seen = 0
        self._fresh: list[_Row] = []
        self._staged: list[StagedFile] = []
        self._removed: set[str] = set()

    def find(self, day: DayFiles) -> DaySlices | None:
        """What is remembered of exactly these files; None where they must be read."""
        row = None
        if (place := _place(day)) is not None:
            self._turn_to(day.kind, place)
            row = self._known.get(day.digest)
        if row is not None:
            self._live.add(row.digest)
        if row is None or not self._believe:
            self.read += 1
            return None
        self.remembered += 1
        return row.content()

    def note(self, day: DayFiles, slices: DaySlices, snapshot_id: int) -> None:
        """Take note of what the files of ``day`` hold, all of them, after :meth:`find` was asked for it."""
        place = _place(day)
        known = self._known.get(day.digest)
        if place is None or (known is None and not self._keep) or (known and known.content() == slices):
            return
        if known is not None:
            self.wrong.append(f"{day.kind} of {place.exchange} on {place.date:%Y-%m-%d}")
            self._live.discard(day.digest)
            self._spoiled = True
        row = _row(day, place, slices, snapshot_id)
        if self._keep and row.nbytes <= max(SMALL_DAY_BYTES, WORTH_BYTES_A_ROW * row.rows):
            self._fresh.append(row)

    def save(
        self, *, run_id: str = "", policy: RetryPolicy | None = None, metrics: MetricsConfig = DEFAULT_METRICS
    ) -> CommitReceipt | None:
        """Commit what was noted, and forget what is wrong; None where there is nothing to commit, or it failed.

        Any number of writers may do so at once: each adds rows that are true of their files. The commit is counted as
        ``metrics`` says, and logged.
        """
        self._leave()
        if not (self._staged or self._removed):
            return None
        observer = CommitObserver(metrics)
        try:
            with observer.failures_counted(CERTIFIED_DAYS):
                receipt = self._commit(run_id, policy or RetryPolicy(), observer)
        except _NOT_WRITTEN as error:  # the rows are there, and the next recount reads them
            self._fail("written", error)
            return None
        observer.committed(receipt)
        return receipt

    @cached_property
    def _files(self) -> dict[Month, list[FileScanTask]]:
        months: dict[Month, list[FileScanTask]] = defaultdict(list)
        try:
            if self._table is not None:
                for task in plan_files(self._table):
                    kind, month = (
                        partition_value(self._table, task, column, transform)
                        for column, transform in (("kind", "identity"), ("day", "month"))
                    )
                    months[kind, month].append(task)
        except (LakeError, ValueError) as error:
            self._fail("read", error)
        return months

    @cached_property
    def _table(self) -> Table | None:
        return find_readable(self._catalog, self._namespace, CERTIFIED_DAYS)

    def _turn_to(self, kind: Kind, place: _Place) -> None:
        month: Month = (kind, (place.date.year - 1970) * 12 + place.date.month - 1)
        if month == self._month:
            return
        self._leave()
        self._month = month
        for row in self._read(self._files.get(month, ())):
            self._seen += 1
            if row.summed() == row.checksum:
                self._known[row.digest] = row
            else:
                self._spoiled = True

    def _read(self, files: Iterable[FileScanTask]) -> Iterator[_Row]:
        for task in files:
            assert self._table is not None
            try:
                for batch in read_file(self._table, task, CERTIFIED_SCHEMA.names):
                    yield from _rows(batch)
            except (LakeError, ValueError) as error:
                self._spoiled = True
                self._fail("read", error)

    def _leave(self) -> None:
        """Write what is to be remembered of the month, and forget the month."""
        rows, removed = self._fresh, set()
        if self._keep and self._month is not None:
            files = self._files.get(self._month, ())
            outdated = self._seen - len(self._live)
            if self._spoiled or (rows and (outdated > len(self._live) or len(files) >= MOST_FILES)):
                rows = [*(self._known[digest] for digest in sorted(self._live)), *rows]
                removed = {str(task.file.file_path) for task in files}
        if rows or removed:
            try:
                self._write(rows)
                self._removed |= removed
            except _NOT_WRITTEN as error:
                self._fail("written", error)
        self._month, self._known, self._live, self._fresh = None, {}, set(), []
        self._seen, self._spoiled = 0, False

    def _write(self, rows: list[_Row]) -> None:
        table = open_table(self._catalog, self._namespace, CERTIFIED_DAYS)
        while rows:
            ends = itertools.accumulate(row.nbytes for row in rows)
            count = max(sum(1 for end in ends if end <= _FILE_BYTES), 1)
            self._staged.extend(write_rows(table, _arrow(rows[:count]), window=0))
            rows = rows[count:]

    def _commit(self, run_id: str, policy: RetryPolicy, observer: CommitObserver) -> CommitReceipt:
        started = time.monotonic_ns()
        added = [file.data_file() for file in self._staged]
        rows = sum(file.rows for file in self._staged)
        summary = {RUN_ID: run_id, COMMIT_ID: uuid.uuid4().hex, ROWS_ADDED: str(rows)}

        def plan(table: Table) -> Append | None:
            present = {str(task.file.file_path): task.file for task in plan_files(table)}
            removed = [present[path] for path in sorted(self._removed & present.keys())]
            landed = any(str(file.file_path) in present for file in added)
            return (
                None
                if landed or not (added or removed)
                else Append(added, summary=summary, replaced=removed, rows_change=True, retention=Retention())
            )

        outcome = commit_loop(
            lambda: open_table(self._catalog, self._namespace, CERTIFIED_DAYS),
            plan,
            policy,
            partial(observer.retried, CERTIFIED_DAYS),
        )
        before, after = outcome.ids(outcome.landed(summary))
        return CommitReceipt(
            table=CERTIFIED_DAYS,
            snapshot_before=before,
            snapshot_after=after,
            rows=rows,
            files=len(added),
            bytes=sum(file.nbytes for file in self._staged),
            duration_us=(time.monotonic_ns() - started) // 1000,
            attempts=outcome.attempts,
            rows_left_out=0,
            coverage_digest="",
        )

    def _fail(self, verb: str, error: Exception) -> None:
        self.trouble = f"certified_days can't be {verb} ({error}); days that are not remembered are read"
        get_logger("recount").warning(self.trouble)


def _place(day: DayFiles) -> _Place | None:
    """The day and exchange of a day that can be remembered: files say them, and a date can hold them."""
    if day.day is None or day.exchange is None or not 0 <= day.day <= _LAST_DAY:
        return None
    return _Place(_FIRST + timedelta(days=day.day), day.exchange)


def _row(day: DayFiles, place: _Place, slices: DaySlices, snapshot_id: int) -> _Row:
    named = sorted((symbol, piece) for (_, symbol), piece in slices.items())
    messages, nulls, _ = unpack_slices([piece for _, piece in named])
    row = _Row(
        kind=day.kind,
        day=(place.date - _FIRST).days,
        exchange=place.exchange,
        digest=day.digest,
        snapshot_id=snapshot_id,
        rows=messages,
        unsequenced=nulls,
        symbols=[symbol for symbol, _ in named],
        slices=[piece.data for _, piece in named],
        certified_at=now_us(),
    )
    return replace(row, checksum=row.summed())


def _arrow(rows: list[_Row]) -> pa.Table:
    columns = {field.name: pa.array([_cell(row, field.name) for row in rows], field.type) for field in CERTIFIED_SCHEMA}
    return pa.table(columns, schema=CERTIFIED_SCHEMA)


def _cell(row: _Row, name: str) -> object:
    return row.day * MICROS_PER_DAY if name == "day" else getattr(row, name)


def _rows(batch: pa.RecordBatch) -> Iterator[_Row]:
    columns: list[list[Any]] = [
        (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
        for column in batch.columns
    ]
    for values in zip(*columns, strict=True):
        row = _Row(*values)
        yield replace(row, day=row.day // MICROS_PER_DAY)
