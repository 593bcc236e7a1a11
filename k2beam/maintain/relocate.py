"""A table's metadata for another folder: the same snapshots, files and bounds, under other paths.

What Iceberg writes is never changed, so what is rewritten gets names of its own: the same ones each time, so that
a repeated run finds what an earlier one has written. Pure, but for reading.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import fastavro

from k2beam.errors import LakeError, UnreadableFile
from k2beam.lake.place import local_path
from k2beam.lake.transaction import COMMITTED_IN

DELETED = 2
"""The status of a manifest's entry whose file the snapshot no longer has."""

POSITION_DELETES = 1
"""The content of a file that deletes rows by the path of their data file, which is then written within it."""

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PATH_PROPERTIES = ("write.data.path", "write.metadata.path", "write.object-storage.path", "write.folder-storage.path")
_FORMATS = (1, 2)


class DataFile(NamedTuple):
    """A file that a snapshot has: where it is to be in the new place, and its size in bytes (None: not recorded)."""

    path: Path
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Relocation:
    """From the warehouse folder ``old`` to ``new`` (both resolved); they may be the same.

    Files may be in either folder already: copied by hand, by an earlier run that was killed, or moved.
    """

    table: str
    old: Path
    new: Path

    def path(self, location: str) -> Path:
        """Where a file of this location belongs in the new folder.

        Raises LakeError for one that lies outside of both: a folder alone doesn't hold this table.
        """
        below = self._below(local_path(location))
        if below is None:
            raise LakeError(
                f"table {self.table} has {location}, which is outside of {self.old}: only a warehouse whose files are "
                "all in its folder can be moved or copied"
            )
        return self.new / below

    def _below(self, path: str | None) -> str | None:
        """The path within the folder, also of one that leads there through links; None for one outside."""
        for found in (path, path and os.path.realpath(path)):
            for folder in (self.old, self.new):
                start = f"{str(folder).rstrip('/')}/"
                if found is not None and found.startswith(start):
                    return found.removeprefix(start)
        return None

    def summary(self, summary: dict[str, str]) -> dict[str, str]:
        """A snapshot's summary, with the new folder as the warehouse that it was committed in."""
        return summary | ({COMMITTED_IN: str(self.new)} if summary.get(COMMITTED_IN) == str(self.old) else {})

    def source(self, location: str) -> Path:
        """Where a file of this location can be read: in the old folder, else in the new one. Raises UnreadableFile."""
        target = self.path(location)
        for path in (self.old / target.relative_to(self.new), target):
            if path.is_file():
                return path
        raise UnreadableFile(self.table, location, "is gone")

    def metadata_path(self, location: str) -> Path:
        """Where the rewritten file of a metadata file, manifest list or manifest belongs."""
        target = self.path(location)
        target = target.with_name(target.name.replace(".gz.metadata.json", ".metadata.json"))  # it's written plain
        name = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.old}\n{self.new}\n{target.name}"))
        renamed, found = _UUID.subn(name, target.name)
        return target.with_name(renamed if found else f"{name}-{target.name}")


def read_metadata(path: Path) -> dict[str, Any]:
    """The content of a table's metadata file. Raises OSError and ValueError."""
    content = path.read_bytes()
    found: dict[str, Any] = json.loads(gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content)
    return found


def relocated_metadata(relocation: Relocation, metadata: dict[str, Any]) -> dict[str, Any]:
    """A table's metadata with all paths in the new folder.

    The log of earlier metadata files begins anew: they are no part of the table's state, and stay where they are.
    Raises LakeError for a format, or a path, that can't be moved.
    """
    if "view-uuid" in metadata:
        raise LakeError(f"{relocation.table} is a view, which can't be moved or copied yet: drop it first")
    version = metadata.get("format-version")
    if version not in _FORMATS or any("manifests" in snapshot for snapshot in metadata.get("snapshots", ())):
        raise LakeError(f"table {relocation.table} has format version {version}, which can't be moved or copied yet")
    properties = metadata.get("properties", {})
    return {
        **metadata,
        "location": str(relocation.path(metadata["location"])),
        "properties": properties
        | {name: str(relocation.path(properties[name])) for name in _PATH_PROPERTIES if name in properties},
        "snapshots": [
            {
                **snapshot,
                "manifest-list": str(relocation.metadata_path(snapshot["manifest-list"])),
                **({"summary": relocation.summary(snapshot["summary"])} if "summary" in snapshot else {}),
            }
            for snapshot in metadata.get("snapshots", ())
        ],
        "metadata-log": [],
        **{
            name: [
                {**entry, "statistics-path": str(relocation.path(entry["statistics-path"]))} for entry in metadata[name]
            ]
            for name in ("statistics", "partition-statistics")
            if name in metadata
        },
    }


def statistics_files(relocation: Relocation, metadata: dict[str, Any]) -> Iterator[DataFile]:
    """The files of statistics that the metadata names."""
    for name in ("statistics", "partition-statistics"):
        for entry in metadata.get(name, ()):
            yield DataFile(relocation.path(entry["statistics-path"]), entry.get("file-size-in-bytes"))


def listed_manifests(content: bytes) -> list[str]:
    """The locations of the manifests that a manifest list names. Raises ValueError and EOFError where it's damaged."""
    return [record["manifest_path"] for record in _records(content)]


def manifest_files(relocation: Relocation, content: bytes) -> Iterator[DataFile]:
    """The files that a manifest's snapshot has; without those that it only says were deleted.

    Raises LakeError for position deletes (the paths within them can't be changed), ValueError and EOFError where
    the manifest is damaged.
    """
    for record in _records(content):
        file = record["data_file"]
        if record["status"] == DELETED:
            continue
        if file.get("content", 0) == POSITION_DELETES:
            raise LakeError(
                f"table {relocation.table} has position deletes ({file['file_path']}), which name data files by their "
                "paths: rewrite its data files without deleted rows first, it can't be moved or copied with them"
            )
        yield DataFile(relocation.path(file["file_path"]), file["file_size_in_bytes"])


def relocated_manifest(relocation: Relocation, content: bytes) -> bytes:
    """A manifest with the paths of its files in the new folder, and nothing else changed."""

    def change(record: dict[str, Any]) -> None:
        file = record["data_file"]
        file["file_path"] = str(relocation.path(file["file_path"]))

    return _rewritten(content, change)


def relocated_manifest_list(relocation: Relocation, content: bytes, size_of: Callable[[Path], int]) -> bytes:
    """A manifest list with the paths of its rewritten manifests, and their lengths (bytes, by ``size_of``)."""

    def change(record: dict[str, Any]) -> None:
        path = relocation.metadata_path(record["manifest_path"])
        record["manifest_path"], record["manifest_length"] = str(path), size_of(path)

    return _rewritten(content, change)


def _rewritten(content: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """An Avro file with changed records: the same schema, file metadata and codec."""
    records = []
    for record in _records(content):
        change(record)
        records.append(record)
    header = fastavro.block_reader(io.BytesIO(content)).metadata
    kept = {name: value for name, value in header.items() if not name.startswith("avro.")}
    out = io.BytesIO()
    schema = json.loads(header["avro.schema"])
    fastavro.writer(out, schema, records, codec=header.get("avro.codec", "null"), metadata=kept)
    return out.getvalue()


def _records(content: bytes) -> Iterator[dict[str, Any]]:
    """The records as they are stored: a date is its number of days, so that no value is lost on its way back."""
    blocks = fastavro.block_reader(io.BytesIO(content))
    schema = fastavro.parse_schema(_plain(json.loads(blocks.metadata["avro.schema"])))
    for block in blocks:
        for _ in range(block.num_records):
            yield fastavro.schemaless_reader(block.bytes_, schema)


def _plain(schema: Any) -> Any:
    """An Avro schema without its logical types."""
    if isinstance(schema, dict):
        return {name: _plain(value) for name, value in schema.items() if name != "logicalType"}
    return [_plain(part) for part in schema] if isinstance(schema, list) else schema
