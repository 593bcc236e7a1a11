"""Looks whether everything that a table's snapshots refer to is there, as large and with as many rows as they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile, FileFormat, ManifestFile
from pyiceberg.table import Table

from k2beam.errors import UnreadableFile
from k2beam.lake.scan import blaming, other_rows, read_error, table_name
from k2beam.lake.storage import TableFolder, bare, files_in, manifests_of


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of a table that is not as its metadata says: the table, the path, and what is wrong."""

    table: str
    path: str
    problem: str


def verify(table: Table, on_file: Callable[[DataFile], None] = lambda file: None) -> Iterator[Damage]:
    """What is lost or damaged of the files of all snapshots, tags and branches; nothing where all is well.

    Each manifest list, manifest and data file is looked at once: data files for their size and, Parquet's, the rows
    that their footers tell. Values are not read: that is the audit's. Snapshots that were expired meanwhile count no
    more: their files may be deleted. Reads only.
    """
    found: list[Damage] = []
    sizes = {file.path: file.size for file in TableFolder(table).files("data")}
    for file in _files(table, lambda error: found.append(_damage(table, error))):
        problem = _problem(table, file, sizes.get(bare(file.file_path)))
        on_file(file)
        if problem is not None:
            found.append(Damage(table.name()[-1], file.file_path, problem))
    yield from _without_expired(table, found) if found else ()


def _without_expired(table: Table, found: list[Damage]) -> list[Damage]:
    """The damages without those of snapshots that were expired since ``table`` was loaded."""
    known = _snapshot_ids(table)
    with blaming(table_name(table), "of its metadata"):
        table = table.refresh()
    if known <= _snapshot_ids(table):
        return found
    unreadable: list[str] = []
    live = {file.file_path for file in _files(table, lambda error: unreadable.append(error.path))}
    return [damage for damage in found if damage.path in live or damage.path in unreadable]


def _snapshot_ids(table: Table) -> set[int]:
    return {snapshot.snapshot_id for snapshot in table.metadata.snapshots}


def _files(table: Table, on_unreadable: Callable[[UnreadableFile], None]) -> Iterator[DataFile]:
    """The data and delete files of all snapshots, tags and branches, each once.

    ``on_unreadable`` hears of each manifest list and manifest that is gone or damaged.
    """
    manifests: dict[str, ManifestFile] = {}
    for snapshot in table.metadata.snapshots:
        try:
            manifests.update(manifests_of(table, [snapshot]))
        except UnreadableFile as error:
            on_unreadable(error)
    seen: set[str] = set()
    for manifest in manifests.values():
        try:
            files = list(files_in(table, manifest))
        except UnreadableFile as error:
            on_unreadable(error)
            continue
        for file in files:
            if file.file_path not in seen:
                seen.add(file.file_path)
                yield file


def _damage(table: Table, error: UnreadableFile) -> Damage:
    return Damage(table.name()[-1], error.path, error.reason)


def _problem(table: Table, file: DataFile, listed: int | None) -> str | None:
    """What is wrong with a data or delete file, ``listed`` with so many bytes (None: not in the table's folder)."""
    source = table.io.new_input(file.file_path)
    try:
        size = len(source) if listed is None else listed
        if size != file.file_size_in_bytes:
            return f"has {size:,} bytes, but the snapshot says {file.file_size_in_bytes:,}"
        if file.file_format != FileFormat.PARQUET:
            return None
        with source.open() as stream:
            rows = pq.read_metadata(stream).num_rows
    except (OSError, pa.ArrowInvalid) as error:
        found = read_error(table_name(table), file.file_path, error)
        if isinstance(found, UnreadableFile):
            return found.reason
        raise found from error
    return None if rows == file.record_count else other_rows(rows, file.record_count)
