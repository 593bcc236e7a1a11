"""How far the tables are behind a partition of a log, by the audit's idea of what they must have.

The audit (k2beam/kafka/count.py) expects every offset from the first one that the tables have, that the broker has, or
from which the first job was to read, whichever is lowest, to the broker's end, but for the log's own holes. Of what is
missing of that, the part below the broker's first offset is lost, and the rest is lag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyroaring import BitMap64

from k2beam.coverage import SourcePartition, runs
from k2beam.kafka.count import since_first

if TYPE_CHECKING:
    from k2beam.kafka.cluster import Bounds, Topic

PROBES = 1_000
"""Stretches of missing offsets of one partition that are looked at in one reading; the oldest ones first."""


@dataclass(frozen=True, slots=True)
class LogMessage:
    """A message's offset and its time in the log: microseconds UTC, None where it has none."""

    offset: int
    time: int | None


Peek = Callable[[str, int, int], LogMessage | None]
"""The first message of a topic's partition at an offset or behind it; None where the log ends before there is one."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """One partition: offsets that no table has, offsets that they have, and offsets that are lost.

    ``oldest`` is the log's time of the oldest message that no table has, in microseconds UTC; None where there is none
    or its time is not known. While there is a backlog, ``lag`` counts the holes in it too: only where a stretch begins
    is the broker asked.
    """

    lag: int
    oldest: int | None
    covered: int
    lost: int


class Backlogs:
    """Finds the backlog of partitions again and again, and remembers the holes: those of a log stay holes."""

    def __init__(self, peek: Peek) -> None:
        self._peek = peek
        self._holes: dict[SourcePartition, BitMap64] = {}

    def keep(self, topics: Iterable[Topic]) -> None:
        """Forget the holes of all other topics."""
        sources = {topic.source for topic in topics}
        self._holes = {key: holes for key, holes in self._holes.items() if key.source in sources}

    def of(
        self, topic: Topic, partition: int, bounds: Bounds, covered: BitMap64, recorded: int | None = None
    ) -> Backlog:
        """The backlog of a partition of which the broker has ``bounds`` and the tables ``covered``.

        ``recorded`` is the offset from which the first job was to read, where there was one. Raises K2BeamError when
        the broker does not answer.
        """
        key = SourcePartition(topic.source, partition)
        holes = self._holes.setdefault(key, BitMap64())
        holes.remove_range(0, bounds.low)
        missing = since_first(bounds, covered, recorded) - covered
        expected = len(missing)
        missing.remove_range(0, bounds.low)
        lost = expected - len(missing)
        oldest = self._probe(topic.name, partition, missing - holes, holes)
        return Backlog(len(missing - holes), oldest.time if oldest else None, len(covered), lost)

    def _probe(self, topic: str, partition: int, unknown: BitMap64, holes: BitMap64) -> LogMessage | None:
        """Add to ``holes`` those at the beginning of a stretch of ``unknown``; gives its oldest message."""
        oldest = None
        for number, (first, last) in enumerate(runs(unknown)):
            if number == PROBES:
                break
            found = self._peek(topic, partition, first)
            end = last if found is None else min(last, found.offset - 1)
            if end >= first:
                holes.add_range(first, end + 1)
            if oldest is None and found is not None and found.offset in unknown:
                oldest = found
        return oldest
