"""Finds, and deletes, files that nothing of a table refers to any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pyiceberg.table import Table

from k2beam.lake.foreign import refuse_foreign
from k2beam.lake.scan import blaming, table_name
from k2beam.lake.storage import TableFolder, manifests_of, referenced_data, referenced_metadata
from k2beam.lake.sweep import GRACE_SECONDS
from k2beam.lake.transaction import REPLACED_AT


@dataclass(frozen=True, slots=True)
class UnusedFile:
    """A file that belongs to no snapshot that is kept: its table, path, bytes and time of writing (UTC)."""

    table: str
    path: str
    bytes: int
    modified_at: datetime


def orphans(table: Table, older_than: timedelta, now: datetime | None = None) -> list[UnusedFile]:
    """The files in the table's ``data`` and ``metadata`` that no snapshot refers to, older than ``older_than``.

    A crash between a file's write and its commit leaves one; its rows were written again by the next run. A young
    file may belong to a commit that is on its way, hence the age. Each manifest is read once.

    Raises LakeError where the table's storage can't be listed or another warehouse may have files of it
    (:mod:`k2beam.lake.foreign`), and UnreadableFile where its metadata or a manifest is gone or damaged: every file of
    it would be taken for an orphan.
    """
    # Listed before the snapshots are read: a file committed in between is not taken for an orphan.
    files = old_files(_fresh(table), older_than, now)
    table = _fresh(table)
    refuse_foreign(table)
    manifests = manifests_of(table, table.metadata.snapshots)
    live = referenced_metadata(table, manifests)
    live.update(referenced_data(table, manifests.values()))
    return [file for file in files if file.path not in live]


def _fresh(table: Table) -> Table:
    with blaming(table_name(table), "of its metadata"):
        return table.refresh()


def old_files(table: Table, older_than: timedelta, now: datetime | None = None) -> list[UnusedFile]:
    """The files in the table's ``data`` and ``metadata`` that were written ``older_than`` ago or before, used or not.

    Without those of ``data`` for a grace after files were replaced: a query that began before may read them still.
    """
    now = now or datetime.now(UTC)
    limit = now - older_than
    folder, name = TableFolder(table), table.name()[-1]
    replaced = datetime.fromtimestamp(int(table.properties.get(REPLACED_AT, 0)) / 1000, UTC)
    parts: list[Literal["data", "metadata"]] = ["metadata"]
    if now - replaced >= timedelta(seconds=GRACE_SECONDS):
        parts.append("data")
    found = [file for part in parts for file in folder.files(part)]
    return [UnusedFile(name, file.path, file.size, file.mtime) for file in found if file.mtime <= limit]


def delete_files(
    table: Table, files: Iterable[UnusedFile], on_delete: Callable[[UnusedFile], None] = lambda file: None
) -> None:
    """Delete files of a table's folder; one that is gone already is passed over. Raises LakeError."""
    folder = TableFolder(table)
    for file in files:
        folder.delete(file.path)
        on_delete(file)
