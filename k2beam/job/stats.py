"""What a run did: the stats object that ``k2beam ingest`` ends with.

Rows come from the tables themselves, by their record of the run, snapshots by the run's id in their summaries; the
rest are Beam's counters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from k2beam.coverage import Coverage
from k2beam.errors import K2BeamError
from k2beam.lake.catalog import Catalog
from k2beam.lake.holes import read_holes
from k2beam.lake.runs import RUN_ID, run_record
from k2beam.lake.scan import find_readable, plan_files
from k2beam.lake.tables import DEAD_LETTERS, EVENT_TABLES, SEQUENCE_GAPS
from k2beam.lake.transaction import ROWS_ADDED
from k2beam.logs import get_logger

SEQUENCE_PREFIX = "sequence_"
_COUNTED = (*EVENT_TABLES.values(), DEAD_LETTERS)


@dataclass(frozen=True, slots=True)
class IngestStats:
    """Counts of a run. ``consumed`` and ``already_covered`` are source offsets, ``written`` and
    ``dead_letters`` are rows, ``errors`` are inputs that could not be read and have no offset (a
    truncated tail), ``pending`` source offsets that were read and not committed when the job ended (None where the
    runner does not tell), ``gaps`` are messages per class, ``snapshots`` are the ids per table,
    ``commit_ms`` the time that commits took (``min``, ``max`` and, rounded, ``mean``; empty where the runner does
    not tell).
    """

    consumed: int
    written: dict[str, int]
    errors: int
    dead_letters: int
    already_covered: int
    gaps: dict[str, int]
    duration_s: float
    throughput_per_s: float
    snapshots: dict[str, list[int]] = field(default_factory=dict)
    commit_ms: dict[str, int] = field(default_factory=dict)
    pending: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """The stats object, as the command line prints it."""
        return asdict(self)


def ingest_stats(
    catalog: Catalog, namespace: str, run_id: str, counters: Mapping[str, int], duration_s: float
) -> IngestStats:
    """Put together what the run with ``run_id`` did; ``counters`` are Beam's, by name."""
    written: dict[str, int] = {}
    snapshots: dict[str, list[int]] = {}
    for name in (*_COUNTED, SEQUENCE_GAPS):
        rows, ids = _of_run(catalog, namespace, name, run_id)
        written[name] = rows
        if ids:
            snapshots[name] = ids
    consumed = counters.get("consumed", 0)
    left_out = {table: counters.get(f"left_out_{table}", 0) for table in _COUNTED}
    events = sum(written[name] for name in EVENT_TABLES.values())
    # A runner that restarted the job, or tells no counters, knows of fewer rows than the tables.
    dead = counters.get("dead_letter_offsets", 0) - left_out[DEAD_LETTERS]
    told = rows_counted(counters) == events + written[DEAD_LETTERS] and dead >= written[DEAD_LETTERS]
    already_covered = counters.get("already_covered", 0) + sum(left_out.values())
    return IngestStats(
        consumed=consumed,
        written={name: written[name] for name in EVENT_TABLES.values()},
        errors=counters.get("truncated_tails", 0),
        dead_letters=written[DEAD_LETTERS],
        already_covered=already_covered,
        gaps={
            name.removeprefix(SEQUENCE_PREFIX).upper(): count
            for name, count in sorted(counters.items())
            if name.startswith(SEQUENCE_PREFIX)
        },
        duration_s=round(duration_s, 3),
        throughput_per_s=round(consumed / duration_s, 1) if duration_s else 0.0,
        snapshots=snapshots,
        commit_ms=_spread(counters, "commit_ms"),
        pending=consumed - events - dead - already_covered if told else None,
    )


def check_sum(stats: IngestStats, *, bounded: bool) -> None:
    """Raises K2BeamError where not every offset that was read is in one place.

    Of a run that has read all of its source (``bounded``) none may be pending.
    """
    if stats.pending is not None and (stats.pending < 0 or (bounded and stats.pending)):
        raise K2BeamError(
            f"the run does not add up: of {stats.consumed:,} messages that were read, {abs(stats.pending):,} are "
            f"{'nowhere' if stats.pending > 0 else 'in two places'} (events {stats.written}, dead letters "
            f"{stats.dead_letters:,}, there already {stats.already_covered:,}). `k2beam audit` tells what the tables "
            "have; run it again: what was committed is left out, the rest is taken"
        )


def without_lost_counts(catalog: Catalog, namespace: str, stats: IngestStats) -> IngestStats:
    """The stats, and ``pending`` None where the runner lost counts: it read fewer messages than there are rows.

    Prism (2.77) was seen to leave a bundle's messages out of its counts while it counted its rows. Only where the event
    tables have as many rows as they cover offsets, by their metadata: nothing is in two places then. Raises
    UnreadableFile.
    """
    if stats.pending is None or stats.pending >= 0 or not _each_once(catalog, namespace):
        return stats
    get_logger("job").warning(
        "the runner lost counts: fewer messages were read than there are rows, and each row is there once",
        consumed=stats.consumed,
        rows=sum(stats.written.values()),
    )
    return replace(stats, pending=None)


def _each_once(catalog: Catalog, namespace: str) -> bool:
    tables = [table for name in EVENT_TABLES.values() if (table := find_readable(catalog, namespace, name)) is not None]
    covered, rows = Coverage(), 0
    for table in tables:
        covered.update(Coverage.from_properties(table.properties))
        rows += sum(task.file.record_count for task in plan_files(table))
    return rows == len(covered - read_holes(catalog, namespace))


def _spread(counters: Mapping[str, int], name: str) -> dict[str, int]:
    if not (count := counters.get(f"{name}_count", 0)):
        return {}
    ends = {end: counters[f"{name}_{end}"] for end in ("min", "max")}
    return {**ends, "mean": round(counters[f"{name}_sum"] / count)}


def rows_of_run(catalog: Catalog, namespace: str, run_id: str) -> int:
    """How many rows of events and dead letters the run with ``run_id`` has committed so far."""
    return sum(_of_run(catalog, namespace, name, run_id)[0] for name in _COUNTED)


def rows_counted(counters: Mapping[str, int]) -> int:
    """The same by Beam's counters, which come after a commit."""
    return sum(counters.get(f"rows_written_{name}", 0) for name in _COUNTED)


def _of_run(catalog: Catalog, namespace: str, name: str, run_id: str) -> tuple[int, list[int]]:
    table = find_readable(catalog, namespace, name)
    if table is None:
        return 0, []
    kept = {
        snapshot.snapshot_id: int(snapshot.summary.additional_properties.get(ROWS_ADDED, 0))
        for snapshot in table.metadata.snapshots
        if snapshot.summary is not None and snapshot.summary.additional_properties.get(RUN_ID) == run_id
    }
    record = run_record(table.properties, run_id)
    # The record of a run that committed nothing while many others did may have been forgotten.
    return sum(kept.values()) if record is None else record.rows, list(kept)
