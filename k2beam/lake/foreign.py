"""Metadata files that another catalog wrote into a table's folder: the data files that they name may be live there."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

from pyarrow import fs
from pyiceberg.table import Table

from k2beam.errors import LakeError
from k2beam.lake.scan import blaming, table_name
from k2beam.lake.storage import store_of
from k2beam.lake.transaction import COMMITTED_IN, warehouse_of

_SUFFIX = ".metadata.json"


def foreign_metadata(table: Table) -> list[str]:
    """Paths of the metadata files in the table's folder by which another warehouse may have the table, sorted.

    So it is after ``cp -r`` of a warehouse, if the copy was then written to. A file is the table's own if one of these
    holds; each file that is left has a snapshot that this table never had:

    - it's the current one, in the log of earlier ones, or in the log of one of those, as far as they are there;
    - all its snapshots are, or were, this table's: a file that a crash left behind when it was to be deleted;
    - the snapshots that are not were committed, or were to be, in this warehouse: what a lost race or a crash left;
    - it's not whole: no catalog ever had it.

    Only k2beam says where it commits: what another program left when it crashed is named too.

    Raises LakeError where the folder can't be listed, UnreadableFile where a file of it can't be read.
    """
    system, folder = store_of(table, table.metadata_location.rpartition("/")[0])
    selector = fs.FileSelector(folder, allow_not_found=True)
    there = {
        PurePosixPath(found.path).name: found.path
        for found in system.get_file_info(selector)
        if found.type == fs.FileType.File and found.path.endswith(_SUFFIX)
    }
    with blaming(table_name(table), "of its metadata"):
        own = _chain(table, system, there)
        strangers = [path for name, path in sorted(there.items()) if name not in own]
        return [path for path in strangers if _is_foreign(table, _read(system, path))]


def refuse_foreign(table: Table) -> None:
    """Raises LakeError where another warehouse may have this table: see :func:`foreign_metadata`."""
    found = foreign_metadata(table)
    if found:
        raise LakeError(
            f"table {table_name(table)}: {len(found)} metadata file{'s' if len(found) > 1 else ''} in its folder "
            f"came from another warehouse, or from a process that was killed ({found[0]}); the data files that they "
            "name may be live there. If a copy of this warehouse was written to, complete it first (k2beam warehouse "
            "copy); then, or if there is none, delete the metadata files, and run this again"
        )


def _chain(table: Table, system: fs.FileSystem, there: dict[str, str]) -> set[str]:
    """Names of the metadata files that led to the current one."""
    own = {_name(table.metadata_location), *(_name(entry.metadata_file) for entry in table.metadata.metadata_log)}
    oldest = None
    while not own.issuperset(there):
        # The log is bounded; the oldest file of it that is still there has a log of its own.
        before, oldest = oldest, min(own.intersection(there), default=None)
        if oldest is None or oldest == before:
            break
        found = _read(system, there[oldest]) or {}
        own.update(_name(entry["metadata-file"]) for entry in found.get("metadata-log", ()))
    return own


def _is_foreign(table: Table, metadata: dict[str, Any] | None) -> bool:
    if metadata is None:
        return False
    if metadata.get("table-uuid") != str(table.metadata.table_uuid):
        return True
    known = {snapshot.snapshot_id for snapshot in table.metadata.snapshots}
    known |= {entry.snapshot_id for entry in table.metadata.snapshot_log}
    return any(
        snapshot["snapshot-id"] not in known and snapshot.get("summary", {}).get(COMMITTED_IN) != warehouse_of(table)
        for snapshot in metadata.get("snapshots", ())
    )


def _read(system: fs.FileSystem, path: str) -> dict[str, Any] | None:
    """A metadata file as it stands; None for one that is not whole."""
    with system.open_input_stream(path, compression="gzip" if path.endswith(f".gz{_SUFFIX}") else None) as file:
        content = file.read()
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _name(location: str) -> str:
    return location.rpartition("/")[2]
