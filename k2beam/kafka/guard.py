"""Watches that the topics of a running job are still the ones that it started with."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
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
from k2beam.topics import topic_of_source

WAIT = wait_random_exponential(multiplier=0.5, max=5.0)
"""Seconds between two questions to a cluster that is away."""

_stops: dict[str, threading.Event] = {}


@dataclass(frozen=True, slots=True)
class TopicGuard:
    """Checked before each commit: a topic that was deleted or made anew counts its offsets anew.

    The job then fails, since it can't tell which of the two a message in flight is from; nothing
    of it is committed, and the next start takes the new topic as a source of its own. A cluster that is
    away is waited for ``patience_s`` seconds: no commit passes unchecked, and none fails at once.
    Picklable: it opens its connection where it is first used. ``job`` is what its copies in one process have in
    common, so that :meth:`stop` reaches them.
    """

    config: KafkaConfig
    topics: tuple[Topic, ...]
    patience_s: float = PATIENCE_SECONDS
    job: str = field(default_factory=lambda: uuid.uuid4().hex)
    _open: list[Cluster] = field(default_factory=list, compare=False, repr=False)
    _added: dict[str, Topic] = field(default_factory=dict, compare=False, repr=False)

    def __reduce__(self) -> tuple[type[TopicGuard], tuple[KafkaConfig, tuple[Topic, ...], float, str]]:
        return type(self), (self.config, self.topics, self.patience_s, self.job)

    def add(self, topics: Iterable[Topic]) -> None:
        """Watch these too, that came while the job ran; its copies learn of them by what is to be committed."""
        self._added.update((topic.source, topic) for topic in topics)

    def check(self, sources: Collection[str] = ()) -> None:
        """Raises K2BeamError when a topic is gone or another one than at the start, and when the job was stopped.

        ``sources`` are those of what is to be committed: topics that came while the job ran are among them. Raises
        KafkaUnreachable when the cluster did not answer for ``patience_s`` seconds.
        """
        self.add(Topic(topic_of_source(source), source, ()) for source in sources)
        self._compare(self._described)

    def look(self) -> None:
        """The same check without patience: a cluster that is away says nothing about its topics."""
        with contextlib.suppress(KafkaUnreachable):
            self._compare(self._ask)

    def _watched(self) -> list[Topic]:
        return [*self.topics, *self._added.values()]

    def _compare(self, describe: Callable[[], list[Topic]]) -> None:
        try:
            found = describe()
        except UsageError as error:
            raise K2BeamError(f"a topic of this job is gone ({error}); nothing of it is committed any more") from error
        changed = _changed(self._watched(), found)
        if changed:
            raise K2BeamError(
                f"topic {', '.join(changed)} was deleted and created again while this job ran: its offsets "
                "start again from 0. What was not committed by then is not taken; start the job again to take the new "
                "topic"
            )

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
        return self._cluster().topics([topic.name for topic in self._watched()])

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
