"""How fresh and how large the tables are, from metadata: the cost does not depend on the rows.

A snapshot's manifests and data files never change, so each is read once and remembered for as long as the current
snapshot has it. A table that nobody wrote to costs the look at its metadata and nothing more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pyiceberg.manifest import DataFile, ManifestContent, ManifestFile
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Snapshot

from k2beam.lake.ledger import read_ledger
from k2beam.lake.scan import bound_of, plan_files, read_file
from k2beam.lake.storage import files_in, manifests_of
from k2beam.lake.tables import EVENT_TABLES
from k2beam.lake.transaction import replaces
from k2beam.schemas import EVENT_TIME_COLUMN

SMALL_BYTES = 1 << 20
"""A data file of fewer bytes is small: readers pay for opening it more than for its rows."""

_EVENT_TIMES = {table: EVENT_TIME_COLUMN[kind] for kind, table in EVENT_TABLES.items()}

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Files:
    """What some data files hold: rows, files, bytes, files below :data:`SMALL_BYTES`, newest event.

    ``newest_event`` is microseconds UTC; None where no file says (no event table, no statistics).
    """

    rows: int = 0
    files: int = 0
    bytes: int = 0
    small: int = 0
    newest_event: int | None = None

    def __add__(self, other: Files) -> Files:
        times = [time for time in (self.newest_event, other.newest_event) if time is not None]
        return Files(
            self.rows + other.rows,
            self.files + other.files,
            self.bytes + other.bytes,
            self.small + other.small,
            max(times, default=None),
        )


@dataclass(frozen=True, slots=True)
class TableState:
    """One table now. ``last_commit`` is when rows were last committed, in microseconds UTC; None before the first.

    A compaction is no such commit. Where only compactions are left of the snapshots, it's the time of the first of
    them: rows were committed before that.
    """

    last_commit: int | None
    snapshots: int
    data: Files


@dataclass(frozen=True, slots=True)
class OpenGaps:
    """The gaps that are not FILLED: how many by (kind, severity), and the messages missing in them by kind."""

    gaps: Mapping[tuple[str, str], int]
    missing: Mapping[str, int]


class TableReader:
    """Reads the state of one table again and again; only manifests that it has not seen are opened."""

    def __init__(self, name: str) -> None:
        self._time_column = _EVENT_TIMES.get(name)
        self._seen: _Remembered[str, Files] = _Remembered()

    def read(self, table: Table) -> TableState:
        """The state of ``table``. Rows that delete files take away are counted still: k2beam writes none.

        Raises UnreadableFile when the manifest list or a manifest is gone or damaged.
        """
        snapshot = table.current_snapshot()
        if snapshot is None:
            return TableState(None, 0, Files())
        manifests = manifests_of(table, [snapshot])
        data = {path: one for path, one in manifests.items() if one.content == ManifestContent.DATA}
        digests = self._seen.only(data, lambda path: self._digest(table, data[path]))
        return TableState(_last_commit(table.snapshots()), len(table.metadata.snapshots), sum(digests, Files()))

    def _digest(self, table: Table, manifest: ManifestFile) -> Files:
        return sum((self._of_file(table, file) for file in files_in(table, manifest)), Files())

    def _of_file(self, table: Table, file: DataFile) -> Files:
        size = int(file.file_size_in_bytes)
        return Files(int(file.record_count), 1, size, int(size < SMALL_BYTES), self._newest(table, file))

    def _newest(self, table: Table, file: DataFile) -> int | None:
        return None if self._time_column is None else bound_of(table, file.upper_bounds, self._time_column)


class GapReader:
    """Counts the open gaps of the ledger; a ledger at the same snapshot is not read twice."""

    def __init__(self) -> None:
        self._seen: _Remembered[int | None, OpenGaps] = _Remembered()

    def read(self, ledger: Table) -> OpenGaps:
        """The open gaps by each gap's highest revision. Raises LakeError for an unreadable file."""
        (found,) = self._seen.only([ledger.metadata.current_snapshot_id], lambda _: _count_gaps(ledger))
        return found


class DeadLetterReader:
    """Counts the rows of the dead letters by (stage, error class); a data file is read once, and two columns of it."""

    def __init__(self) -> None:
        self._tables: _Remembered[int | None, Counter[tuple[str, str]]] = _Remembered()
        self._files: _Remembered[tuple[str, ...], Counter[tuple[str, str]]] = _Remembered()

    def read(self, table: Table) -> Mapping[tuple[str, str], int]:
        """The counts of the current snapshot, hidden dead letters included. Raises LakeError for an unreadable file."""
        (found,) = self._tables.only([table.metadata.current_snapshot_id], lambda _: self._count(table))
        return found

    def _count(self, table: Table) -> Counter[tuple[str, str]]:
        tasks = {_identity(task): task for task in plan_files(table)}
        total: Counter[tuple[str, str]] = Counter()
        for counts in self._files.only(tasks, lambda key: _count_dead_letters(table, tasks[key])):
            total.update(counts)
        return total


class _Remembered(Generic[K, V]):
    """Values by key, made when first asked for and forgotten when no longer asked for."""

    def __init__(self) -> None:
        self._values: dict[K, V] = {}

    def only(self, keys: Iterable[K], make: Callable[[K], V]) -> list[V]:
        """The values of ``keys``; those of all other keys are forgotten."""
        self._values = {key: self._values[key] if key in self._values else make(key) for key in keys}
        return list(self._values.values())


def _last_commit(snapshots: Sequence[Snapshot]) -> int:
    commits = [snapshot.timestamp_ms for snapshot in snapshots if _adds(snapshot)]
    return 1_000 * (max(commits) if commits else min(snapshot.timestamp_ms for snapshot in snapshots))


def _adds(snapshot: Snapshot) -> bool:
    """Whether it brought rows: a compaction does not, nor does what is recorded in properties."""
    summary = snapshot.summary
    return not replaces(snapshot) and (summary is None or "added-data-files" in summary.additional_properties)


def _count_gaps(ledger: Table) -> OpenGaps:
    gaps: Counter[tuple[str, str]] = Counter()
    missing: Counter[str] = Counter()
    for gap in read_ledger(ledger):
        if gap.status != "FILLED":
            gaps[gap.kind, gap.severity] += 1
            missing[gap.kind] += gap.missing_count
    return OpenGaps(gaps, missing)


def _identity(task: FileScanTask) -> tuple[str, ...]:
    """What decides the rows of a file: its path, and those of the delete files that apply to it."""
    return str(task.file.file_path), *sorted(str(file.file_path) for file in task.delete_files)


def _count_dead_letters(table: Table, task: FileScanTask) -> Counter[tuple[str, str]]:
    return Counter(pair for pair in _stages_and_classes(table, task))


def _stages_and_classes(table: Table, task: FileScanTask) -> Iterator[tuple[str, str]]:
    for batch in read_file(table, task, ("stage", "error_class")):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
