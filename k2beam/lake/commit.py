"""Commits data files with their coverage, exactly once.

A commit is one snapshot of one table, and the same transaction updates the coverage. Before it
the coverage of the fresh table is compared with that of the files, so a file (or a part of one)
whose offsets were taken meanwhile is left out.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from k2beam.clock import now_us
from k2beam.config import Retention, RetryPolicy
from k2beam.coverage import PROPERTY_PREFIX, Coverage
from k2beam.errors import LakeError, UnreadableFile
from k2beam.lake.files import StagedFile, rewrite_without
from k2beam.lake.retire import without_sources
from k2beam.lake.runs import RUN_ID
from k2beam.lake.scan import find_readable, table_name
from k2beam.lake.tables import COVERED_TABLES, EVENT_TABLES, EXPECTED_PREFIX, open_table
from k2beam.lake.transaction import COMMIT_ID, ROWS_ADDED, Append, commit_loop
from k2beam.model import CommitReceipt

LARGE_PROPERTY = 64 << 10
"""Characters from which the coverage of a source partition is large."""

SHARED_EVERY = 10
"""A large one is shared by each tenth commit: it takes a look at the other tables."""

WAITED_LONG_US = 3_600_000_000
"""What waited so long for its commit may have been deleted as an orphan: it's looked for before it's committed."""


@dataclass(frozen=True, slots=True)
class UncoveredFiles:
    """What is left of some staged files once the covered offsets are taken out."""

    files: tuple[StagedFile, ...]
    coverage: Coverage
    rows_left_out: int
    offsets_left_out: int

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        return sum(file.nbytes for file in self.files)

    @property
    def windows(self) -> tuple[int, ...]:
        return tuple(sorted({file.window for file in self.files}))

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(sorted({source for file in self.files for source, _ in file.coverage}))

    @property
    def element_times(self) -> tuple[tuple[int, int], ...]:
        return tuple(
            (file.oldest, file.newest) for file in self.files if file.oldest is not None and file.newest is not None
        )


def select(table: Table, staged: Sequence[StagedFile], covered: Coverage) -> UncoveredFiles:
    """Leave out what is ``covered`` and what an earlier one of the ``staged`` files has.

    A file wholly covered is forgotten, not deleted: it may be live already. A file partly covered is written anew
    without the covered rows, and so is one of before the table's partition spec changed.
    """
    taken, added = covered.copy(), Coverage()
    files: list[StagedFile] = []
    for file in staged:
        fresh = [file]
        coverage = Coverage.from_bytes(file.coverage)
        if coverage.issubset(taken):
            fresh = []
        elif coverage.intersects(taken) or file.spec_id != table.metadata.default_spec_id:
            fresh = rewrite_without(table, file, taken)
        for one in fresh:
            files.append(one)
            added.update(Coverage.from_bytes(one.coverage))
        taken.update(coverage)
    return UncoveredFiles(
        tuple(files),
        added,
        rows_left_out=sum(file.came for file in staged) - sum(file.rows for file in files),
        offsets_left_out=sum(file.offsets for file in staged) - len(added),
    )


def commit_files(
    catalog: Catalog,
    namespace: str,
    name: str,
    staged: Sequence[StagedFile],
    *,
    run_id: str,
    policy: RetryPolicy,
    retention: Retention | None = None,
    retired: Collection[str] = (),
    on_retry: Callable[[str], None] = lambda reason: None,
) -> CommitReceipt:
    """Commit staged files of one table in one snapshot, together with their coverage.

    1. Load the table anew. It's refused where pyiceberg's own retries are on.
    2. Compare each staged file with the table's coverage, and with the files before it in this commit: what is covered
       is left out. Where nothing is left, the commit is done, without a snapshot.
    3. In one transaction, set the properties of the touched source partitions and append the files, with the ids of run
       and commit, counts and a digest in the snapshot's summary; ``retention`` says which snapshots it leaves. Rows
       of ``retired`` sources leave in it.
    4. Commit by the catalog's compare-and-swap.
    5. On a conflict or an unknown outcome wait, and begin again at 1: the coverage tells what has landed.

    Exactly once: repeating it, at once or after a crash, with the same or overlapping files, adds nothing twice.
    ``on_retry`` hears the reason of each further try. Raises CommitConflict and CommitUnknown when the tries of
    ``policy`` are used up; no file was deleted then, and running it again is right. Raises UnreadableFile for a file
    that waited for over an hour and is gone: nothing is committed then.
    """
    started = time.monotonic_ns()
    summary = {RUN_ID: run_id, COMMIT_ID: uuid.uuid4().hex}
    selections: list[UncoveredFiles] = []

    def plan(table: Table) -> Append | None:
        covered = Coverage.from_properties(table.properties)
        selection = select(table, staged, covered)  # step 2
        if not selection.files:
            return None
        _require_files(table, selection.files)
        selections.append(selection)
        merged = covered | selection.coverage
        change = _append(table, selection, merged, summary)  # step 3
        if _is_to_be_shared(table, change):
            # Without them the coverage is as right, and large.
            with contextlib.suppress(LakeError):
                others = read_coverage(catalog, namespace, [other for other in EVENT_TABLES.values() if other != name])
                change = _append(table, selection, merged | others, summary)
        change = replace(change, retention=retention)
        return without_sources(table, change, retired) if retired else change

    # Steps 1, 4 and 5 are the loop's.
    outcome = commit_loop(lambda: open_table(catalog, namespace, name), plan, policy, on_retry)
    commit = outcome.landed(summary)
    before, after = outcome.ids(commit)
    landed = selections[-1] if commit is not None else None
    came, offsets = sum(file.came for file in staged), sum(file.offsets for file in staged)
    return CommitReceipt(
        table=name,
        snapshot_before=before,
        snapshot_after=after,
        rows=landed.rows if landed else 0,
        files=len(landed.files) if landed else 0,
        bytes=landed.bytes if landed else 0,
        duration_us=(time.monotonic_ns() - started) // 1000,
        attempts=outcome.attempts,
        rows_left_out=landed.rows_left_out if landed else came,
        coverage_digest=landed.coverage.digest() if landed else "",
        windows=landed.windows if landed else (),
        sources=landed.sources if landed else (),
        element_times=landed.element_times if landed else (),
        offsets_left_out=landed.offsets_left_out if landed else offsets,
    )


def read_coverage(catalog: Catalog, namespace: str, tables: Iterable[str] = COVERED_TABLES) -> Coverage:
    """The coverage of all ``tables`` together; a table that was never made covers nothing.

    Raises UnreadableFile where a table's metadata is gone or damaged, LakeError for a property that is damaged.
    """
    coverage = Coverage()
    for name in tables:
        table = find_readable(catalog, namespace, name)
        if table is not None:
            coverage.update(Coverage.from_properties(table.properties))
    return coverage


def _is_to_be_shared(table: Table, change: Append) -> bool:
    """Whether the coverage is to take in what the other event tables cover, which makes it small.

    Of a source whose messages are of several kinds each table has offsets here and there, which take much room; all
    of them together are nearly all, and take little. An offset that is in one of these tables can't come into another,
    so to cover it there too changes nothing. The dead letters are apart: an offset of theirs may become an event.
    """
    if table.name()[-1] not in EVENT_TABLES.values() or table.metadata.next_sequence_number() % SHARED_EVERY:
        return False
    coverage = (text for name, text in change.properties.items() if name.startswith(PROPERTY_PREFIX))
    return max(map(len, coverage), default=0) >= LARGE_PROPERTY


def _require_files(table: Table, files: Iterable[StagedFile]) -> None:
    """Look whether files that waited long are there still. Raises UnreadableFile."""
    limit = now_us() - WAITED_LONG_US
    for file in files:
        if file.written_at < limit and not table.io.new_input(file.path).exists():
            raise UnreadableFile(
                table_name(table),
                file.path,
                "waited so long for its commit that it was deleted as an orphan; start the job anew without a "
                "checkpoint or savepoint, and its offsets are read again",
            )


def _append(table: Table, selection: UncoveredFiles, covered: Coverage, summary: Mapping[str, str]) -> Append:
    """What the selection adds; ``covered`` is what the source partitions that it touches cover then."""
    return Append(
        files=[file.data_file() for file in selection.files],
        properties={**covered.to_properties(only=selection.coverage), **_expected(table, selection)},
        summary={
            **summary,
            ROWS_ADDED: str(selection.rows),
            "k2.rows-left-out": str(selection.rows_left_out),
            "k2.coverage-digest": selection.coverage.digest(),
        },
    )


def _expected(table: Table, selection: UncoveredFiles) -> dict[str, str]:
    """Where sources end, by what their readers found; an end never moves back."""
    ends: dict[str, int] = {}
    for file in selection.files:
        for extent in file.expected:
            name = f"{EXPECTED_PREFIX}{extent.partition}.{extent.source}"
            ends[name] = max(extent.end, ends.get(name, 0), int(table.properties.get(name, 0)))
    return {name: str(end) for name, end in ends.items()}
