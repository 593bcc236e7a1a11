"""Looking after the tables: data files that no snapshot has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pyarrow import fs
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from k2beam.errors import LakeError
from k2beam.lake.scan import blaming, table_name


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
    location = f"{table.location()}/data"
    # Listed before the snapshots are read: a file committed in between is not taken for an orphan.
    files = _files(table, location)
    with blaming(table_name(table), "of its metadata"):
        table = table.refresh()
    live = {_bare(path) for path in _referenced(table)}
    for found in files:
        if _bare(found.path) not in live and found.mtime <= limit:
            yield Orphan(table.name()[-1], found.path, found.size, found.mtime)


def _referenced(table: Table) -> Iterator[str]:
    """Paths of the data files of every snapshot that is kept."""
    for snapshot in table.snapshots():
        with blaming(table_name(table), snapshot.manifest_list):
            manifests = snapshot.manifests(table.io)
        for manifest in manifests:
            with blaming(table_name(table), manifest.manifest_path):
                entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
            for entry in entries:
                yield entry.data_file.file_path


def _files(table: Table, location: str) -> list[fs.FileInfo]:
    if not isinstance(table.io, PyArrowFileIO):
        raise LakeError(f"table {table.name()[-1]}: its storage is read by {type(table.io).__name__}, which can't list")
    scheme, netloc, path = PyArrowFileIO.parse_location(location, table.io.properties)
    system = table.io.fs_by_scheme(scheme, netloc)
    selector = fs.FileSelector(path, recursive=True, allow_not_found=True)
    return [found for found in system.get_file_info(selector) if found.type == fs.FileType.File]


def _bare(path: str) -> str:
    """The path without its scheme, as a file system gives it."""
    return path.split("://", 1)[-1]
