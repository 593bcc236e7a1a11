"""Watches that the topics of a running job are still the ones that it started with."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from k2beam.errors import K2BeamError, KafkaUnreachable, UsageError
from k2beam.kafka.cluster import ASK_SECONDS, PATIENCE_SECONDS, Cluster, Topic
from k2beam.kafka.config import KafkaConfig
from k2beam.logs import get_logger

WAIT = wait_random_exponential(multiplier=0.5, max=5.0)
"""Seconds between two questions to a cluster that is away."""

_stops: dict[str, threading.Event] = {}


@dataclass(frozen=True, slots=True)
class TopicGuard:
    """Checked before each commit: a topic that was deleted or made anew counts its offsets anew.

    The job then fails, since it can't tell which of the two a message in flight is from; nothing
    of it is committed, and the next start takes the new topic as a source of its own. A cluster that is
    away is waited for ``patience_s`` seconds: no commit passes unchecked, and none fails at once. A look also tells
    once of each partition that was added, and of each topic that ``pattern`` matches since: they are not read.
    Picklable: it opens its connection where it is first used. ``job`` is what its copies in one process have in
    common, so that :meth:`stop` reaches them.
    """

    config: KafkaConfig
    topics: tuple[Topic, ...]
    patience_s: float = PATIENCE_SECONDS
    pattern: str | None = None
    job: str = field(default_factory=lambda: uuid.uuid4().hex)
    _open: list[Cluster] = field(default_factory=list, compare=False, repr=False)
    _told: set[tuple[str, int | None]] = field(default_factory=set, compare=False, repr=False)

    def __reduce__(self) -> tuple[type[TopicGuard], tuple[KafkaConfig, tuple[Topic, ...], float, str | None, str]]:
        return type(self), (self.config, self.topics, self.patience_s, self.pattern, self.job)

    def check(self) -> None:
        """Raises K2BeamError when a topic is gone or another one than at the start, and when the job was stopped.

        Raises KafkaUnreachable when the cluster did not answer for ``patience_s`` seconds.
        """
        self._compare(self._described)

    def look(self) -> None:
        """The same check without patience: a cluster that is away says nothing about its topics.

        Warns of what came since the start and is not read.
        """
        with contextlib.suppress(KafkaUnreachable):
            self._tell_added(self._compare(self._ask))
            self._tell_matching()

    def _tell_added(self, found: Sequence[Topic]) -> None:
        now = {topic.name: topic.partitions for topic in found}
        for topic in self.topics:
            for partition in sorted({*now[topic.name]} - {*topic.partitions}):
                self._tell(topic.name, partition, "a partition was added and is not read by this job: run it again")

    def _tell_matching(self) -> None:
        if self.pattern is None:
            return
        for name in self._cluster().names(self.pattern):
            if name not in {topic.name for topic in self.topics}:
                self._tell(name, None, "a topic matches --topic-pattern now and is not read by this job: run it again")

    def _tell(self, topic: str, partition: int | None, said: str) -> None:
        if (topic, partition) not in self._told:
            self._told.add((topic, partition))
            where = {"topic": topic} if partition is None else {"topic": topic, "partition": partition}
            get_logger("kafka").warning(said, **where)

    def _compare(self, describe: Callable[[], list[Topic]]) -> list[Topic]:
        try:
            found = describe()
        except UsageError as error:
            raise K2BeamError(f"a topic of this job is gone ({error}); nothing of it is committed any more") from error
        changed = _changed(self.topics, found)
        if changed:
            raise K2BeamError(
                f"topic {', '.join(changed)} was deleted and created again while this job ran: its offsets "
                "start again from 0. What was not committed by then is not taken; start the job again to take the new "
                "topic"
            )
        return found

    def stop(self) -> None:
        """Let nothing of this job pass any more, in this process: a check that waits for the cluster ends too."""
        self._stopped().set()

    def _stopped(self) -> threading.Event:
        return _stops.setdefault(self.job, threading.Event())

    def _described(self) -> list[Topic]:
        stopped = self._stopped()
        retrying = Retrying(
            retry=retry_if_exception_type(KafkaUnreachable),
            wait=WAIT,
            stop=stop_after_delay(self.patience_s) | stop_when_event_set(stopped),
            sleep=sleep_using_event(stopped),
            before_sleep=self._say,
            reraise=True,
        )
        try:
            found: list[Topic] = retrying(self._ask)
        except KafkaUnreachable as error:
            if not stopped.is_set():
                raise KafkaUnreachable(
                    f"{error}; it was waited for {self.patience_s:g} s and nothing was committed meanwhile: "
                    "bring it back and start the job again"
                ) from error
        if stopped.is_set():
            raise K2BeamError("the job was told to stop; what it had not committed by then is for the next run")
        return found

    def _ask(self) -> list[Topic]:
        return self._cluster().topics([topic.name for topic in self.topics])

    def _cluster(self) -> Cluster:
        if not self._open:
            self._open.append(Cluster(self.config, ASK_SECONDS))
        return self._open[0]

    def _say(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        get_logger("kafka").warning(
            "a commit waits for Kafka",
            bootstrap=self.config.bootstrap,
            waited_s=round(state.seconds_since_start or 0.0, 1),
            gives_up_after_s=self.patience_s,
            error=str(error),
        )


def _changed(before: Sequence[Topic], now: Sequence[Topic]) -> list[str]:
    sources = {topic.name: topic.source for topic in now}
    return [topic.name for topic in before if sources[topic.name] != topic.source]
