"""A selection too large to be sorted at once, as slices of time, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from pyiceberg.catalog import Catalog

from k2beam.model import Kind
from k2beam.query.events import StoredEvents, has_copies, ordered, stored_events
from k2beam.query.selection import PlannedRead
from k2beam.query.selections import EventSelection

ROWS_OF_A_SLICE = 1_000_000
"""So many rows are sorted at once, by the bounds of the files."""


def stream_events(
    catalog: Catalog,
    namespace: str,
    kind: Kind,
    selection: EventSelection,
    *,
    columns: Sequence[str] = (),
    with_duplicates: bool = False,
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """As :func:`k2beam.query.events.select_events`, in memory that does not grow with the selection.

    The rows are looked at for copies first, 16 bytes a row and at most 512 MiB at once. Where there are some, they are
    taken out and all rows sorted by DuckDB, which spills what has no room to a temporary folder.
    """
    stored = stored_events(catalog, namespace, kind, selection, columns)
    schema = stored.schema_of(columns)
    return schema, _rows(stored, schema, with_duplicates=with_duplicates)


def _rows(stored: StoredEvents, schema: pa.Schema, *, with_duplicates: bool) -> Iterator[pa.RecordBatch]:
    if stored.reading is None:
        return
    if not with_duplicates and has_copies(stored):
        yield from ordered(stored, schema)
        return
    cuts = time_cuts(stored.reading, ROWS_OF_A_SLICE)
    for low, high in zip([None, *cuts], [*cuts, None], strict=True):
        yield from ordered(stored.between(low, high), schema, with_duplicates=True)


def time_cuts(reading: PlannedRead, rows: int) -> list[int]:
    """Times (microseconds) between which there are about so many rows, if those of each file are spread evenly."""
    placed = [(low, high, task.file.record_count) for task, low, high in reading.spans()]
    known = np.array([span for span in placed if span[0] is not None and span[1] is not None], np.float64)
    if not len(known):
        return []
    low, high, counts = known[:, 0], known[:, 1] + 1, known[:, 2]
    density = counts / (high - low)
    times = np.concatenate([low, high])
    order = np.argsort(times)
    times, change = times[order], np.concatenate([density, -density])[order]
    before = np.concatenate([[0.0], np.cumsum(np.cumsum(change)[:-1] * np.diff(times))])
    wanted = np.arange(rows, counts.sum(), rows)
    return sorted({int(cut) for cut in np.interp(wanted, before, times)})
