"""What lies in a table's folder, and what of it the table's metadata refers to.

Who wants to know what nothing refers to any more lists first and reads the metadata afterwards: a file that is
committed in between is then not taken for one of those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from pyarrow import fs
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import DataFile, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from k2beam.errors import LakeError
from k2beam.lake.scan import blaming, table_name


class TableFolder:
    """The folder of one table, in whatever store it is. Raises LakeError where the store can't be listed."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._name = table_name(table)
        self._system, self._path = store_of(table, table.location())

    def files(self, part: Literal["data", "metadata"]) -> list[fs.FileInfo]:
        """The files below ``data`` or ``metadata``: bare paths, bytes and times of writing.

        Raises LakeError where the table's metadata file is not among those of ``metadata`` by its own path: then paths
        are written in a way that can't be compared, and everything would seem to be of no use.
        """
        selector = fs.FileSelector(f"{self._path}/{part}", recursive=True, allow_not_found=True)
        try:
            listed = self._system.get_file_info(selector)
        except OSError as error:
            raise LakeError(f"table {self._name}: its folder {self._path}/{part} can't be listed: {error}") from error
        files = [found for found in listed if found.type == fs.FileType.File]
        current = self._table.metadata_location
        if part == "metadata" and bare(current) not in {file.path for file in files}:
            raise LakeError(f"table {self._name}: its metadata {current} is not listed below {self._table.location()}")
        return files

    def delete(self, path: str) -> None:
        """Delete a file that :meth:`files` gave; nothing where another process was faster. Raises LakeError."""
        try:
            self._system.delete_file(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise LakeError(f"table {self._name}: file {path} can't be deleted: {error}") from error


def try_store(table: Table, name: str) -> None:
    """Write, read and delete a file in a table's ``metadata`` folder. Raises OSError where one of the three fails."""
    system, path = store_of(table, f"{table.location()}/metadata/{name}")
    with system.open_output_stream(path) as out:
        out.write(name.encode())
    try:
        with system.open_input_file(path) as file:
            content = file.read()
    finally:
        system.delete_file(path)
    if content != name.encode():
        raise OSError(f"{table.location()} gives other bytes than were written")


def store_of(table: Table, location: str) -> tuple[fs.FileSystem, str]:
    """The file system of a location of a table, and the path in it. Raises LakeError where it can't be listed."""
    if not isinstance(table.io, PyArrowFileIO):
        raise LakeError(
            f"table {table_name(table)}: its storage is read by {type(table.io).__name__}, which can't list"
        )
    scheme, netloc, path = PyArrowFileIO.parse_location(location, table.io.properties)
    return table.io.fs_by_scheme(scheme, netloc), path


def bare(location: str) -> str:
    """The path of a location as a file system gives it: ``/a`` for ``file:/a`` and ``file:///a``, ``b/a`` for ``s3://b/a``.

    As pyiceberg takes locations apart to open a file, whoever wrote them.
    """
    path: str = PyArrowFileIO.parse_location(location)[2]
    return path


def manifests_of(table: Table, snapshots: Iterable[Snapshot]) -> dict[str, ManifestFile]:
    """The manifests of some snapshots of a table, by path; each manifest list is read once.

    Raises UnreadableFile for a manifest list that is gone or damaged.
    """
    found: dict[str, ManifestFile] = {}
    for snapshot in snapshots:
        with blaming(table_name(table), snapshot.manifest_list):
            found.update((manifest.manifest_path, manifest) for manifest in snapshot.manifests(table.io))
    return found


def referenced_metadata(table: Table, manifests: Iterable[str]) -> set[str]:
    """The bare paths of what lies in ``metadata`` and belongs to the table: of all its snapshots, tags and branches.

    ``manifests``: the paths of theirs (:func:`manifests_of`).
    """
    metadata = table.metadata
    paths = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    paths.update(one.statistics_path for one in (*metadata.statistics, *metadata.partition_statistics))
    paths.update(snapshot.manifest_list for snapshot in metadata.snapshots)
    paths.update(manifests)
    return {bare(path) for path in paths}


def referenced_data(table: Table, manifests: Iterable[ManifestFile]) -> Iterator[str]:
    """The bare paths of the data and delete files that live in some manifests; each manifest is read once.

    Raises UnreadableFile for a manifest that is gone or damaged.
    """
    return (bare(file.file_path) for manifest in manifests for file in files_in(table, manifest))


def files_in(table: Table, manifest: ManifestFile) -> Iterator[DataFile]:
    """The data or delete files of a manifest, without those that it deletes.

    Raises UnreadableFile where it's gone or damaged.
    """
    with blaming(table_name(table), manifest.manifest_path):
        entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    return (entry.data_file for entry in entries)
