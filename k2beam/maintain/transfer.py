"""The files of a table on their way from one warehouse folder to another: found, written, and checked.

A file appears under its name when it is whole and on the disk, and one that is there already stays as it is; so what
was killed is repeated. Nothing is changed in the old folder, and nothing overwritten that a table refers to.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k2beam.errors import LakeError, UnreadableFile, UsageError
from k2beam.lake.place import TablePlace
from k2beam.maintain.relocate import (
    Relocation,
    listed_manifests,
    manifest_files,
    read_metadata,
    relocated_manifest,
    relocated_manifest_list,
    relocated_metadata,
    statistics_files,
)

PARTIAL = ".partial"
"""The ending of a file that is being written."""


@dataclass(frozen=True, slots=True)
class TableFiles:
    """A table as its catalog had it at one moment, and every file that its metadata reaches.

    ``lists`` and ``manifests`` are locations as the metadata has them; ``data`` are data, delete and statistics files
    by their paths in the new folder, with their sizes (bytes).
    """

    relocation: Relocation
    place: TablePlace
    metadata: dict[str, Any]
    lists: list[str] = field(default_factory=list)
    manifests: list[str] = field(default_factory=list)
    data: dict[Path, int] = field(default_factory=dict)


@dataclass(slots=True)
class Copied:
    """What was written: files of data, and their bytes; what was there already is not counted."""

    files: int = 0
    bytes: int = 0


def survey(
    relocation: Relocation, place: TablePlace, metadata: dict[str, Any], on_step: Callable[[str], None]
) -> TableFiles:
    """Find every file that a table's metadata reaches, in the old folder or else in the new one.

    Raises UnreadableFile for a file that is gone, damaged or of another size than recorded, and LakeError for what
    can't be moved.
    """
    relocated_metadata(relocation, metadata)  # what can't be moved is refused before anything is written
    found = TableFiles(relocation, place, metadata)
    manifests: dict[str, None] = {}
    for snapshot in metadata.get("snapshots", ()):
        location = snapshot["manifest-list"]
        found.lists.append(location)
        with _reading(relocation, location):
            manifests.update(dict.fromkeys(listed_manifests(relocation.source(location).read_bytes())))
    found.manifests.extend(manifests)
    for number, location in enumerate(found.manifests, 1):
        on_step(f"{relocation.table}: reading manifest {number:,} of {len(found.manifests):,}")
        with _reading(relocation, location):
            for file in manifest_files(relocation, relocation.source(location).read_bytes()):
                found.data[file.path] = _checked_size(relocation, file.path, file.bytes)
    for file in statistics_files(relocation, metadata):
        found.data[file.path] = _checked_size(relocation, file.path, file.bytes)
    return found


def table_metadata(relocation: Relocation, place: TablePlace) -> dict[str, Any]:
    """The metadata that the catalog names. Raises UnreadableFile."""
    with _reading(relocation, place.location):
        return read_metadata(relocation.source(place.location))


def write_table(files: TableFiles, copied: Copied, on_step: Callable[[str], None]) -> Path:
    """Bring a table's files into the new folder, and return its metadata file there.

    In this order: data, manifests, manifest lists, metadata; so each file that is there names only files that are.
    Raises LakeError where the folder has no room or a file goes away meanwhile.
    """
    relocation, new = files.relocation, files.relocation.new
    for number, (path, size) in enumerate(files.data.items(), 1):
        on_step(f"{relocation.table}: data file {number:,} of {len(files.data):,}")
        _copy(relocation, relocation.source(str(path)), path, size, copied)
    for number, location in enumerate(files.manifests, 1):
        on_step(f"{relocation.table}: manifest {number:,} of {len(files.manifests):,}")
        _rewrite(relocation, location, relocated_manifest)
    on_step(f"{relocation.table}: manifest lists")
    for location in files.lists:
        _rewrite(relocation, location, lambda relocation, content: relocated_manifest_list(relocation, content, _size))
    target = relocation.metadata_path(files.place.location)
    if not target.exists():
        _write(relocation, target, json.dumps(relocated_metadata(relocation, files.metadata)).encode())
    # The names of the files, too, must be on the disk before the catalog has them.
    for folder in {above for path in (*files.data, target) for above in path.parents if above.is_relative_to(new)}:
        _sync(folder)
    return target


def refuse_links(files: TableFiles) -> None:
    """Refuse a folder of the new place that is a link, such as ``cp -r`` leaves: what is below is the old place's.

    Raises UsageError.
    """
    metadata = files.relocation.metadata_path(files.place.location)
    for folder in {path.parent for path in (*files.data, metadata)}:
        if os.path.realpath(folder) != str(folder):
            raise UsageError(f"{folder} leads out of {files.relocation.new}: put a folder in the place of the link")


def _write(relocation: Relocation, path: Path, content: bytes) -> None:
    with _writing(relocation, path) as partial:
        partial.write_bytes(content)


def _rewrite(relocation: Relocation, location: str, change: Callable[[Relocation, bytes], bytes]) -> None:
    target = relocation.metadata_path(location)
    if not target.exists():
        with _reading(relocation, location):
            content = change(relocation, relocation.source(location).read_bytes())
        _write(relocation, target, content)


def _copy(relocation: Relocation, source: Path, target: Path, size: int, copied: Copied) -> None:
    if source == target or (target.is_file() and _size(target) == size):
        return
    with _writing(relocation, target) as partial:
        shutil.copyfile(source, partial)
    if _size(target) != size:
        raise UnreadableFile(relocation.table, str(source), f"has {_size(target):,} bytes, not {size:,}")
    copied.files += 1
    copied.bytes += size


@contextmanager
def _writing(relocation: Relocation, path: Path) -> Iterator[Path]:
    """Gives the path to write to; what is written there gets its name at the end, once it is on the disk."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _sync(partial)
        partial.replace(path)
    except OSError as error:
        raise LakeError(
            f"table {relocation.table}: {path} can't be written: {error.strerror or error}; run it again when it can, "
            "what was written is kept"
        ) from error


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checked_size(relocation: Relocation, path: Path, recorded: int | None) -> int:
    size = _size(relocation.source(str(path)))
    if recorded is not None and size != recorded:
        raise UnreadableFile(relocation.table, str(path), f"has {size:,} bytes, not {recorded:,}")
    return size


def _size(path: Path) -> int:
    return path.stat().st_size


@contextmanager
def _reading(relocation: Relocation, location: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError, KeyError, TypeError, IndexError, StopIteration) as error:
        reason = "is gone" if isinstance(error, FileNotFoundError) else f"can't be read: {error}"
        raise UnreadableFile(relocation.table, location, reason) from error
