"""What a Kafka cluster has: topics with their identity, and where their partitions begin and end."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]
from pyroaring import BitMap64
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from k2beam.coverage import Coverage, span
from k2beam.errors import K2BeamError, KafkaUnreachable, UsageError
from k2beam.kafka.config import READ_COMMITTED, KafkaConfig
from k2beam.kafka.cursor import AWAY

TIMEOUT_SECONDS = 20.0
CLIENT_LOG = logging.getLogger("k2beam.kafka.client")
"""Where librdkafka's own lines go, which it would else write to standard error."""
PATIENCE_SECONDS = 300.0
"""How long a running job waits for a cluster that is away."""
ASK_SECONDS = 5.0
"""How long a running job waits for one answer before it says that there is none, and asks again."""
ONE_MESSAGE: dict[str, Any] = {
    **READ_COMMITTED,
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "queued.min.messages": 1,
    # A consumer that has enough waits a second before it fetches again, also when it's sent to another offset.
    "fetch.queue.backoff.ms": 0,
    "fetch.message.max.bytes": 16_384,
    "fetch.wait.max.ms": 50,
}
"""Settings of a consumer that looks at single messages: by default it would fetch megabytes ahead."""
FirstGiven = Callable[[str, int, BitMap64], int | None]
"""The first of some offsets of a source partition that the log gives; None where it gives none."""
REPEAT_SECONDS = 60.0
"""How often the same line of librdkafka is shown."""
_NO_SUCH_TOPIC = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION, KafkaError.TOPIC_AUTHORIZATION_FAILED}
)

_SETTLING = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }
)
"""What brokers say for a moment after they have started."""


class _Repeats(logging.Filter):
    """Shows a line once a minute: a client says the same at each try to reach a broker that is away."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        line, now = record.getMessage().partition(" (after ")[0], time.monotonic()
        self._said = {old: moment for old, moment in self._said.items() if now - moment < REPEAT_SECONDS}
        if line in self._said:
            return False
        self._said[line] = now
        return True


CLIENT_LOG.addFilter(_Repeats())


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
    """A connection to a cluster for asking; reads no messages.

    Raises KafkaUnreachable when no answer comes within ``timeout_s`` seconds.
    """

    def __init__(self, config: KafkaConfig, timeout_s: float = TIMEOUT_SECONDS) -> None:
        self._config = config
        self._timeout_s = timeout_s
        self._admin = AdminClient({**config.librdkafka()}, logger=CLIENT_LOG)

    def topics(self, names: Sequence[str], pattern: str | None = None) -> list[Topic]:
        """The topics called ``names``, and those that match ``pattern`` as a whole, Kafka's internal ones left out.

        Raises UsageError for a name that does not exist and a pattern that matches nothing or is none.
        """
        wanted = sorted({*names, *self._matching(pattern)})
        if not wanted:
            raise UsageError("no topic: give --topic NAME or --topic-pattern REGEX")
        cluster_id = self._asked(self._admin.describe_cluster(request_timeout=self._timeout_s)).cluster_id
        futures = self._admin.describe_topics(TopicCollection(wanted), request_timeout=self._timeout_s)
        self._admin.poll(0)  # hands over the client's log lines
        return [self._topic(cluster_id, name, futures[name]) for name in wanted]

    def keep_every_message(self, topics: Iterable[Topic]) -> frozenset[str]:
        """The sources whose log is not compacted: what retention has left of it is all that was ever written.

        Not among them, and warned of: a topic whose settings the broker does not tell (that needs the right to describe
        them).
        """
        resources = {ConfigResource(ResourceType.TOPIC, topic.name): topic for topic in topics}
        asked = self._admin.describe_configs(list(resources), request_timeout=self._timeout_s)
        policies = {topic.source: self._policy(topic, asked[resource]) for resource, topic in resources.items()}
        return frozenset(source for source, policy in policies.items() if policy == "delete")

    def _policy(self, topic: Topic, future: Any) -> str:
        try:
            return str(future.result(timeout=self._timeout_s + 1)["cleanup.policy"].value)
        except TimeoutError as error:
            raise self._silent() from error
        except (KafkaException, KeyError) as error:
            if isinstance(error, KafkaException) and error.args[0].code() in AWAY:
                raise self._unreachable(error) from error
            CLIENT_LOG.warning("the broker does not tell whether topic %s is compacted: %s", topic.name, error)
            return "unknown"

    def bounds(self, topics: Iterable[Topic]) -> dict[tuple[str, int], Bounds]:
        """Where each partition begins and ends now, by (source, partition).

        A transaction that is open ends it: what comes behind it can't be read yet.
        """
        settings = {**READ_COMMITTED, "group.id": "k2beam-bounds", "enable.auto.commit": False}
        consumer = Consumer({**self._config.librdkafka(), **settings})
        try:
            return {
                (topic.source, partition): Bounds(
                    *self._settled(
                        consumer.get_watermark_offsets,
                        TopicPartition(topic.name, partition),
                        timeout=self._timeout_s,
                    )
                )
                for topic in topics
                for partition in topic.partitions
            }
        except KafkaException as error:
            raise self._unreachable(error) from error
        finally:
            consumer.close()

    def seed_group(self, group: str, topics: Iterable[Topic], starts: Mapping[tuple[str, int], int]) -> None:
        """Set the committed offsets of a fresh group, which is where ReadFromKafka starts.

        A cluster that has just started may not have the coordinator of the group yet: it is waited for.
        """
        offsets = [
            TopicPartition(topic.name, partition, starts[topic.source, partition])
            for topic in topics
            for partition in topic.partitions
        ]
        consumer = Consumer({**self._config.librdkafka(), "group.id": group, "enable.auto.commit": False})
        try:
            for done in self._settled(consumer.commit, offsets=offsets, asynchronous=False) or ():
                if done.error is not None:
                    raise K2BeamError(f"the start of {done.topic}-{done.partition} can't be set: {done.error.str()}")
        except KafkaException as error:
            raise self._unreachable(error) from error
        finally:
            consumer.close()

    def _settled(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """The answer to ``call``; brokers that have just started are given the time to settle."""
        retrying = Retrying(
            retry=retry_if_exception(_is_settling),
            wait=wait_fixed(0.5),
            stop=stop_after_delay(self._timeout_s),
            reraise=True,
        )
        return retrying(call, *args, **options)

    def _matching(self, pattern: str | None) -> list[str]:
        if pattern is None:
            return []
        found = self.names(pattern)
        if not found:
            raise UsageError(
                f"--topic-pattern {pattern!r} matches no topic: see what there is, or make the topic first"
            )
        return found

    def names(self, pattern: str) -> list[str]:
        """The names that match ``pattern`` as a whole, sorted. Raises UsageError for what is not a regular expression.

        Names that begin with ``__`` are Kafka's own, such as __consumer_offsets, and match nothing.
        """
        try:
            matches = re.compile(pattern).fullmatch
        except re.error as error:
            raise UsageError(f"--topic-pattern {pattern!r} is not a regular expression: {error}") from error
        try:
            known = self._admin.list_topics(timeout=self._timeout_s).topics
        except KafkaException as error:
            raise self._unreachable(error) from error
        return sorted(name for name in known if not name.startswith("__") and matches(name))

    def _topic(self, cluster_id: str, name: str, future: Any) -> Topic:
        found = self._asked(future, f"topic {name!r}")
        source = f"kafka:{cluster_id}/{name}/{found.topic_id}"
        return Topic(name, source, tuple(sorted(partition.id for partition in found.partitions)))

    def _asked(self, future: Any, what: str = "") -> Any:
        try:
            # The client gives up by itself after the same time, and then says why: it may be the first to.
            return future.result(timeout=self._timeout_s + 1)
        except KafkaException as error:
            if what and error.args[0].code() in _NO_SUCH_TOPIC:
                raise UsageError(f"{what} can't be described: {error.args[0].str()}") from error
            raise self._unreachable(error) from error
        except TimeoutError as error:
            raise self._silent() from error

    def _silent(self) -> KafkaUnreachable:
        return KafkaUnreachable(
            f"Kafka at {self._config.bootstrap} can't be reached: no answer for {self._timeout_s:g} s"
        )

    def _unreachable(self, error: KafkaException) -> KafkaUnreachable:
        return KafkaUnreachable(f"Kafka at {self._config.bootstrap} can't be reached: {error.args[0].str()}")


def _is_settling(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in _SETTLING


def first_wanted(bound: Bounds, taken: BitMap64) -> int:
    """The first offset of a partition that belongs in the tables, by what the broker has and what was ``taken``."""
    return min(bound.low, taken.min()) if taken else bound.low


def start_offsets(
    bounds: Mapping[tuple[str, int], Bounds], coverage: Coverage, first_given: FirstGiven | None = None
) -> dict[tuple[str, int], int]:
    """The first offset of each partition that the tables do not have, within what the broker has.

    Legal holes are left out where ``first_given`` (:meth:`k2beam.kafka.holes.HoleProbe.first_given`) says so: a log
    with transaction markers would else be read again from its first marker on. It's asked only about partitions of
    which something was taken.
    """
    starts = {}
    for key, bound in bounds.items():
        missing = span(bound.low, bound.end) - coverage[key]
        start: int | None = missing.min() if missing else None
        if start is not None and coverage[key] and first_given is not None:
            start = first_given(*key, missing)
        starts[key] = bound.end if start is None else start
    return starts
