"""What a job is told, as frozen configuration; nothing here imports Beam.

Nothing here holds a secret: catalogs and servers take theirs from their own configuration or
from named environment variables.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from k2beam.config import COMMIT_AGE_OF_GOAL_SECONDS, LakeConfig, Retention, WriteConfig
from k2beam.errors import UsageError
from k2beam.kafka.config import KafkaConfig
from k2beam.metrics.config import MetricsConfig

if TYPE_CHECKING:
    from k2beam.sequence import SequenceRules

MAX_DEAD_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class IngestConfig:
    """Everything that the pipeline needs to know, whatever its source.

    ``gap_grace_seconds``: how long a live job waits for a message that is late before its gap is declared.
    ``dead_letters_json``: a folder for a copy of the dead letters as JSON lines. ``adopt``: take over tables that
    another program has made (:func:`k2beam.lake.adopt.check_tables`). ``max_dead_share``: nothing is taken where more
    than this share of the first messages would be dead letters (:func:`k2beam.job.first.check_first`; 1.0: all is).
    ``evolve``: a field that no column has becomes an optional column of the table, and not an entry of ``vendor_data``.
    ``replay_dead_letters``: offsets of dead letters are taken once more; what fails again stays as it is.
    ``only_missing``: an event whose number the tables have from elsewhere is left out, and its offset becomes a legal
    hole (:mod:`k2beam.job.only_missing`); of a source that can be read here and now.
    ``sequences``: how exchanges number their messages, kept with the tables (None: as it is kept). It may be used for
    any number of runs; one with a ``write.run_id`` is for one, since the stats of a run are counted by that id.
    Raises UsageError for a grace below 0, and for a share that is none.

    Examples:
        >>> from k2beam import IngestConfig, LakeConfig, WriteConfig
        >>> config = IngestConfig(LakeConfig("warehouse"), WriteConfig(commit_rows=100_000), dead_letters_json="dead")
        >>> config.lake.warehouse, config.write.commit_rows, config.gap_grace_seconds
        ('warehouse', 100000, 5.0)
    """

    lake: LakeConfig
    write: WriteConfig = field(default_factory=WriteConfig)
    gap_grace_seconds: float = 5.0
    dead_letters_json: str | None = None
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    adopt: bool = False
    max_dead_share: float = MAX_DEAD_SHARE
    sequences: SequenceRules | None = None
    evolve: bool = False
    replay_dead_letters: bool = False
    only_missing: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_dead_share <= 1:
            raise UsageError(f"--max-dead-share must be from 0 to 1, not {self.max_dead_share}")
        if self.gap_grace_seconds < 0:
            raise UsageError(f"--gap-grace must not be below 0, not {self.gap_grace_seconds}")

    def for_one_run(self) -> IngestConfig:
        """The same with an id of the run, by which its snapshots are known: a new one where none was given."""
        if self.write.run_id:
            return self
        return replace(self, write=replace(self.write, run_id=uuid.uuid4().hex))


LOCAL_EXPANSION = "localhost:8097"
"""Where ``k2beam stack`` starts the Java expansion service."""


STALL_SECONDS = 600.0
"""Longer than a broker, a catalog or a store is waited for."""


class Reader(StrEnum):
    """What reads the topics: Beam's ReadFromKafka, in Java, or librdkafka, in Python."""

    BEAM = "beam"
    LIBRDKAFKA = "librdkafka"


class Existing(StrEnum):
    """What to do where the same job runs on its Flink cluster already, such as one whose client was killed.

    ``REFUSE`` starts nothing, ``ATTACH`` follows the job that runs, and ``REPLACE`` ends it first. Without such a job
    all three start one.
    """

    REFUSE = "refuse"
    ATTACH = "attach"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class LiveConfig:
    """What to read and when to stop: never (both off), at the ends found at the start, or after a number of offsets.

    ``expansion``: the Java expansion service of Beam's reader, and of both on Flink, as ``host:port``;
    ``localhost:8097`` if none is given. ``reader``: by default that of librdkafka on Prism, unless ``expansion`` or
    properties of the Java consumer are given, and Beam's on every other runner. ``topics`` are names, ``topic_pattern``
    is a regular expression that whole names match. ``retention``: which snapshots each commit leaves in its table
    (None: all), unless the WriteConfig has one of its own: a job that commits for years would pile them up.
    ``stall_seconds``: a job that takes nothing for so long, and longer than rows wait for their commit, while the
    broker has messages for it, ends with an error (0: it never does). ``existing``: what to do on Flink where the same
    job runs already.

    Examples:
        >>> from k2beam import KafkaConfig, LiveConfig
        >>> kafka = KafkaConfig("localhost:9092")
        >>> LiveConfig(kafka, topic_pattern=r"market[.]crypto[.].*", until_caught_up=True).has_goal
        True
    """

    kafka: KafkaConfig
    expansion: str | None = None
    topics: tuple[str, ...] = ()
    topic_pattern: str | None = None
    until_caught_up: bool = False
    max_messages: int | None = None
    retention: Retention | None = field(default_factory=Retention)
    reader: Reader | None = None
    stall_seconds: float = STALL_SECONDS
    existing: Existing = Existing.REFUSE

    def reader_on(self, *, prism: bool, flink: bool = False) -> Reader:
        """The reader to take on a runner; ``flink`` is a cluster. Raises UsageError for librdkafka's where it can't be.

        Examples:
            >>> from k2beam import KafkaConfig, LiveConfig
            >>> str(LiveConfig(KafkaConfig("localhost:9092")).reader_on(prism=True))
            'librdkafka'
        """
        if self.reader is None:
            of_java = self.expansion is not None or self.kafka.properties
            return Reader.LIBRDKAFKA if prism and not of_java else Reader.BEAM
        if self.reader is Reader.LIBRDKAFKA:
            if not (prism or flink):
                raise UsageError(
                    "--reader librdkafka is for Prism and for Flink clusters: leave it out, or take "
                    "--runner=PrismRunner after --"
                )
            if self.expansion is not None and not flink:
                raise UsageError("--expansion is for --reader beam, and for Flink: leave one of the two out")
            if self.kafka.properties:
                raise UsageError("--kafka-property is of the Java consumer: take --reader beam, or leave it out")
        return self.reader

    @property
    def has_goal(self) -> bool:
        """Whether the job is to end by itself."""
        return self.until_caught_up or self.max_messages is not None

    def of(self, write: WriteConfig) -> WriteConfig:
        """How a live job writes: never bounded, and by the age that fits its end and the retention if none is given."""
        age = write.commit_age_seconds
        if age is None and self.has_goal:
            age = COMMIT_AGE_OF_GOAL_SECONDS
        return replace(write, bounded=False, commit_age_seconds=age, retention=write.retention or self.retention)
