"""The event of each symbol that is nearest to a selection's end: files are read from there on until all are found."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import pyarrow as pa

from k2beam.lake.scan import bound_of
from k2beam.query import duck
from k2beam.query.events import StoredEvents, in_order
from k2beam.schemas import EVENT_TIME_COLUMN

Key = tuple[str, str]
"""Exchange and symbol."""

_LATEST = 2**63 - 1


def nearest_events(stored: StoredEvents, wanted: Collection[Key], *, last: bool) -> pa.Table:
    """Of each key of ``wanted`` the last (or the first) of the selected rows, by event time, sequence and offset.

    A key without any has no row. Files are read in the order of their times, until no further one can hold a nearer
    row. Raises LakeError for an unreadable file.
    """
    found, times = stored.schema.empty_table(), list[int]()
    for bound, rows in _by_time(stored, last=last):
        if len(times) == len(wanted) and (min(times) > bound if last else max(times) < bound):
            break
        found = _nearest(stored, [*found.to_batches(), *rows], wanted, last=last)
        times = found.column(EVENT_TIME_COLUMN[stored.kind]).cast(pa.int64()).to_pylist()
    return found


def _by_time(stored: StoredEvents, *, last: bool) -> Iterator[tuple[int, Iterable[pa.RecordBatch]]]:
    """The rows of each file, and the time that none of them can be after (or before)."""
    reading, time = stored.reading, EVENT_TIME_COLUMN[stored.kind]
    if reading is None:
        return
    placed = []
    for task in reading.tasks:
        bound = bound_of(reading.table, task.file.upper_bounds if last else task.file.lower_bounds, time)
        placed.append(((_LATEST if last else -_LATEST) if bound is None else bound, task))
    for bound, task in sorted(placed, key=lambda one: one[0], reverse=last):
        yield bound, reading.only([task]).batches()


def _nearest(stored: StoredEvents, rows: Iterable[pa.RecordBatch], wanted: Collection[Key], *, last: bool) -> pa.Table:
    order = in_order(stored.kind, reverse=last)
    keys = pa.table({"exchange": [key[0] for key in wanted], "symbol": [key[1] for key in wanted]})
    with duck.session() as session:
        session.register("events", stored.schema, rows)
        session.register("wanted", keys.schema, keys.to_batches())
        nearest = session.stream(f"""
            SELECT events.* FROM events SEMI JOIN wanted USING (exchange, symbol)
            QUALIFY row_number() OVER (PARTITION BY exchange, symbol ORDER BY {order}) = 1
        """)  # noqa: S608
        return pa.Table.from_batches([batch.cast(stored.schema) for batch in nearest], stored.schema)
