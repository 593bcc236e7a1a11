"""Compaction: small files of a partition become few large ones, beside jobs that write."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from k2beam.config import RetryPolicy
from k2beam.errors import LakeError
from k2beam.lake.scan import find_readable, table_name
from k2beam.lake.tables import open_table
from k2beam.lake.transaction import COMMIT_ID, Append, commit_loop
from k2beam.maintain.candidates import FileGroup, live_files, plan_groups
from k2beam.maintain.rewrite import Rewritten, rewrite_files


@dataclass(frozen=True, slots=True)
class Compaction:
    """What is to become of some small files of a partition, or what has.

    ``result`` is planned, busy (the partition was written to a short while ago: left alone), compacted, or gone (some
    of the files were replaced by somebody else meanwhile: nothing was changed). ``files_after`` is at most so many
    before the files are written, and ``bytes_after`` None. ``digest`` (32 hex digits) is that of the rows, None before.
    """

    table: str
    partition: str
    result: str
    rows: int
    files: int
    bytes: int
    files_after: int
    bytes_after: int | None = None
    digest: str | None = None


def plan_compaction(
    catalog: Catalog, namespace: str, name: str, target: int, quiet_since: int
) -> list[tuple[Compaction, FileGroup]]:
    """What :func:`compact_group` could do in a table (one of the lake's): the groups, and each as a row for people.

    Nothing where the table was never made. ``target`` is the size of a file in bytes; a partition with rows made after
    ``quiet_since`` (microseconds UTC) is busy. Raises LakeError where the table can't be read.
    """
    table = find_readable(catalog, namespace, name)
    if table is None:
        return []
    return [
        (
            Compaction(
                table=name,
                partition=group.partition,
                result="busy" if group.busy else "planned",
                rows=group.rows,
                files=len(group.files),
                bytes=group.nbytes,
                files_after=group.files_after,
            ),
            group,
        )
        for group in plan_groups(live_files(table), target, quiet_since)
    ]


def compact_group(
    catalog: Catalog,
    namespace: str,
    planned: Compaction,
    group: FileGroup,
    target: int,
    policy: RetryPolicy | None = None,
    on_read: Callable[[int], None] = lambda rows: None,
) -> Compaction:
    """Rewrite a group of files and put the new files in their place, in one snapshot; what has become of it.

    1. Write the rows anew and prove by what is read back that they are the same
       (:func:`k2beam.maintain.rewrite.rewrite_files`); nobody knows of these files yet.
    2. Load the table. Where one of the old files is not live any more, or has deletes, this group is given up.
    3. Replace the files, with the digest of the rows in the snapshot's summary, by the catalog's compare-and-swap.
    4. On a conflict or an unknown outcome wait, and begin again at 2: where it has landed, the old files are gone, and
       the new ones are there.

    No row is lost or there twice whatever happens, coverage and older snapshots stay, and a job may write meanwhile.
    Where it ends before 3, at once or by a crash, the new files are orphans, at most. Files that were offered to
    the catalog are never deleted. Raises LakeError as ``rewrite_files`` does, CommitConflict and CommitUnknown.
    """
    name = planned.table
    table = open_table(catalog, namespace, name)
    commit_id, offered = uuid.uuid4().hex, False
    with _failures_of(table, group):
        rewritten = rewrite_files(table, group.files, target, on_read)

        def plan(table: Table) -> Append | None:
            nonlocal offered
            if not _all_live(table, group):
                return None
            offered = True
            return Append(rewritten.files, summary=_summary(commit_id, group, rewritten), replaced=group.files)

        try:
            outcome = commit_loop(lambda: open_table(catalog, namespace, name), plan, policy or RetryPolicy())
        finally:
            if not offered:
                for file in rewritten.files:
                    table.io.delete(file.file_path)
    if not {file.file_path for file in rewritten.files} <= _live_paths(outcome.table):
        return replace(planned, result="gone")
    return replace(
        planned,
        result="compacted",
        files_after=len(rewritten.files),
        bytes_after=rewritten.nbytes,
        digest=str(rewritten.digest),
    )


def _summary(commit_id: str, group: FileGroup, rewritten: Rewritten) -> dict[str, str]:
    return {
        COMMIT_ID: commit_id,
        "k2.compacted.files": str(len(group.files)),
        "k2.compacted.rows": str(rewritten.digest.rows),
        "k2.compacted.digest": str(rewritten.digest),
    }


def _all_live(table: Table, group: FileGroup) -> bool:
    """Whether the table has all files of the group as they were planned, and still the partitioning that they have."""
    return {file.file_path for file in group.files} <= _live_paths(table)


def _live_paths(table: Table) -> set[str]:
    return {one.file.file_path for one in live_files(table)}


@contextmanager
def _failures_of(table: Table, group: FileGroup) -> Iterator[None]:
    """Says which files were being rewritten when the store has no room or refuses."""
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise LakeError(
            f"table {table_name(table)}, partition {group.partition or '-'}: {len(group.files)} files could not be "
            f"compacted ({error}); no row is lost: when that is mended, run it again"
        ) from error
