"""What a Kafka cluster has: topics with their identity, and where their partitions begin and end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from k2beam.coverage import Coverage, end_of_run
from k2beam.errors import K2BeamError, UsageError
from k2beam.kafka.config import KafkaConfig

TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it is now. ``source`` names where its offsets count: a topic made anew is another."""

    name: str
    source: str
    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Offsets of a partition that the broker has: ``low`` to ``end`` (exclusive)."""

    low: int
    end: int


class Cluster:
    """A connection to a cluster for asking; reads no messages. Raises K2BeamError when it can't be reached."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._admin = AdminClient({**config.librdkafka()})

    def topics(self, names: Sequence[str], pattern: str | None = None) -> list[Topic]:
        """The topics called ``names``, and those that match ``pattern`` as a whole.

        Raises UsageError for a name that does not exist and a pattern that matches nothing.
        """
        wanted = sorted({*names, *self._matching(pattern)})
        if not wanted:
            raise UsageError("no topic: give --topic NAME or --topic-pattern REGEX")
        cluster_id = self._asked(self._admin.describe_cluster(request_timeout=TIMEOUT_SECONDS)).cluster_id
        futures = self._admin.describe_topics(TopicCollection(wanted), request_timeout=TIMEOUT_SECONDS)
        return [self._topic(cluster_id, name, futures[name]) for name in wanted]

    def bounds(self, topics: Iterable[Topic]) -> dict[tuple[str, int], Bounds]:
        """Where each partition begins and ends now, by (source, partition)."""
        consumer = Consumer({**self._config.librdkafka(), "group.id": "k2beam-bounds", "enable.auto.commit": False})
        try:
            return {
                (topic.source, partition): Bounds(
                    *consumer.get_watermark_offsets(TopicPartition(topic.name, partition), timeout=TIMEOUT_SECONDS)
                )
                for topic in topics
                for partition in topic.partitions
            }
        except KafkaException as error:
            raise self._unreachable(error) from error
        finally:
            consumer.close()

    def seed_group(self, group: str, topics: Iterable[Topic], starts: Mapping[tuple[str, int], int]) -> None:
        """Set the committed offsets of a fresh group, which is where ReadFromKafka starts."""
        offsets = [
            TopicPartition(topic.name, partition, starts[topic.source, partition])
            for topic in topics
            for partition in topic.partitions
        ]
        consumer = Consumer({**self._config.librdkafka(), "group.id": group, "enable.auto.commit": False})
        try:
            for done in consumer.commit(offsets=offsets, asynchronous=False) or ():
                if done.error is not None:
                    raise K2BeamError(f"the start of {done.topic}-{done.partition} can't be set: {done.error.str()}")
        except KafkaException as error:
            raise self._unreachable(error) from error
        finally:
            consumer.close()

    def _matching(self, pattern: str | None) -> list[str]:
        if pattern is None:
            return []
        try:
            known = self._admin.list_topics(timeout=TIMEOUT_SECONDS).topics
        except KafkaException as error:
            raise self._unreachable(error) from error
        found = [name for name in known if re.fullmatch(pattern, name)]
        if not found:
            raise UsageError(f"--topic-pattern {pattern!r} matches none of the {len(known)} topics")
        return found

    def _topic(self, cluster_id: str, name: str, future: Any) -> Topic:
        found = self._asked(future, f"topic {name!r}")
        source = f"kafka:{cluster_id}/{name}/{found.topic_id}"
        return Topic(name, source, tuple(sorted(partition.id for partition in found.partitions)))

    def _asked(self, future: Any, what: str = "") -> Any:
        try:
            return future.result(timeout=TIMEOUT_SECONDS)
        except KafkaException as error:
            if what:
                raise UsageError(f"{what} can't be described: {error.args[0].str()}") from error
            raise self._unreachable(error) from error

    def _unreachable(self, error: KafkaException) -> K2BeamError:
        return K2BeamError(f"Kafka at {self._config.bootstrap} can't be asked: {error.args[0].str()}")


def start_offsets(bounds: Mapping[tuple[str, int], Bounds], coverage: Coverage) -> dict[tuple[str, int], int]:
    """The first offset of each partition that the tables do not have, within what the broker has."""
    starts = {}
    for key, bound in bounds.items():
        covered = coverage[key]
        start = end_of_run(covered, bound.low) + 1 if bound.low in covered else bound.low
        starts[key] = min(start, bound.end)
    return starts
