"""Finds partitions and topics that came after a job had started."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Sequence

from k2beam.errors import KafkaUnreachable, UsageError
from k2beam.kafka.cluster import ASK_SECONDS, Cluster, Topic
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.reader import Position, TopicReader
from k2beam.topics import topic_of_source

DISCOVERY_SECONDS = 10.0
"""How often it looks."""


class Discovery:
    """Looks for partitions that topics have got since, and for topics that ``pattern`` matches since.

    A cluster that is away has no news; nor has a topic that is gone, which is for the guard to tell.

    Examples:
        >>> from k2beam import KafkaConfig
        >>> from k2beam.kafka.cluster import Cluster
        >>> from k2beam.kafka.discovery import Discovery
        >>> (found,) = Cluster(KafkaConfig(bootstrap)).topics([topic])
        >>> Discovery(KafkaConfig(bootstrap)).look([(found.source, 0)])
        []
    """

    def __init__(self, config: KafkaConfig, pattern: str | None = None) -> None:
        self._cluster = Cluster(config, ASK_SECONDS)
        self._pattern = pattern
        self._due = time.monotonic() + DISCOVERY_SECONDS

    def look(self, known: Collection[tuple[str, int]]) -> list[tuple[Topic, int]]:
        """Partitions, with their topic, that are not among the ``known`` source partitions.

        Asks the cluster every ten seconds, and gives nothing meanwhile. Nothing is given of a topic that was made anew.
        """
        if time.monotonic() < self._due:
            return []
        self._due = time.monotonic() + DISCOVERY_SECONDS
        sources = {topic_of_source(source): source for source, _ in known}
        return [
            (topic, partition)
            for topic in self._topics(sorted(sources))
            if topic.source == sources.get(topic.name, topic.source)
            for partition in topic.partitions
            if (topic.source, partition) not in known
        ]

    def _topics(self, names: Sequence[str]) -> Sequence[Topic]:
        with contextlib.suppress(KafkaUnreachable, UsageError):
            return self._cluster.topics(names, self._pattern)
        return ()


class FollowingReader:
    """A :class:`TopicReader` that also reads what its topics get; pickles as long as it is closed."""

    def __init__(self, config: KafkaConfig, pattern: str | None, rows: int) -> None:
        self._config = config
        self._pattern = pattern
        self._rows = rows
        self._reader: TopicReader | None = None
        self._discovery: Discovery | None = None

    def at(self, positions: Sequence[Position]) -> TopicReader:
        """The reader, sent to ``positions`` and to the beginnings of what came since; connects when first asked.

        Raises what :meth:`TopicReader.go_to` does. After an error of the reader close it: what it had taken, and not
        given out, would be missing (Beam makes a DoFn anew whose bundle failed, and closes the old one).
        """
        self._reader = self._reader or TopicReader(self._config, self._rows)
        self._discovery = self._discovery or Discovery(self._config, self._pattern)
        known = {(position.source, position.partition) for position in positions}
        news = self._discovery.look(known)
        beginnings = (Position(topic.name, topic.source, partition, 0) for topic, partition in news)
        self._reader.go_to((*positions, *beginnings))
        return self._reader

    def close(self) -> None:
        """End the connections, if there are any; :meth:`at` makes others."""
        if self._reader is not None:
            self._reader.close()
        self._reader = self._discovery = None
