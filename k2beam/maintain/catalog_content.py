"""What an embedded catalog holds, as rows: read at one moment, rewritten for another folder, and put in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from k2beam.errors import LakeError
from k2beam.lake.place import CATALOG_FILE, CATALOG_NAME, TablePlace, catalog_rows

_TABLES = ("iceberg_tables", "iceberg_namespace_properties")
_BACKUP = "k2beam_backup"
"""The rows of ``iceberg_tables`` as the last backup into this folder left them; only in a backup."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class CatalogContent:
    """The statements that make the catalog's tables, the rows of Iceberg's tables, and those of namespaces."""

    statements: tuple[str, ...]
    tables: Rows
    namespaces: Rows

    @property
    def places(self) -> list[TablePlace]:
        """Where the tables are."""
        return [
            TablePlace(row["table_namespace"], row["table_name"], row["metadata_location"])
            for row in self.tables
            if row["metadata_location"]
        ]

    def relocated(self, table: Callable[[str], str], namespace: Callable[[str], str]) -> CatalogContent:
        """The same with other metadata files, and other locations of namespaces."""
        tables = [
            {**row, "metadata_location": table(row["metadata_location"]), "previous_metadata_location": None}
            for row in self.tables
        ]
        namespaces = [
            {**row, "property_value": namespace(row["property_value"])} if row["property_key"] == "location" else row
            for row in self.namespaces
        ]
        return CatalogContent(self.statements, tables, namespaces)


def read_content(folder: Path) -> CatalogContent:
    """All that the catalog of a warehouse folder holds, of one moment. Raises LakeError."""
    with catalog_rows(folder / CATALOG_FILE) as connection:
        connection.execute("BEGIN")
        return _content(connection)


def replace_content(folder: Path, content: CatalogContent, expected: CatalogContent | None, *, backup: bool) -> None:
    """Put ``content`` in the place of what the catalog holds, in one transaction; ``expected`` is what it must hold.

    None: it may hold no table. ``backup`` notes what it was given, for :func:`is_as_backed_up`. Raises LakeError, and
    changes nothing, where another process has changed the catalog meanwhile.
    """
    with catalog_rows(folder / CATALOG_FILE) as connection:
        connection.execute("BEGIN IMMEDIATE")
        now = _content(connection)
        held = CatalogContent((), [], []) if expected is None else expected
        if now.tables != held.tables or (expected is not None and now.namespaces != held.namespaces):
            connection.execute("ROLLBACK")
            raise LakeError(
                f"the tables of {folder} were changed by another process meanwhile: stop the jobs that write to it, "
                "and run this again"
            )
        for statement in content.statements if not now.statements else ():
            connection.execute(statement)
        for table, rows in zip(_TABLES, (content.tables, content.namespaces), strict=True):
            connection.execute(f"DELETE FROM {table} WHERE catalog_name = ?", (CATALOG_NAME,))  # noqa: S608
            _insert(connection, table, rows)
        connection.execute(f"DROP TABLE IF EXISTS {_BACKUP}")
        if backup:
            connection.execute(f"CREATE TABLE {_BACKUP} (table_namespace, table_name, metadata_location)")
            _insert(connection, _BACKUP, _named(content.tables))
        connection.execute("COMMIT")


def is_as_backed_up(folder: Path) -> bool:
    """Whether the catalog of a folder is as the last backup left it; false where it never was one. Raises LakeError."""
    with catalog_rows(folder / CATALOG_FILE) as connection:
        connection.execute("BEGIN")
        if not _statements(connection, (_BACKUP,)):
            return False
        return _sorted(_select(connection, f"SELECT * FROM {_BACKUP}")) == _sorted(  # noqa: S608
            _named(_content(connection).tables)
        )


def _content(connection: Connection) -> CatalogContent:
    statements = _statements(connection, _TABLES)
    if not statements:
        return CatalogContent((), [], [])
    tables, namespaces = (
        _select(connection, f"SELECT * FROM {table} WHERE catalog_name = '{CATALOG_NAME}' ORDER BY 1, 2, 3")  # noqa: S608
        for table in _TABLES
    )
    return CatalogContent(statements, tables, namespaces)


def _statements(connection: Connection, names: Sequence[str]) -> tuple[str, ...]:
    marks = ", ".join("?" * len(names))
    query = f"SELECT sql FROM sqlite_master WHERE type = 'table' AND name IN ({marks})"  # noqa: S608
    return tuple(row[0] for row in connection.execute(query, tuple(names)))


def _select(connection: Connection, query: str) -> Rows:
    cursor = connection.execute(query)
    columns = [column[0] for column in cursor.description]
    return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def _insert(connection: Connection, table: str, rows: Rows) -> None:
    for row in rows:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))  # noqa: S608


def _named(rows: Rows) -> Rows:
    return [{name: row[name] for name in ("table_namespace", "table_name", "metadata_location")} for row in rows]


def _sorted(rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: tuple(row.values()))
