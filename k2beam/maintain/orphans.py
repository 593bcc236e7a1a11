"""Looking after the tables: data files that no snapshot has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pyiceberg.table import Table

from k2beam.lake.scan import blaming, table_name
from k2beam.lake.storage import TableFolder, manifests_of, referenced_data


@dataclass(frozen=True, slots=True)
class Orphan:
    """A data file that belongs to no snapshot: its table, path, bytes and time of writing (UTC)."""

    table: str
    path: str
    bytes: int
    modified_at: datetime


def orphans(table: Table, older_than: timedelta, now: datetime | None = None) -> Iterator[Orphan]:
    """The data files under the table that no snapshot refers to and that are older than ``older_than``.

    A crash between a file's write and its commit leaves one; its rows were written again by the
    next run. A young file may belong to a commit that is on its way, hence the age. Only lists,
    deletes nothing. Raises LakeError where the table's storage can't be listed, and UnreadableFile where its
    metadata or a manifest is gone or damaged: every file of it would be taken for an orphan.
    """
    limit = (now or datetime.now(UTC)) - older_than
    files = TableFolder(table).files("data")
    with blaming(table_name(table), "of its metadata"):
        table = table.refresh()
    live = set(referenced_data(table, manifests_of(table, table.metadata.snapshots).values()))
    for found in files:
        if found.path not in live and found.mtime <= limit:
            yield Orphan(table.name()[-1], found.path, found.size, found.mtime)
