"""Makes the coverage of a table anew from its rows, where somebody damaged the one or the other."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from k2beam.config import RetryPolicy
from k2beam.coverage import PROPERTY_PREFIX, Coverage, SourcePartition
from k2beam.errors import LakeError, UnreadableFile
from k2beam.lake.offsets import count_offsets
from k2beam.lake.scan import load_readable
from k2beam.lake.transaction import COMMIT_ID, Append, commit_loop


@dataclass(frozen=True, slots=True)
class CoverageChange:
    """How the coverage of a source partition differs from the rows of a table, in offsets.

    ``without_rows`` are covered and have no row (they would never be taken again), ``without_coverage`` have a row and
    are not covered (they would be taken again). ``damaged``: the property can't be read.
    """

    table: str
    source: str
    partition: int
    without_rows: int
    without_coverage: int
    damaged: bool


def rebuild_coverage(
    catalog: Catalog, namespace: str, name: str, *, apply: bool, policy: RetryPolicy | None = None
) -> list[CoverageChange]:
    """Compare the coverage of a table with its rows; with ``apply`` make it what the rows say, in one commit.

    What other writers commit between the count and the commit stays covered. Offsets whose rows are gone are taken
    again by the next job that reads them. Reads four columns of all rows, file by file; the bitmaps are in memory.

    Raises UnreadableFile, before anything is changed, where a file of the table is gone or damaged: its rows would
    come twice. Raises CommitConflict and CommitUnknown.
    """
    table = load_readable(catalog, namespace, name)
    found = Coverage(count_offsets(table, name, _stop).offsets)
    claimed, damaged = _claimed(table.properties)
    changes = list(_changes(name, claimed, found, damaged))
    if apply and changes:
        commit_loop(
            lambda: load_readable(catalog, namespace, name),
            lambda fresh: _rebuilt(fresh, found, claimed),
            policy or RetryPolicy(),
        )
    return changes


def _stop(error: UnreadableFile) -> None:
    raise error


def _rebuilt(table: Table, found: Coverage, claimed: Coverage) -> Append | None:
    """What makes the coverage that of the rows counted, and of what was committed since; None where it is."""
    now, damaged = _claimed(table.properties)
    right = found | (now - claimed)
    if now == right and not damaged:
        return None
    properties = right.to_properties()
    gone = [key for key in table.properties if key.startswith(PROPERTY_PREFIX) and key not in properties]
    return Append([], properties, {COMMIT_ID: uuid.uuid4().hex}, removed=gone)


def _claimed(properties: Mapping[str, str]) -> tuple[Coverage, list[str]]:
    """The coverage by the properties that can be read, and the names of the others."""
    coverage, damaged = Coverage(), []
    for name, text in properties.items():
        try:
            coverage.update(Coverage.from_properties({name: text}))
        except LakeError:
            damaged.append(name)
    return coverage, damaged


def _changes(name: str, claimed: Coverage, found: Coverage, damaged: Collection[str]) -> Iterator[CoverageChange]:
    without_rows, without_coverage = claimed - found, found - claimed
    unreadable = {_source_partition(property_name) for property_name in damaged}
    for key in sorted({*without_rows, *without_coverage, *unreadable}):
        yield CoverageChange(
            name,
            key.source,
            key.partition,
            len(without_rows[key]),
            len(without_coverage[key]),
            damaged=key in unreadable,
        )


def _source_partition(property_name: str) -> SourcePartition:
    """What a coverage property is about; all of its name, and -1, where the name is damaged too."""
    partition, _, source = property_name.removeprefix(PROPERTY_PREFIX).partition(".")
    return SourcePartition(source, int(partition)) if partition.isdecimal() else SourcePartition(property_name, -1)
