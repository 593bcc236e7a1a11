"""Taking of a source only what the tables lack, by the numbers of the exchange."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from k2beam.coverage import Coverage
from k2beam.job.first import decode_here, good_rows, opened_decoder
from k2beam.lake.catalog import Catalog
from k2beam.lake.files import row_coverage
from k2beam.lake.holes import leave_out
from k2beam.lake.tables import EVENT_TABLES
from k2beam.model import SEQUENCED_KINDS, Kind
from k2beam.query.twins import OfferedEvents
from transforms.filter_covered import Batch, without_covered
from transforms.filter_covered_rows import rows_without_covered


def leave_out_twins(
    catalog: Catalog, namespace: str, batches: Iterable[Batch], covered: Coverage, resolver: Any
) -> None:
    """Make legal holes of the offsets whose events have numbers that the tables have, or that come twice.

    They are written down, and covered, before anything else is taken, so that no run takes them, killed or not. Events
    without a number are not among them. ``covered`` is what is taken already. Raises UnreadableFile, CommitConflict
    and CommitUnknown.
    """
    offered = {kind: OfferedEvents(catalog, namespace, kind) for kind in SEQUENCED_KINDS}
    with opened_decoder(resolver) as decoder:
        for kind, rows in _good_events(batches, covered, decoder):
            if kind in offered:
                offered[kind].add(rows)
    for kind, events in offered.items():
        twins = Coverage()
        for places in events.twins():
            twins.update(row_coverage(places))
        leave_out(catalog, namespace, EVENT_TABLES[kind], twins)


def _good_events(batches: Iterable[Batch], covered: Coverage, decoder: Any) -> Iterator[tuple[Kind, pa.RecordBatch]]:
    for batch in batches:
        for part in decode_here(without_covered(batch, covered), decoder).events:
            yield part.kind, good_rows(part.kind, rows_without_covered(part, covered).data)
