"""Reads the ledger of sequence gaps: append-only rows, of which the highest revision of a gap counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import BooleanExpression
from pyiceberg.table import Table

from k2beam.lake.scan import EVERYTHING, find_readable, plan_files, read_file
from k2beam.lake.tables import SEQUENCE_GAPS
from k2beam.model import Gap

_COLUMNS = (
    "exchange",
    "symbol",
    "kind",
    "epoch",
    "first_missing",
    "last_missing",
    "status",
    "opened_at",
    "gap_id",
    "revision",
    "detected_at",
)


def read_revisions(table: Table, row_filter: BooleanExpression = EVERYTHING) -> Iterator[Gap]:
    """Every row of the ledger, one data file at a time, in no order. Raises LakeError for an unreadable file."""
    for task in plan_files(table, row_filter):
        for batch in read_file(table, task, _COLUMNS, row_filter):
            yield from _gaps(batch)


def read_ledger(table: Table, row_filter: BooleanExpression = EVERYTHING) -> list[Gap]:
    """The state of each gap, its highest revision, sorted by key, epoch and first missing sequence.

    ``row_filter`` may only name what is the same in every revision of a gap (exchange, symbol, kind):
    a filter on status would bring back what a later revision has closed. Holds one row a gap in
    memory. Raises LakeError for an unreadable file.
    """
    newest: dict[str, Gap] = {}
    for gap in read_revisions(table, row_filter):
        known = newest.get(gap.gap_id)
        if known is None or _age(gap) > _age(known):
            newest[gap.gap_id] = gap
    return sorted(newest.values(), key=sort_key)


def current_gaps(catalog: Catalog, namespace: str) -> list[Gap]:
    """The gaps that are not FILLED now, sorted; none where no ledger was ever written."""
    table = find_readable(catalog, namespace, SEQUENCE_GAPS)
    return [] if table is None else [gap for gap in read_ledger(table) if gap.status != "FILLED"]


def sort_key(gap: Gap) -> tuple[str, str, str, int, int, int]:
    """The order of the ledger: key, epoch, first missing sequence, revision."""
    return gap.exchange, gap.symbol, gap.kind, gap.epoch, gap.first_missing, gap.revision


def _age(gap: Gap) -> tuple[int, int]:
    return gap.revision, gap.detected_at or 0


def _gaps(batch: pa.RecordBatch) -> Iterator[Gap]:
    columns: dict[str, list[Any]] = {
        name: (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    for values in zip(*columns.values(), strict=True):
        yield Gap(**dict(zip(columns, values, strict=True)))
