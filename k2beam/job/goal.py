"""What a live job is to take, from where, and when it is over."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyroaring import BitMap64

from k2beam.coverage import Coverage, span
from k2beam.job.config import IngestConfig, LiveConfig
from k2beam.job.holes import HoleKeeper
from k2beam.kafka.cluster import Bounds, Cluster, Topic
from k2beam.kafka.holes import HoleProbe
from k2beam.lake.catalog import Catalog
from k2beam.lake.commit import read_coverage

COMMITTED_SECONDS = 5.0
"""How often a job that ends by itself looks whether all is committed: it costs the reading of all tables' metadata."""
DRAIN_SECONDS = 30.0
"""How long a job that ends by itself may take for it, once all is committed."""


@dataclass(frozen=True, slots=True)
class Goal:
    """The offsets of each partition that are to be taken: from the start to the end as found then."""

    starts: Mapping[tuple[str, int], int]
    bounds: Mapping[tuple[str, int], Bounds]

    def missing(self, covered: Coverage) -> dict[tuple[str, int], BitMap64]:
        """What is not covered yet, by source partition."""
        return self._missing_below({key: bound.end for key, bound in self.bounds.items()}, covered)

    def taken(self, covered: Coverage, holes: Coverage) -> int:
        """How many offsets of these source partitions are covered, but for ``holes``."""
        return sum(len(covered[key] - holes[key]) for key in self.bounds)

    def missing_within(self, covered: Coverage) -> dict[tuple[str, int], BitMap64]:
        """What is not covered between the starts and the last offsets that are, by source partition."""
        return self._missing_below({key: covered[key].max() for key in self.bounds if covered[key]}, covered)

    def _missing_below(self, ends: Mapping[tuple[str, int], int], covered: Coverage) -> dict[tuple[str, int], BitMap64]:
        missing = {key: span(self.starts[key], end) - covered[key] for key, end in ends.items()}
        return {key: left for key, left in missing.items() if left}


@dataclass(frozen=True, slots=True)
class Start:
    """What a job begins with: its topics, what is to be taken of them, and what the tables had."""

    cluster: Cluster
    topics: Sequence[Topic]
    goal: Goal
    catalog: Catalog
    covered: Coverage
    probe: HoleProbe
    keeper: HoleKeeper

    def waiting(self, covered: Coverage) -> dict[tuple[str, int], BitMap64]:
        """What the broker has now, of what the job is to take, and ``covered`` has not."""
        return Goal(self.goal.starts, self.cluster.bounds(self.topics)).missing(covered)

    def is_caught_up(self) -> bool:
        """Whether nothing was left to take, by what the probe knows already."""
        return not self.probe.known(self.goal.missing(self.covered))


class Ending:
    """When a job is over, by what is committed. One that ends ``by_itself`` (its reader has an end) is let run on."""

    def __init__(self, live: LiveConfig, config: IngestConfig, start: Start, *, by_itself: bool) -> None:
        self.by_itself = by_itself
        self._live = live
        self._namespace = config.lake.namespace
        self._start = start
        self._all_there_at: float | None = None
        self._look_at = 0.0
        self._taken_before = start.goal.taken(start.covered, start.probe.holes) if live.has_goal else 0

    def is_reached(self, *, ended: bool) -> bool:
        """Whether the goal is; ``ended``: the job has come to its end."""
        start, live = self._start, self._live
        if not live.has_goal:
            return False
        if self.by_itself and not ended and live.max_messages is None:
            if time.monotonic() < self._look_at:
                return False
            self._look_at = time.monotonic() + COMMITTED_SECONDS
        covered = read_coverage(start.catalog, self._namespace)
        taken = start.goal.taken(covered, start.probe.holes) - self._taken_before
        if live.max_messages is not None and taken >= live.max_messages:
            return True
        if not live.until_caught_up or start.probe.without_holes(start.goal.missing(covered)):
            return False
        if self._all_there_at is None:
            self._all_there_at = time.monotonic()
        return ended or not self.by_itself or time.monotonic() - self._all_there_at > DRAIN_SECONDS
