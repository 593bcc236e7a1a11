"""The event of each symbol that is nearest to a selection's end: files are read from there on until all are found."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pyarrow as pa
from pyiceberg.table import FileScanTask

from k2beam.query import duck
from k2beam.query.events import StoredEvents, answer, in_order
from k2beam.schemas import EVENT_TIME_COLUMN

Key = tuple[str, str]
"""Exchange and symbol."""

_LATEST = 2**63 - 1


def nearest_events(stored: StoredEvents, wanted: Collection[Key], *, last: bool) -> pa.Table:
    """Of each key of ``wanted`` the last (or the first) of the selected rows, by event time, sequence and offset.

    A key without any has no row. Files are read in the order of their times, until no further one can hold a nearer
    row; of the copies of an event in those the right one is taken. Raises LakeError for an unreadable file.
    """
    found, times = stored.schema.empty_table(), list[int]()
    bounds, tasks = _by_time(stored, last=last)
    taken = 0
    while taken < len(tasks):
        bound = bounds[taken]
        if len(times) == len(wanted) and (min(times) > bound if last else max(times) < bound):
            break
        # What is read again is never more than what is new.
        taken = max(taken + 1, 2 * taken)
        found = _nearest(stored.of_files(tasks[:taken]), wanted, last=last)
        times = found.column(EVENT_TIME_COLUMN[stored.kind]).cast(pa.int64()).to_pylist()
    return found


def _by_time(stored: StoredEvents, *, last: bool) -> tuple[list[int], list[FileScanTask]]:
    """The files in order, and the time that no row of each can be after (or before)."""
    placed = []
    for task, low, high in () if stored.reading is None else stored.reading.spans():
        bound = high if last else low
        placed.append(((_LATEST if last else -_LATEST) if bound is None else bound, task))
    placed.sort(key=lambda one: one[0], reverse=last)
    return [bound for bound, _ in placed], [task for _, task in placed]


def _nearest(stored: StoredEvents, wanted: Collection[Key], *, last: bool) -> pa.Table:
    order = in_order(stored.kind, reverse=last)
    keys = pa.table({"exchange": [key[0] for key in wanted], "symbol": [key[1] for key in wanted]})
    names = ", ".join(f'"{name}"' for name in stored.schema.names)

    def ask(session: duck.Session) -> Iterator[pa.RecordBatch]:
        session.register_table("wanted", keys)
        return session.stream(f"""
            SELECT {names} FROM events SEMI JOIN wanted USING (exchange, symbol)
            QUALIFY row_number() OVER (PARTITION BY exchange, symbol ORDER BY {order}) = 1
        """)  # noqa: S608

    found = answer({"events": stored}, ask)
    return pa.Table.from_batches([batch.cast(stored.schema) for batch in found], stored.schema)
