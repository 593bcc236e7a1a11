"""Legal holes of logs that a broker was asked about: the rows of ``legal_holes``.

With them each offset of a topic is in one place that can be looked at: an event, a dead letter or a hole. So the broker
need not be asked again, and the audit knows them without a broker. Once they are written down, an event table covers
them too, so that its coverage is few ranges whatever the log skips.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import BooleanExpression, GreaterThanOrEqual, In, LessThanOrEqual
from pyiceberg.table import Table

from k2beam.clock import now_us
from k2beam.config import Retention, RetryPolicy
from k2beam.coverage import LEFT_OUT_PREFIX, Coverage, run_bounds
from k2beam.errors import UnreadableFile
from k2beam.lake.commit import read_coverage
from k2beam.lake.files import row_coverage, write_rows
from k2beam.lake.predicates import all_of, equal, term
from k2beam.lake.scan import find_readable, load_readable, plan_files, read_file, stop_at_unreadable
from k2beam.lake.tables import EVENT_TABLES, HOLE_SCHEMA, LEGAL_HOLES, open_table
from k2beam.lake.transaction import COMMIT_ID, ROWS_ADDED, Append, commit_loop

FILE_ROWS = 1_000_000
"""Rows that are written as one file at most: a row takes some 200 bytes of memory meanwhile."""

_COLUMNS = ("_source", "_partition", "_offset", "_offset_last")


def read_holes(
    catalog: Catalog,
    namespace: str,
    within: Coverage | None = None,
    *,
    log_compacted: bool | None = None,
    on_unreadable: Callable[[UnreadableFile], None] = stop_at_unreadable,
) -> Coverage:
    """The recorded legal holes; none where no live job has found any.

    ``within``: only those of these offsets. ``log_compacted``: only those of logs that were compacted when they were
    found, or only those of logs that were not: these are final, nothing can come there any more. A file that is gone or
    damaged is given to ``on_unreadable``, which raises UnreadableFile unless told otherwise; what can be read is read.
    """
    if within is not None and not within:
        return Coverage()
    try:
        table = find_readable(catalog, namespace, LEGAL_HOLES)
        return Coverage() if table is None else _read(table, within, on_unreadable, log_compacted)
    except UnreadableFile as error:
        on_unreadable(error)
        return Coverage()


def _read(
    table: Table,
    within: Coverage | None,
    on_unreadable: Callable[[UnreadableFile], None] = stop_at_unreadable,
    log_compacted: bool | None = None,
) -> Coverage:
    terms = equal({"log_compacted": log_compacted})
    row_filter, holes = all_of(terms if within is None else [*terms, *_near(within)]), Coverage()
    for task in plan_files(table, row_filter):
        try:
            for batch in read_file(table, task, _COLUMNS, row_filter):
                holes.update(row_coverage(batch))
        except UnreadableFile as error:
            on_unreadable(error)
    return holes if within is None else holes & within


def _near(offsets: Coverage) -> list[BooleanExpression]:
    """Passes every hole that one of ``offsets`` is in, and others."""
    bitmaps = [offsets[key] for key in offsets]
    return [
        term(In, "_source", {key.source for key in offsets}),
        term(GreaterThanOrEqual, "_offset_last", min(bitmap.min() for bitmap in bitmaps)),
        term(LessThanOrEqual, "_offset", max(bitmap.max() for bitmap in bitmaps)),
    ]


def record_holes(
    catalog: Catalog,
    namespace: str,
    holes: Coverage,
    *,
    log_compacted: bool,
    policy: RetryPolicy | None = None,
    retention: Retention | None = None,
) -> None:
    """Write legal holes down, but for those that are there; they stay holes for as long as the source is the same.

    ``log_compacted``: their log may have lost messages that were there before. ``retention`` says which snapshots of
    the table are left. Exactly once: repeating it writes nothing. Raises UnreadableFile, CommitConflict and
    CommitUnknown.
    """

    def plan(table: Table) -> Append | None:
        fresh = holes - _read(table, holes)
        if not fresh:
            return None
        staged = [file for rows in _tables(fresh, log_compacted) for file in write_rows(table, rows, window=0)]
        summary = {COMMIT_ID: uuid.uuid4().hex, ROWS_ADDED: str(sum(file.rows for file in staged))}
        return Append([file.data_file() for file in staged], summary=summary, retention=retention)

    if holes:
        commit_loop(lambda: open_table(catalog, namespace, LEGAL_HOLES), plan, policy or RetryPolicy())


def _tables(holes: Coverage, log_compacted: bool) -> Iterator[pa.Table]:
    """The rows for ``holes`` (some), :data:`FILE_ROWS` at most at once; all have the same time."""
    keys, now = list(holes), pa.scalar(now_us(), HOLE_SCHEMA.field("found_at").type)
    sources, partitions = pa.array([key.source for key in keys]), pa.array([key.partition for key in keys], pa.int32())
    bounds = [run_bounds(holes[key]) for key in keys]
    owners = np.repeat(np.arange(len(keys)), [len(firsts) for firsts, _ in bounds])
    firsts, lasts = (np.concatenate(ends) for ends in zip(*bounds, strict=True))
    for begin in range(0, len(owners), FILE_ROWS):
        part = slice(begin, begin + FILE_ROWS)
        columns = [
            sources.take(owners[part]),
            partitions.take(owners[part]),
            pa.array(firsts[part]),
            pa.array(lasts[part]),
        ]
        columns += [pa.repeat(value, len(owners[part])) for value in (log_compacted, now)]
        yield pa.Table.from_arrays(columns, schema=HOLE_SCHEMA)


def cover_holes(
    catalog: Catalog,
    namespace: str,
    holes: Coverage,
    *,
    policy: RetryPolicy | None = None,
    retention: Retention | None = None,
) -> None:
    """Let event tables cover legal holes that are recorded, so that what they cover has no holes itself.

    Of each source partition the event table does that covers most of it; others take it over when they share coverage.
    None does where it covers nothing of it. Only for final holes (:func:`read_holes`): what is covered is never taken.
    Repeating it changes nothing. Raises CommitConflict and CommitUnknown.
    """
    retry = policy or RetryPolicy()
    for name, part in _shares(catalog, namespace, holes).items():
        commit_loop(partial(load_readable, catalog, namespace, name), partial(_covered, part, retention), retry)


def leave_out(catalog: Catalog, namespace: str, name: str, offsets: Coverage) -> None:
    """Let the event table ``name`` cover offsets that are to have no row there, and remember that this was a choice.

    They are recorded as legal holes first. A file that has messages at such offsets has not lost them, as it would have
    at other holes. Repeating it changes nothing. Raises UnreadableFile, LakeError, CommitConflict and CommitUnknown.
    """
    if offsets:
        record_holes(catalog, namespace, offsets, log_compacted=False)
        plan = partial(_covered, offsets, None, by_choice=True)
        commit_loop(partial(load_readable, catalog, namespace, name), plan, RetryPolicy())


def _covered(holes: Coverage, retention: Retention | None, table: Table, by_choice: bool = False) -> Append | None:
    covered = Coverage.from_properties(table.properties)
    fresh = holes - covered
    if not fresh:
        return None
    properties = (covered | fresh).to_properties(only=fresh)
    if by_choice:
        chosen = Coverage.from_properties(table.properties, LEFT_OUT_PREFIX) | fresh
        properties |= chosen.to_properties(only=fresh, prefix=LEFT_OUT_PREFIX)
    return Append([], properties, {COMMIT_ID: uuid.uuid4().hex}, retention=retention)


def _shares(catalog: Catalog, namespace: str, holes: Coverage) -> dict[str, Coverage]:
    """The holes by the event table that covers most of their source partition; without those that none covers."""
    covered = {name: read_coverage(catalog, namespace, [name]) for name in EVENT_TABLES.values()}
    shares: dict[str, Coverage] = defaultdict(Coverage)
    for key in holes:
        most = max(covered, key=lambda name: len(covered[name][key]))
        if covered[most][key]:
            shares[most].update(Coverage({key: holes[key]}))
    return shares
