"""Watches that the topics of a running job are still the ones that it started with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from k2beam.errors import K2BeamError, UsageError
from k2beam.kafka.cluster import Cluster, Topic
from k2beam.kafka.config import KafkaConfig


@dataclass(frozen=True, slots=True)
class TopicGuard:
    """Checked before each commit: a topic that was deleted or made anew counts its offsets anew.

    The job then fails, since it can't tell which of the two a message in flight is from; nothing
    of it is committed, and the next start takes the new topic as a source of its own.
    Picklable: it opens its connection where it is first used.
    """

    config: KafkaConfig
    topics: tuple[Topic, ...]
    _open: list[Cluster] = field(default_factory=list, compare=False, repr=False)

    def __reduce__(self) -> tuple[type[TopicGuard], tuple[KafkaConfig, tuple[Topic, ...]]]:
        return type(self), (self.config, self.topics)

    def check(self) -> None:
        """Raises K2BeamError when a topic is gone or another one than at the start."""
        if not self._open:
            self._open.append(Cluster(self.config))
        try:
            found = self._open[0].topics([topic.name for topic in self.topics])
        except UsageError as error:
            raise K2BeamError(f"a topic of this job is gone ({error}); nothing of it is committed any more") from error
        changed = _changed(self.topics, found)
        if changed:
            raise K2BeamError(
                f"topic {', '.join(changed)} was made anew while this job ran: its offsets count anew. "
                "What was not committed by then is not taken; start the job again to take the new topic"
            )


def _changed(before: Sequence[Topic], now: Sequence[Topic]) -> list[str]:
    sources = {topic.name: topic.source for topic in now}
    return [topic.name for topic in before if sources[topic.name] != topic.source]
