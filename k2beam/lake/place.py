"""Where an embedded warehouse lies: its tables must be below its own folder.

The catalog and the files of a table name each other by absolute paths. A warehouse that was copied or moved by other
means than ``k2beam warehouse`` still names the folder where it was made: written to, it would change that one.
"""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from k2beam.errors import LakeError, UsageError

CATALOG_NAME = "k2beam"
CATALOG_FILE = "catalog.db"

UNFINISHED = "unfinished-copy"
"""A file in a warehouse that is not whole yet; holds the command that completes it."""

_LOCAL = re.compile(r"(?:file:(?://(?=/))?)?(/(?!/).*)", re.DOTALL)
_WAIT_SECONDS = 60
_SELECT = "SELECT table_namespace, table_name, metadata_location FROM iceberg_tables WHERE catalog_name = ?"
_SELECT_PLACES = (
    f"{_SELECT} UNION ALL SELECT namespace, '', property_value FROM iceberg_namespace_properties "  # noqa: S608
    "WHERE catalog_name = ? AND property_key = 'location'"
)


class TablePlace(NamedTuple):
    """What the catalog says of a table: its namespace, its name, and its current metadata file.

    A namespace with a location of its own has one too, with an empty name.
    """

    namespace: str
    table: str
    location: str


def local_path(location: str) -> str | None:
    """The path of a location as pyiceberg reads it (``file:///x``, ``file:/x`` and ``/x`` are ``/x``); None elsewhere.

    Nothing is unquoted: ``%20`` in a name stands for itself.
    """
    found = _LOCAL.fullmatch(location)
    return os.path.normpath(found[1]) if found else None


def lies_in(location: str, folder: Path) -> bool:
    """Whether a location is below ``folder`` (resolved); a path through links is where it leads to."""
    path = local_path(location)
    if path is None:
        return False
    return _below(path, folder) or _below(os.path.realpath(path), folder)


def warehouse_folder(name: str) -> Path:
    """The folder that is meant, with ``~`` and links resolved. Raises UsageError where that can't be told."""
    try:
        return Path(name).expanduser().resolve()
    except (OSError, RuntimeError) as error:
        raise UsageError(f"the warehouse {name} can't be found: {error}; name another --warehouse") from error


def check_there(folder: Path) -> None:
    """Raise UsageError where ``folder`` (resolved) is no warehouse, or can't be looked into."""
    try:
        there = (folder / CATALOG_FILE).exists()
    except OSError as error:
        raise UsageError(f"the warehouse {folder} can't be read: {error.strerror}; name another --warehouse") from error
    if not there:
        raise UsageError(
            f"no warehouse at {folder} (no {CATALOG_FILE}); ingest something into it first, or name another --warehouse"
        )


def check_place(folder: Path) -> None:
    """Refuse a warehouse ``folder`` (resolved) that is half made, or whose tables lie elsewhere; one SELECT.

    Raises UsageError with the command that mends it, and LakeError for a catalog that can't be read.
    """
    unfinished = folder / UNFINISHED
    if unfinished.exists():
        raise UsageError(
            f"the warehouse {folder} is not whole: a copy into it was not finished; run it again: "
            f"{unfinished.read_text(encoding='utf-8').strip()}"
        )
    outside = [place for place in read_places(folder) if not lies_in(place.location, folder)]
    if outside:
        raise UsageError(_elsewhere(folder, outside))


def read_places(folder: Path) -> list[TablePlace]:
    """What the catalog of a warehouse folder says of places; nothing where there is no catalog.

    Raises LakeError for a catalog that can't be read.
    """
    database = folder / CATALOG_FILE
    if not database.exists():
        return []
    with catalog_rows(database) as connection:
        try:
            found = connection.execute(_SELECT_PLACES, (CATALOG_NAME, CATALOG_NAME)).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):  # a warehouse that another process is making
                return []
            raise
    return [TablePlace(namespace, table, location) for namespace, table, location in found if location]


@contextmanager
def catalog_rows(database: Path) -> Iterator[sqlite3.Connection]:
    """The catalog as plain SQLite; each statement is a transaction of its own, until BEGIN.

    Raises LakeError for a file that is damaged or locked.
    """
    try:
        # A path, not a URI: then no character in it has a meaning.
        with closing(sqlite3.connect(database, timeout=_WAIT_SECONDS, isolation_level=None)) as connection:
            yield connection
    except sqlite3.DatabaseError as error:
        raise LakeError(f"the catalog {database} can't be read or written: {error}") from error


def home_of(places: Iterable[TablePlace]) -> Path | None:
    """The folder of the warehouse that these are of, by the layout ``FOLDER/namespace/table``; None where unclear."""
    homes = {_home(place) for place in places}
    found = homes.pop() if len(homes) == 1 else ""
    return Path(found) if found else None


def has_tables_of(folder: Path, places: Iterable[TablePlace]) -> bool:
    """Whether ``folder`` is a warehouse that has one of these tables, at its own place."""
    names = {(place.namespace, place.table) for place in places}
    return any(
        (place.namespace, place.table) in names and lies_in(place.location, folder) for place in read_places(folder)
    )


def command_line(*words: object) -> str:
    """A command of k2beam as it is typed into a shell."""
    return shlex.join(["k2beam", *map(str, words)])


def _elsewhere(folder: Path, outside: list[TablePlace]) -> str:
    home = home_of(outside)
    example = outside[0]
    what = f"{example.namespace}.{example.table}" if example.table else f"namespace {example.namespace}"
    if home is None:
        return (
            f"the warehouse {folder} has {what} at {example.location}, which is outside of its folder: a warehouse and "
            "its tables are kept in one folder; open the catalog of that place with --catalog instead"
        )
    if has_tables_of(home, outside):
        said, verb = f"is a copy of {home}: writing to it would change {home}", "copy"
    else:
        said, verb = f"was moved from {home}: its tables are still looked for there", "move"
    return f"the warehouse {folder} {said}; make it whole first: {command_line('warehouse', verb, home, folder)}"


def _home(place: TablePlace) -> str:
    ending = f"/{place.namespace}/{place.table}/" if place.table else f"/{place.namespace}/"
    return f"{local_path(place.location) or ''}/".rpartition(ending)[0]


def _below(path: str, folder: Path) -> bool:
    return path.startswith(f"{str(folder).rstrip('/')}/")
