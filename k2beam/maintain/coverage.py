"""Makes the coverage of a table anew from its rows, where somebody damaged the one or the other."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from k2beam.config import RetryPolicy
from k2beam.coverage import PROPERTY_PREFIX, Coverage, SourcePartition
from k2beam.errors import LakeError
from k2beam.lake.holes import read_holes
from k2beam.lake.offsets import count_offsets, may_cover
from k2beam.lake.scan import find_readable, load_readable, stop_at_unreadable, table_name
from k2beam.lake.tables import COVERED_TABLES, EVENT_TABLES
from k2beam.lake.transaction import COMMIT_ID, Append, commit_loop

REBUILT = "k2.rebuilt"
"""Table property: the id of the last rebuild of the coverage."""


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
    catalog: Catalog,
    namespace: str,
    names: Sequence[str],
    *,
    apply: bool,
    policy: RetryPolicy | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> list[CoverageChange]:
    """Compare the coverage of tables with their rows; with ``apply`` make it what the rows say, a commit for each.

    ``names`` are covered tables that there are; of the event tables all are looked at or none, as they share coverage.
    What other writers commit between the count and the commit stays covered, and so do recorded legal holes. Offsets
    whose rows are gone are taken again by the next job that reads them. Reads four columns of all rows, file by file;
    the bitmaps are in memory.

    Raises UnreadableFile, before anything is changed, where a file of the tables is gone or damaged: its rows would
    come twice. Raises CommitConflict and CommitUnknown.
    """
    names, rebuild_id = _together(catalog, namespace, names), uuid.uuid4().hex
    # Before any row is counted: what is covered then has its row, whatever is committed meanwhile.
    properties = {name: load_readable(catalog, namespace, name).properties for name in names}
    before = {name: _claimed(properties[name])[0] for name in names}
    tables, found = {}, {}
    for name in names:
        on_step(name)
        tables[name] = load_readable(catalog, namespace, name)
        found[name] = Coverage(count_offsets(tables[name], name, stop_at_unreadable).offsets)
    # Recorded before they are covered: what was covered above is among them.
    rows, claimed = may_cover(found, read_holes(catalog, namespace)), may_cover(before)
    changes = {name: _changes(tables[name], before[name], found[name], rows[name]) for name in names}
    for name in names:
        # All of them: one may have taken over meanwhile what another covers wrongly.
        if apply and any(changes.values()):
            commit_loop(
                lambda name=name: load_readable(catalog, namespace, name),  # type: ignore[misc]
                partial(
                    _rebuilt,
                    rebuild_id=rebuild_id,
                    rebuilt_before=properties[name].get(REBUILT),
                    before=claimed[name],
                    own=found[name],
                    rows=rows[name],
                ),
                policy or RetryPolicy(),
            )
    return [change for name in names for change in changes[name]]


def _together(catalog: Catalog, namespace: str, names: Sequence[str]) -> list[str]:
    wanted = set(names)
    if wanted & set(EVENT_TABLES.values()):
        wanted |= {name for name in EVENT_TABLES.values() if find_readable(catalog, namespace, name) is not None}
    return [name for name in COVERED_TABLES if name in wanted]


def _rebuilt(
    table: Table, rebuild_id: str, rebuilt_before: str | None, before: Coverage, own: Coverage, rows: Coverage
) -> Append | None:
    """What makes the coverage that of the rows counted, and of what was committed since; None where it is.

    ``before`` is what was covered when the count began, in whichever table that shares coverage. What is covered since
    may have been dropped by another rebuild and taken again: then this count says nothing any more. Raises LakeError.
    """
    last = table.properties.get(REBUILT)
    if last == rebuild_id:
        return None
    if last != rebuilt_before:
        raise LakeError(f"the coverage of {table_name(table)} was rebuilt by another process meanwhile: run it again")
    now, damaged = _claimed(table.properties)
    right = own | (now & rows) | (now - before)
    if now == right and not damaged:
        return None
    properties = {**right.to_properties(), REBUILT: rebuild_id}
    gone = [key for key in table.properties if key.startswith(PROPERTY_PREFIX) and key not in properties]
    return Append([], properties, {COMMIT_ID: rebuild_id}, removed=gone)


def _claimed(properties: Mapping[str, str]) -> tuple[Coverage, list[str]]:
    """The coverage by the properties that can be read, and the names of the others."""
    coverage, damaged = Coverage(), []
    for name, text in properties.items():
        try:
            coverage.update(Coverage.from_properties({name: text}))
        except LakeError:
            damaged.append(name)
    return coverage, damaged


def _changes(table: Table, before: Coverage, own: Coverage, rows: Coverage) -> list[CoverageChange]:
    now, damaged = _claimed(table.properties)
    without_rows, without_coverage = before - rows, own - now
    unreadable = {_source_partition(property_name) for property_name in damaged}
    return [
        CoverageChange(
            table.name()[-1],
            key.source,
            key.partition,
            len(without_rows[key]),
            len(without_coverage[key]),
            damaged=key in unreadable,
        )
        for key in sorted({*without_rows, *without_coverage, *unreadable})
    ]


def _source_partition(property_name: str) -> SourcePartition:
    """What a coverage property is about; all of its name, and -1, where the name is damaged too."""
    partition, _, source = property_name.removeprefix(PROPERTY_PREFIX).partition(".")
    return SourcePartition(source, int(partition)) if partition.isdecimal() else SourcePartition(property_name, -1)
