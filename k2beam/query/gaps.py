"""The ledger of sequence gaps as rows for people: filtered, sorted, with times instead of microseconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.expressions import BooleanExpression

from k2beam.lake.ledger import read_ledger, read_revisions, sort_key
from k2beam.lake.predicates import all_of, equal
from k2beam.lake.scan import find_readable
from k2beam.lake.tables import GAP_SCHEMA, SEQUENCE_GAPS
from k2beam.model import Gap, Kind
from k2beam.query.selection import named, snapshot_of
from k2beam.query.selections import EventSelection, GapSelection
from k2beam.query.times import moment

GAP_COLUMNS: tuple[str, ...] = tuple(GAP_SCHEMA.names)


def list_gaps(catalog: Catalog, namespace: str, selection: GapSelection) -> Iterator[dict[str, Any]]:
    """The gaps, sorted by key, epoch, first missing sequence and revision; none where no ledger was written.

    Each is its highest revision, unless ``history``. Raises LakeError for an unreadable file.
    """
    table = find_readable(catalog, namespace, SEQUENCE_GAPS)
    if table is None:
        return
    row_filter = _row_filter(selection, selection.kind)
    gaps = (
        sorted(read_revisions(table, row_filter), key=sort_key) if selection.history else read_ledger(table, row_filter)
    )
    for gap in gaps:
        if selection.filled or selection.history or gap.status != "FILLED":
            yield _row(gap)


RANGE_COLUMNS = ("exchange", "symbol", "kind", "epoch", "first_missing", "last_missing", "missing_count", "opened_at")


def missing_ranges(catalog: Catalog, namespace: str, selection: GapSelection) -> Iterator[dict[str, Any]]:
    """What is missing now, as :data:`RANGE_COLUMNS`; ``opened_at`` is the time of the message after it.

    Raises as :func:`list_gaps` does.
    """
    for row in list_gaps(catalog, namespace, replace(selection, filled=False, history=False)):
        yield {name: row[name] for name in RANGE_COLUMNS}


def open_gaps(catalog: Catalog, namespace: str, kind: Kind | None, selection: EventSelection) -> list[Gap]:
    """The gaps of the ledger that are not filled as of the selection's moment, of its symbols and exchanges, sorted.

    None where no ledger was written. Raises UsageError for a bad moment, LakeError for an unreadable file.
    """
    table = find_readable(catalog, namespace, SEQUENCE_GAPS)
    snapshot = None if table is None else snapshot_of(table, selection.as_of)
    if table is None or snapshot is None:
        return []
    gaps = read_ledger(table, _row_filter(selection, kind), snapshot)
    return [gap for gap in gaps if gap.status != "FILLED"]


def _row_filter(selection: GapSelection | EventSelection, kind: Kind | None) -> BooleanExpression:
    return all_of([*named(selection.symbol, selection.exchange), *equal({"kind": kind})])


def _row(gap: Gap) -> dict[str, Any]:
    row = {name: getattr(gap, name) for name in GAP_COLUMNS}
    detected_at = None if gap.detected_at is None else moment(gap.detected_at)
    return {**row, "opened_at": moment(gap.opened_at), "detected_at": detected_at}
