"""Moves and copies whole warehouses: the folder, and every path that the tables in it have.

The catalog is changed last, in one transaction. Until then the new place is refused by whoever opens it, with the
command that completes it, and the old one is as it was: killed at any moment and run again, a command completes. What
``cp -r`` or ``mv`` left is such a half-done place, and completed by the same commands.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from urllib.parse import quote

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog

from k2beam.errors import K2BeamError, LakeError, UnreadableFile, UsageError
from k2beam.lake.foreign import refuse_foreign
from k2beam.lake.place import (
    CATALOG_FILE,
    CATALOG_NAME,
    UNFINISHED,
    check_place,
    command_line,
    has_tables_of,
    home_of,
    lies_in,
    read_places,
)
from k2beam.maintain.catalog_content import CatalogContent, is_as_backed_up, read_content, replace_content
from k2beam.maintain.relocate import Relocation
from k2beam.maintain.transfer import Copied, TableFiles, refuse_links, survey, table_metadata, write_table

Verb = Literal["copy", "move", "backup", "restore"]
OnStep = Callable[[str], None]

_READS = 3
"""How often the tables' metadata is asked for: a job that commits meanwhile may delete what it replaced."""


@dataclass(frozen=True, slots=True)
class Relocated:
    """A warehouse at its new place, not verified yet.

    ``tables`` are as the catalog had them at the moment of the copy; empty where nothing was left to do.
    ``copied`` counts files of data that were written, and bytes; ``files`` and ``bytes`` all that the tables have.
    """

    verb: Verb
    old: Path
    new: Path
    tables: Sequence[TableFiles] = ()
    content: CatalogContent | None = None
    copied: Copied = field(default_factory=Copied)

    @property
    def files(self) -> int:
        return sum(len(table.data) for table in self.tables)

    @property
    def bytes(self) -> int:
        return sum(sum(table.data.values()) for table in self.tables)

    @property
    def can_be_compared(self) -> bool:
        """Whether there is an old folder whose tables :func:`as_it_was` gives."""
        return self.verb != "move" and self.content is not None and (self.old / CATALOG_FILE).exists()


def copy_warehouse(old: Path, new: Path, on_step: OnStep) -> Relocated:
    """Copy a warehouse into a new folder, or complete a folder that was copied by ``cp -r``.

    A job may write to ``old`` meanwhile: the copy is of the moment when it began. Raises UsageError where ``new`` is
    in use, UnreadableFile where a file of the tables is gone or damaged, LakeError for what can't be copied or
    written; ``old`` is never changed.
    """
    old, new = _pair(old, new)
    _existing(old)
    places = read_places(new)
    if all(lies_in(place.location, new) for place in places):
        return _fill("copy", old, new, on_step)
    _refuse_stray("copy", old, new)
    with _alone(new):
        _mark(new, "copy", old)
        return _complete("copy", old, new, on_step)


def restore_warehouse(backup: Path, new: Path, on_step: OnStep) -> Relocated:
    """Copy a backup into a folder that is new or empty; raises as :func:`copy_warehouse` does."""
    backup, new = _pair(backup, new)
    _existing(backup)
    return _fill("restore", backup, new, on_step)


def back_up(old: Path, folder: Path, on_step: OnStep) -> Relocated:
    """Make ``folder`` a copy of the warehouse as it is now; what an earlier backup copied is not copied again.

    Until it is complete, the folder is the earlier backup. A file that no table has any more stays in the folder.
    Raises UsageError where ``folder`` is something else than a backup of these tables, and as
    :func:`copy_warehouse` does.
    """
    old, folder = _pair(old, folder)
    _existing(old)
    if not read_places(folder) or (folder / UNFINISHED).exists():
        return _fill("backup", old, folder, on_step)
    check_place(folder)
    if not is_as_backed_up(folder):
        raise UsageError(f"{folder} is a warehouse, but not as a backup left it: name another folder")
    check_place(old)
    with _alone(folder):
        expected = read_content(folder)
        content, tables = _moment(old, folder, on_step)
        _refuse_others(folder, expected, tables)
        done = _bring("backup", old, folder, content, tables, expected, on_step)
    for place in set(expected.places) - set(read_content(folder).places):
        Path(place.location).unlink(missing_ok=True)  # the metadata of the earlier backup
    return done


def move_warehouse(old: Path, new: Path, on_step: OnStep) -> Relocated:
    """Move a warehouse to a new folder of the same file system, or complete what ``mv`` has moved.

    No job may write meanwhile. Everything is read first; then the folder is renamed, and only then rewritten, under
    new names: until the catalog is changed, renaming the folder back undoes it. Raises UsageError where ``new`` is in
    use or on another file system, LakeError where another warehouse may have files in ``old``
    (:mod:`k2beam.lake.foreign`), and as :func:`copy_warehouse` does.
    """
    old, new = _pair(old, new)
    places = read_places(new)
    if not (new / CATALOG_FILE).exists():
        _existing(old)
        _rename(old, new, on_step)
    elif (old / CATALOG_FILE).exists() and has_tables_of(old, places):
        if all(lies_in(place.location, new) for place in places):
            raise UsageError(f"{new} is a warehouse already: name another folder")
        raise UsageError(
            f"{new} is a copy, and {old} is still there: complete the copy by "
            f"{command_line('warehouse', 'copy', old, new)}, or delete {old} first if it is to be moved"
        )
    elif not places:
        raise UsageError(f"{new} is a warehouse without tables: name another folder")
    _refuse_stray("move", old, new)
    with _alone(new):
        if any(not lies_in(place.location, new) for place in read_places(new)):
            return _complete("move", old, new, on_step)
    check_place(new)
    return Relocated("move", old, new)


def file_problems(folder: Path, on_step: OnStep) -> list[str]:
    """What is wrong with the files of a warehouse: each that its metadata reaches must be there, with its size."""
    problems = []
    for place in read_content(folder).places:
        relocation = Relocation(f"{place.namespace}.{place.table}", folder, folder)
        try:
            survey(relocation, place, table_metadata(relocation, place), on_step)
        except K2BeamError as error:
            problems.append(str(error))
    return problems


def finish(relocated: Relocated) -> None:
    """Say that the new place is whole: from now on it may be opened, and has only its own metadata files.

    What was rewritten in place is deleted as a commit deletes the metadata files that it replaced; else, once their
    snapshots were expired, they would look like another warehouse's.
    """
    for table in relocated.tables:
        log = (entry["metadata-file"] for entry in table.metadata.get("metadata-log", ()))
        for location in (table.place.location, *log):
            table.relocation.path(location).unlink(missing_ok=True)
    (relocated.new / UNFINISHED).unlink(missing_ok=True)


@contextmanager
def as_it_was(relocated: Relocated) -> Iterator[Catalog]:
    """The old folder's tables as they were at the moment of the copy, whatever a job has committed since."""
    with TemporaryDirectory(prefix="k2beam-") as name:
        folder = Path(name)
        kept = {}
        for number, table in enumerate(relocated.tables):
            kept[table.place.location] = folder / f"{number}.metadata.json"
            kept[table.place.location].write_text(json.dumps(table.metadata), encoding="utf-8")
        assert relocated.content is not None
        content = relocated.content.relocated(lambda location: str(kept[location]), lambda location: location)
        replace_content(folder, content, None, backup=False)
        yield plain_catalog(folder)


def plain_catalog(folder: Path) -> Catalog:
    """The catalog of a warehouse folder, also of one that is not finished yet: to verify it."""
    uri = f"sqlite:///{quote(str(folder / CATALOG_FILE))}"
    return SqlCatalog(CATALOG_NAME, uri=uri, warehouse=str(folder), init_catalog_tables="false")


def _pair(old: Path, new: Path) -> tuple[Path, Path]:
    """The two folders, resolved. Raises UsageError where one is in the other."""
    old, new = old.expanduser().resolve(), new.expanduser().resolve()
    if old == new or old in new.parents or new in old.parents:
        raise UsageError(f"{new} and {old} must be two folders, and neither in the other")
    if new.exists() and not new.is_dir():
        raise UsageError(f"{new} is not a folder: name another one")
    return old, new


def _existing(folder: Path) -> None:
    if not (folder / CATALOG_FILE).exists():
        raise UsageError(f"no warehouse at {folder} (no {CATALOG_FILE})")


def _fill(verb: Verb, old: Path, new: Path, on_step: OnStep) -> Relocated:
    """Copy into a folder that is new, empty, or was begun by the same command."""
    check_place(old)
    if not (new / UNFINISHED).exists():
        if read_places(new):
            raise UsageError(
                f"{new} is a warehouse already: name another folder (one that is to be a copy again and again is made "
                f"by {command_line('warehouse', 'backup', old, 'FOLDER')})"
            )
        if new.exists() and any(new.iterdir()):
            raise UsageError(f"the folder {new} is not empty: name a new one")
    try:
        new.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder {new} can't be made: {error.strerror}; name another") from error
    with _alone(new):
        _mark(new, verb, old)
        content, tables = _moment(old, new, on_step)
        if not read_places(new):
            return _bring(verb, old, new, content, tables, None, on_step)
        # An earlier run came as far as the catalog; it was killed before it had verified what it made.
        if read_content(new).tables == _relocated(content, tables, old, new).tables:
            return Relocated(verb, old, new, tables, content)
    return Relocated(verb, old, new)


def _refuse_stray(verb: Verb, old: Path, new: Path) -> None:
    """Refuse a folder whose tables are of a third one."""
    stray = [
        place for place in read_places(new) if not lies_in(place.location, old) and not lies_in(place.location, new)
    ]
    if stray:
        home = home_of(stray)
        advice = f": {command_line('warehouse', verb, home, new)}" if home else ""
        raise UsageError(f"the tables of {new} lie in {home or stray[0].location}, not in {old}{advice}")


def _complete(verb: Verb, old: Path, new: Path, on_step: OnStep) -> Relocated:
    """Complete a folder that has its own catalog, whose tables are still those of the old folder."""
    expected = read_content(new)
    return _bring(verb, old, new, expected, _surveyed(expected, old, new, on_step), expected, on_step)


def _moment(old: Path, new: Path, on_step: OnStep) -> tuple[CatalogContent, list[TableFiles]]:
    """The catalog of the old folder as it is now, and the files of its tables; a job may go on meanwhile."""
    for attempt in range(1, _READS + 1):
        content = read_content(old)
        try:
            return content, _surveyed(content, old, new, on_step)
        except UnreadableFile:
            # A commit deletes the oldest of the metadata files that it replaced; then there are newer ones.
            if attempt == _READS or read_content(old).tables == content.tables:
                raise
    raise AssertionError


def _surveyed(content: CatalogContent, old: Path, new: Path, on_step: OnStep) -> list[TableFiles]:
    wanted = [
        (Relocation(f"{place.namespace}.{place.table}", old, new), place)
        for place in content.places
        if not lies_in(place.location, new)
    ]
    # All at once, before what takes long: these files are the only ones that a running job deletes.
    metadata = [table_metadata(relocation, place) for relocation, place in wanted]
    return [survey(*each, found, on_step) for each, found in zip(wanted, metadata, strict=True)]


def _bring(
    verb: Verb,
    old: Path,
    new: Path,
    content: CatalogContent,
    tables: list[TableFiles],
    expected: CatalogContent | None,
    on_step: OnStep,
) -> Relocated:
    copied = Copied()
    for table in tables:
        if verb != "move":
            refuse_links(table)
        write_table(table, copied, on_step)
    replace_content(new, _relocated(content, tables, old, new), expected, backup=verb == "backup")
    return Relocated(verb, old, new, tables, content, copied)


def _relocated(content: CatalogContent, tables: Sequence[TableFiles], old: Path, new: Path) -> CatalogContent:
    written = {table.place.location: str(table.relocation.metadata_path(table.place.location)) for table in tables}
    folder = Relocation("with a location of its namespace", old, new)
    return content.relocated(
        lambda location: written.get(location, location), lambda location: str(folder.path(location))
    )


def _rename(old: Path, new: Path, on_step: OnStep) -> None:
    """Give the folder its new name, once all of it could be read."""
    check_place(old)
    _, tables = _moment(old, new, on_step)
    catalog = plain_catalog(old)
    for table in tables:
        refuse_foreign(catalog.load_table((*table.place.namespace.split("."), table.place.table)))
    with _alone(old):
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new)
        except OSError as error:
            if error.errno == errno.EXDEV:
                advice = f"copy it ({command_line('warehouse', 'copy', old, new)}), and delete {old} then"
                raise UsageError(f"{new} is on another file system than {old}: {advice}") from error
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise UsageError(f"the folder {new} is not empty: name a new one") from error
            raise LakeError(f"{old} can't be renamed to {new}: {error.strerror}") from error


def _refuse_others(folder: Path, expected: CatalogContent, tables: Sequence[TableFiles]) -> None:
    """A backup is only replaced by a later one of the same tables."""
    now = {table.relocation.table: table.metadata.get("table-uuid") for table in tables}
    for place in expected.places:
        name = f"{place.namespace}.{place.table}"
        backed_up = table_metadata(Relocation(name, folder, folder), place)
        if now.get(name, backed_up.get("table-uuid")) != backed_up.get("table-uuid"):
            raise UsageError(f"{folder} is the backup of another warehouse: its {name} is another table; name another")


def _mark(new: Path, verb: Verb, old: Path) -> None:
    """Leave the command in the new folder, for whoever finds it half done."""
    command, mark = command_line("warehouse", verb, old, new), new / UNFINISHED
    if mark.exists() and mark.read_text(encoding="utf-8").strip() not in (command, ""):
        raise UsageError(
            f"{new} is of another command that was not finished: {mark.read_text(encoding='utf-8').strip()}; run that "
            "again, or delete the folder"
        )
    mark.write_text(command + "\n", encoding="utf-8")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other commands of this module away from a folder. Raises UsageError where one is at work."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"another k2beam warehouse command works on {folder}: wait for it") from error
        yield
    finally:
        os.close(descriptor)
