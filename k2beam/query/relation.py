"""Planned rows as a relation of DuckDB, which reads the files, row groups and columns that a query needs.

DuckDB reads local files itself, by the ids of their columns. Files in object stores come through Arrow, and what only
pyiceberg can read (files with deletes, columns that have changed since) is written anew into the session's folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import FileFormat
from pyiceberg.table import FileScanTask, Table

from k2beam.query import duck
from k2beam.query.dataset import dataset_of
from k2beam.query.duck import quoted
from k2beam.query.selection import PlannedRead

_NAME_MAPPING = "schema.name-mapping.default"
_GLOBS = set("*?[]{}")


def local_files(reading: PlannedRead | None) -> list[str]:
    """The files that DuckDB reads itself, for :func:`k2beam.query.duck.session`."""
    return [] if reading is None else [_path(reading.table, task) for task in _divided(reading)[0]]


def relate(session: duck.Session, name: str, reading: PlannedRead | None, schema: pa.Schema) -> None:
    """Make ``name`` a view of the rows of a reading, in the columns of ``schema``; of none where there is no table.

    Any statement may read it, any number of times. Raises LakeError for an unreadable file that must be looked at.
    """
    direct, rest = ([], []) if reading is None else _divided(reading)
    parts = []
    if reading is not None and direct:
        parts.append(_read_parquet(session, reading, direct, schema))
    if reading is not None and rest:
        found = dataset_of(reading.only(rest), schema, session.folder)
        session.register_table(f"{name}_rest", found)
        parts.append(f"SELECT {_listed(schema.names)} FROM {name}_rest")  # noqa: S608
    if reading is None or not parts:
        session.register_table(name, schema.empty_table())
        return
    session.run(f"CREATE VIEW {name} AS SELECT * FROM ({' UNION ALL '.join(parts)}) WHERE {reading.condition}")  # noqa: S608


def _divided(reading: PlannedRead) -> tuple[list[FileScanTask], list[FileScanTask]]:
    """The files that DuckDB reads itself, and the others."""
    table = reading.table
    # A file without ids has the columns that the mapping names; DuckDB would find none of them in it.
    if reading.former is not None or _NAME_MAPPING in table.properties or not isinstance(table.io, PyArrowFileIO):
        return [], list(reading.tasks)
    direct, rest = list[FileScanTask](), list[FileScanTask]()
    for task in reading.tasks:
        (direct if _is_plain(table, task) else rest).append(task)
    return direct, rest


def _is_plain(table: Table, task: FileScanTask) -> bool:
    """Whether it is a local Parquet file without deletes, at a path that names one file only."""
    location = task.file.file_path
    scheme = PyArrowFileIO.parse_location(location, table.io.properties)[0]
    is_parquet = task.file.file_format == FileFormat.PARQUET and not task.delete_files
    return is_parquet and scheme == "file" and _GLOBS.isdisjoint(location)


def _path(table: Table, task: FileScanTask) -> str:
    path: str = PyArrowFileIO.parse_location(task.file.file_path, table.io.properties)[2]
    return path


def _read_parquet(session: duck.Session, reading: PlannedRead, tasks: Sequence[FileScanTask], schema: pa.Schema) -> str:
    paths = ", ".join(quoted(_path(reading.table, task)) for task in tasks)
    ids = (reading.table.schema().find_field(name).field_id for name in schema.names)
    columns = ", ".join(
        f"{number}: {{name: {quoted(name)}, type: {quoted(kind)}, default_value: NULL}}"
        for number, name, kind in zip(ids, schema.names, session.types_of(schema), strict=True)
    )
    options = f"schema = MAP {{{columns}}}, hive_partitioning = false"
    return f"SELECT {_listed(schema.names)} FROM read_parquet([{paths}], {options})"  # noqa: S608


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
