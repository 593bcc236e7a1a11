"""What readers recorded of each source partition, as properties of the tables: its end and its beginning.

Coverage tells what was taken, and so not what was lost of a partition before anything of it was taken: retention may
empty it first. The first offset that is recorded here, before that job reads, makes such a loss visible.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from k2beam.config import RetryPolicy
from k2beam.coverage import SourcePartition
from k2beam.errors import LakeError
from k2beam.lake.scan import find_readable
from k2beam.lake.tables import DEAD_LETTERS, EXPECTED_PREFIX, open_table
from k2beam.lake.transaction import COMMIT_ID, Append, change_properties, commit_loop

FIRST_PREFIX = "k2.first."
"""Table properties ``k2.first.<partition>.<source>``: the offset from which the first job was to read."""


BEGINNING_PREFIX = "k2.beginning."
"""Table properties ``k2.beginning.<source>`` of the dead letters: what a file began with when it was taken."""


def read_beginnings(catalog: Catalog, namespace: str) -> dict[str, str]:
    """What is recorded of the beginnings of sources, by source."""
    table = find_readable(catalog, namespace, DEAD_LETTERS)
    properties = {} if table is None else table.properties
    return {
        name.removeprefix(BEGINNING_PREFIX): text
        for name, text in properties.items()
        if name.startswith(BEGINNING_PREFIX)
    }


def record_beginnings(catalog: Catalog, namespace: str, beginnings: Mapping[str, str]) -> None:
    """Record the beginnings of sources, before anything of them is taken. Raises CommitConflict and CommitUnknown."""

    news: dict[str, str | None] = {f"{BEGINNING_PREFIX}{source}": text for source, text in beginnings.items()}
    if news:
        change_properties(lambda: open_table(catalog, namespace, DEAD_LETTERS), lambda _: news)


def read_first_offsets(catalog: Catalog, namespace: str) -> dict[SourcePartition, int]:
    """The recorded first offsets; none where no live job has run. Raises LakeError for a damaged one."""
    table = find_readable(catalog, namespace, DEAD_LETTERS)
    return {} if table is None else recorded_first_offsets(table.properties)


def record_first_offsets(
    catalog: Catalog, namespace: str, first_offsets: Mapping[tuple[str, int], int], policy: RetryPolicy | None = None
) -> None:
    """Record the offsets from which a job is to read, where none or a higher one is recorded yet.

    They are properties of the dead letters, the one table that every source may write to; it's made if need be. The
    change comes with a snapshot, though it has no file: so it is under the compare-and-swap, and of two jobs the
    lower offset stays. Repeating it changes nothing. Raises CommitConflict and CommitUnknown.
    """

    def plan(table: Table) -> Append | None:
        known = recorded_first_offsets(table.properties)
        news = {
            f"{FIRST_PREFIX}{partition}.{source}": str(first)
            for (source, partition), first in first_offsets.items()
            if first < known.get(SourcePartition(source, partition), first + 1)
        }
        return Append([], news, {COMMIT_ID: uuid.uuid4().hex}) if news else None

    commit_loop(lambda: open_table(catalog, namespace, DEAD_LETTERS), plan, policy or RetryPolicy())


def recorded_first_offsets(properties: Mapping[str, str]) -> dict[SourcePartition, int]:
    """The offsets from which the first job was to read, by a table's properties. Raises LakeError for a damaged one."""
    return _recorded(properties, FIRST_PREFIX, "a first offset")


def recorded_ends(properties: Mapping[str, str]) -> dict[SourcePartition, int]:
    """The end offsets that readers recorded in a table's properties. Raises LakeError for a damaged one."""
    return _recorded(properties, EXPECTED_PREFIX, "an end offset")


def _recorded(properties: Mapping[str, str], prefix: str, what: str) -> dict[SourcePartition, int]:
    found: dict[SourcePartition, int] = {}
    for name, text in properties.items():
        if not name.startswith(prefix):
            continue
        partition, _, source = name.removeprefix(prefix).partition(".")
        try:
            found[SourcePartition(source, int(partition))] = int(text)
        except ValueError as error:
            raise LakeError(f"table property {name}={text!r} is damaged: {what} was expected") from error
    return found
