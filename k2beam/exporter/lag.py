"""Lag, age of the backlog, coverage and losses of topics: the broker's ends beside the coverage of the tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from k2beam.clock import now_us
from k2beam.coverage import Coverage, SourcePartition
from k2beam.errors import K2BeamError, UsageError
from k2beam.exporter.backlog import Backlog, Backlogs, Peek
from k2beam.exporter.readings import Tables
from k2beam.kafka.count import missing_of
from k2beam.lake.commit import read_coverage
from k2beam.lake.holes import read_holes
from k2beam.lake.recorded import read_first_offsets
from k2beam.metrics.handle import Metrics

if TYPE_CHECKING:
    from k2beam.kafka.cluster import Bounds, Topic

Place = tuple[str, str]
"""Topic and partition, as labels of a gauge."""


class Asked(Protocol):
    """What is asked of a cluster (:class:`k2beam.kafka.cluster.Cluster`)."""

    def topics(self, names: Sequence[str], pattern: str | None = None) -> list[Topic]: ...

    def bounds(self, topics: Collection[Topic]) -> dict[tuple[str, int], Bounds]: ...


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """How far the tables are behind one partition: messages, and seconds (None: not known)."""

    lag: int
    behind: float | None
    covered: int
    lost: int


class TopicLag:
    """How far the tables are behind each partition of some topics.

    Only the topic that has the name now counts: what the tables have of one that was deleted is coverage of another
    source. A topic that can't be read does not keep the others from being read.
    """

    def __init__(
        self,
        lake: Tables,
        connect: Callable[[], Asked],
        peek: Peek,
        names: Sequence[str],
        pattern: str | None = None,
        *,
        now: Callable[[], int] = now_us,
    ) -> None:
        self._lake = lake
        self._connect = connect
        self._cluster: Asked | None = None
        self._backlogs = Backlogs(peek)
        self._names = names
        self._pattern = pattern
        self._now = now

    def read(self) -> tuple[dict[Place, PartitionLag], list[str]]:
        """Each partition that could be read, and what is wrong with the others.

        Raises K2BeamError, or an error of the catalog, the store or the broker, when nothing could be read.
        """
        if self._cluster is None:
            self._cluster = self._connect()
        problems: list[str] = []
        topics = self._topics(self._cluster, problems)
        bounds = {topic: found for topic in topics if (found := self._bounds(self._cluster, topic, problems))}
        # After the broker's ends: what is written in between is not yet lag, and is not expected either.
        covered = read_coverage(self._lake.catalog, self._lake.namespace)
        first_offsets = read_first_offsets(self._lake.catalog, self._lake.namespace)
        everywhere = {key: bound for found in bounds.values() for key, bound in found.items()}
        missing = missing_of(everywhere, covered, first_offsets)
        covered.update(read_holes(self._lake.catalog, self._lake.namespace, missing))
        self._backlogs.keep(topics)
        lags: dict[Place, PartitionLag] = {}
        for topic, found in bounds.items():
            try:
                states = self._states(topic, found, covered, first_offsets)
            except K2BeamError as error:
                problems.append(str(error))
                continue
            lags |= {(topic.name, str(partition)): self._lag_of(state) for partition, state in states.items()}
        return lags, problems

    def _lag_of(self, state: Backlog) -> PartitionLag:
        return PartitionLag(state.lag, self._behind_seconds(state), state.covered, state.lost)

    def _topics(self, cluster: Asked, problems: list[str]) -> list[Topic]:
        """The topics that there are. One that is gone is a problem; that no topic is left is an error."""
        try:
            return cluster.topics(self._names, self._pattern)
        except UsageError as error:
            found = self._one_by_one(cluster, problems)
            if not found:
                raise K2BeamError(str(error)) from error
            return found

    def _one_by_one(self, cluster: Asked, problems: list[str]) -> list[Topic]:
        wanted: list[tuple[tuple[str, ...], str | None]] = [((name,), None) for name in self._names]
        if self._pattern is not None:
            wanted.append(((), self._pattern))
        found: dict[str, Topic] = {}
        for names, pattern in wanted:
            try:
                found |= {topic.name: topic for topic in cluster.topics(names, pattern)}
            except UsageError as error:
                problems.append(str(error))
        return list(found.values())

    def _bounds(self, cluster: Asked, topic: Topic, problems: list[str]) -> dict[tuple[str, int], Bounds]:
        """Where the partitions of a topic begin and end; empty, and a problem, where the broker does not say."""
        try:
            return cluster.bounds([topic])
        except K2BeamError as error:
            problems.append(f"topic {topic.name}: {error}")
            return {}

    def _states(
        self,
        topic: Topic,
        bounds: dict[tuple[str, int], Bounds],
        covered: Coverage,
        first_offsets: Mapping[SourcePartition, int],
    ) -> dict[int, Backlog]:
        keys = {partition: SourcePartition(topic.source, partition) for partition in topic.partitions}
        return {
            partition: self._backlogs.of(topic, partition, bounds[key], covered[key], first_offsets.get(key))
            for partition, key in keys.items()
        }

    def _behind_seconds(self, state: Backlog) -> float | None:
        """None where there is a backlog whose oldest message has no known time. Never below 0: clocks differ."""
        if not state.lag:
            return 0.0
        return None if state.oldest is None else max(0.0, (self._now() - state.oldest) / 1e6)


class LagReading:
    """The lag of topics as gauges. What could not be read has none."""

    name = "kafka"

    def __init__(self, lag: TopicLag, metrics: Metrics) -> None:
        self._lag = lag
        self._metrics = metrics
        self._shown: set[Place] = set()

    def read(self) -> Sequence[str]:
        lags, problems = self._lag.read()
        for (topic, partition), lag in lags.items():
            self._show(topic, partition, lag)
        self._remove(self._shown - lags.keys())
        self._shown = set(lags)
        return problems

    def forget(self) -> None:
        self._remove(self._shown)
        self._shown = set()

    def _show(self, topic: str, partition: str, state: PartitionLag) -> None:
        self._metrics.gauge("k2_source_lag_messages", state.lag, topic=topic, partition=partition)
        self._metrics.gauge("k2_source_covered_offsets", state.covered, topic=topic, partition=partition)
        self._metrics.gauge("k2_source_lost_offsets", state.lost, topic=topic, partition=partition)
        if state.behind is None:
            self._metrics.remove_gauge("k2_source_behind_seconds", topic=topic, partition=partition)
        else:
            self._metrics.gauge("k2_source_behind_seconds", state.behind, topic=topic, partition=partition)

    def _remove(self, gone: set[Place]) -> None:
        for topic, partition in gone:
            self._metrics.remove_gauge("k2_source_lag_messages", topic=topic, partition=partition)
            self._metrics.remove_gauge("k2_source_covered_offsets", topic=topic, partition=partition)
            self._metrics.remove_gauge("k2_source_lost_offsets", topic=topic, partition=partition)
            self._metrics.remove_gauge("k2_source_behind_seconds", topic=topic, partition=partition)
