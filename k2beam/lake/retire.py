"""Rows of sources that a corrected one takes the place of: they leave a table in one snapshot."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import In
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from k2beam.config import RetryPolicy
from k2beam.coverage import PROPERTY_PREFIX
from k2beam.lake.files import write_file
from k2beam.lake.placement import by_partition
from k2beam.lake.predicates import term
from k2beam.lake.runs import RUN_ID
from k2beam.lake.scan import find_readable, load_readable, plan_files, read_file
from k2beam.lake.tables import COVERED_TABLES, DEAD_LETTERS
from k2beam.lake.transaction import COMMIT_ID, ROWS_ADDED, Append, commit_loop


def without_sources(table: Table, change: Append, sources: Collection[str]) -> Append:
    """``change``, by which the rows of ``sources`` leave the table too.

    A file with rows of other sources is written anew with these; the old one stays where it is, for older snapshots.
    Raises UnreadableFile.
    """
    columns, old = [field.name for field in table.schema().fields], pa.array(sorted(sources))
    kept, gone = list[DataFile](), list[DataFile]()
    for task in plan_files(table, term(In, "_source", set(sources))):
        rows = pa.Table.from_batches(read_file(table, task, columns))
        others = rows.filter(pc.invert(pc.is_in(rows.column("_source").cast(pa.string()), old)))
        if others.num_rows < rows.num_rows:
            gone.append(task.file)
            parts = by_partition(table, others) if others.num_rows else ()
            kept += [write_file(table, partition, part) for partition, part in parts]
    if not gone:
        return change
    # An event table may cover legal holes, which they are now; what dead letters cover are rows.
    dropped = table.properties if table.name()[-1] == DEAD_LETTERS else ()
    removed = [name for name in dropped if name.startswith(PROPERTY_PREFIX) and name.split(".", 3)[3] in sources]
    return replace(change, files=[*change.files, *kept], replaced=gone, rows_change=True, removed=removed)


def retire_sources(catalog: Catalog, namespace: str, sources: Collection[str], run_id: str) -> None:
    """Take what is left of the rows of ``sources`` out of all tables, of each in one snapshot.

    Their offsets stay covered, and are to be legal holes by then. Raises CommitConflict, CommitUnknown and
    UnreadableFile.
    """

    def plan(table: Table) -> Append | None:
        summary = {RUN_ID: run_id, COMMIT_ID: uuid.uuid4().hex, ROWS_ADDED: "0"}
        change = without_sources(table, Append([], summary=summary), sources)
        return change if change.replaced else None

    for name in COVERED_TABLES:
        if find_readable(catalog, namespace, name) is not None:
            commit_loop(partial(load_readable, catalog, namespace, name), plan, RetryPolicy())
