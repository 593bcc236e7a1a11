"""Runs the pipeline over Kafka: starts from the coverage, follows what is committed, stops cleanly."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.runners.runner import PipelineState
from pyroaring import BitMap64

from k2beam.coverage import Coverage, span
from k2beam.errors import K2BeamError
from k2beam.flink import FlinkRun
from k2beam.job.beam import AGAIN, ENDED_STATES, cancel, quiet, reason_of, signals_to_us, state_of
from k2beam.job.beside import few_tries, warned
from k2beam.job.bounded import counters
from k2beam.job.config import LOCAL_EXPANSION, IngestConfig, LiveConfig, Reader
from k2beam.job.first import FIRST_MESSAGES, check_first
from k2beam.job.holes import HoleKeeper
from k2beam.job.opening import opened
from k2beam.job.options import beam_options, flink_run, is_prism, uneven_readers
from k2beam.job.pipeline import build
from k2beam.job.progress import Restarts, Stall
from k2beam.job.stats import IngestStats, check_sum, ingest_stats, rows_counted, rows_of_run
from k2beam.kafka.cluster import ASK_SECONDS, Bounds, Cluster, Topic, first_wanted, start_offsets
from k2beam.kafka.count import missing_of
from k2beam.kafka.discovery import Discovery
from k2beam.kafka.guard import TopicGuard
from k2beam.kafka.holes import HoleProbe
from k2beam.kafka.reader import TopicReader, first_positions
from k2beam.lake.catalog import Catalog
from k2beam.lake.commit import read_coverage
from k2beam.lake.evolve import ColumnCheck
from k2beam.lake.publish import commits_done
from k2beam.lake.reconcile import reconcile
from k2beam.lake.recorded import record_first_offsets
from k2beam.logs import get_logger
from k2beam.model import RawBatch
from k2beam.signals import stop_signal
from transforms.beam_reader import BeamReader
from transforms.librdkafka_reader import BUNDLE_SECONDS, LibrdkafkaReader
from transforms.read_kafka import ReadKafka
from transforms.ticked_reader import TickedReader

LIVE_RUNNER = "PrismRunner"
POLL_SECONDS = 0.5
BEGINNING_SECONDS = 30.0
"""How long the first messages are waited for, at most."""
LEAST_WAITING = 20
"""Fewer messages are not judged: a job that is started again must not stay down for some bad ones that came last."""
GUARD_SECONDS = 10.0
"""How often a running job looks whether its topics are still the ones that it started with."""
LEAST_BUNDLE_SECONDS = 0.25
COUNTERS_SECONDS = 5.0
"""How long the end of a job waits for the counters of its last commits."""
COMMITTED_SECONDS = 5.0
"""How often a job that ends by itself looks whether all is committed: it costs the reading of all tables' metadata."""
DRAIN_SECONDS = 30.0
"""How long a job that ends by itself may take for it, once all is committed."""
ENDED_SECONDS = 330.0
"""How long a job that has ended by itself asks the broker about what is missing: longer than a broker is waited for."""
COMMIT_SECONDS = 30.0
"""How long commits that were under way when the job was cancelled are waited for."""


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
class _Start:
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


def run_live(
    live: LiveConfig, config: IngestConfig, beam_arguments: Sequence[str] = (), *, resolver: Any = None
) -> IngestStats:
    """Read topics into the tables until the goal of ``live`` or a SIGINT or SIGTERM; returns the stats.

    Exactly once, whatever happens: the next run starts from the coverage. A Kafka that goes away under the job is
    waited for. Raises K2BeamError when Kafka can't be reached at the start, and when the job ends before its goal.

    Examples:
        >>> from k2beam import IngestConfig, KafkaConfig, LakeConfig, LiveConfig, RegistryResolver, run_live
        >>> live = LiveConfig(KafkaConfig(bootstrap), topics=(topic,), until_caught_up=True)
        >>> stats = run_live(live, IngestConfig(LakeConfig("lake")), resolver=RegistryResolver(registry))
        >>> stats.written
        {'trades_v2': 3, 'quotes_v2': 0, 'reference_data_v2': 0}
    """
    started = time.monotonic()
    counted: Mapping[str, int] = {}
    config = replace(config, write=live.of(config.write))
    with stop_signal() as stop:
        config, catalog, resolver = opened(config, resolver)
        cluster = Cluster(live.kafka)
        topics = cluster.topics(live.topics, live.topic_pattern)
        bounds = cluster.bounds(topics)
        covered = read_coverage(catalog, config.lake.namespace)
        # Before anything is read: what retention takes of a partition from now on is seen to be lost.
        first_offsets = {key: first_wanted(bound, covered[key]) for key, bound in bounds.items()}
        record_first_offsets(catalog, config.lake.namespace, first_offsets, config.write.retry)
        keeper = HoleKeeper(catalog, config.lake, config.write, partial(cluster.keep_every_message, topics))
        holes = keeper.read(missing_of(bounds, covered))
        with closing(HoleProbe(live.kafka, topics, ASK_SECONDS, stop, holes)) as probe:
            goal = Goal(start_offsets(bounds, covered, probe.first_given), bounds)
            keeper.save(probe.holes)
            start = _Start(cluster, topics, goal, catalog, covered, probe, keeper)
            if not (stop.is_set() or (live.until_caught_up and start.is_caught_up())):
                counted = _run(live, config, beam_arguments, resolver, start, stop)
    keeper.save(probe.holes)
    reconcile(catalog, config.lake.namespace, run_id=config.write.run_id, metrics=config.metrics)
    stats = ingest_stats(catalog, config.lake.namespace, config.write.run_id, counted, time.monotonic() - started)
    check_sum(stats, bounded=False)
    return stats


def _run(
    live: LiveConfig,
    config: IngestConfig,
    beam_arguments: Sequence[str],
    resolver: Any,
    start: _Start,
    stop: threading.Event,
) -> Mapping[str, int]:
    guard = TopicGuard(live.kafka, tuple(start.topics))
    guarded = replace(config, write=replace(config.write, guard=guard))
    options = beam_options(beam_arguments, streaming=True, default_runner=LIVE_RUNNER)
    on_flink = flink_run(options, guard.job[-12:])
    reader = live.reader_on(prism=is_prism(options), flink=on_flink is not None)
    if on_flink is not None:
        on_flink.check()
        if reader is Reader.BEAM and (uneven := uneven_readers(options, len(start.goal.bounds))):
            get_logger("live").warning(uneven)
    waiting = _beginning(live, start, stop)
    columns = ColumnCheck(start.catalog, config.lake.namespace) if config.evolve else None
    share = config.max_dead_share
    check_first(waiting, start.covered, resolver, share, least=LEAST_WAITING, columns=columns)
    # Rows that a job committed before it died count as seen from here on, with or without their gaps in the ledger.
    reconcile(start.catalog, config.lake.namespace, run_id=config.write.run_id, metrics=config.metrics)
    pipeline = beam.Pipeline(options=options)
    source = _reader(reader, live, config.write.commit_age, start, on_flink is not None)
    build(pipeline, ReadKafka(source), guarded, resolver=resolver)
    quiet.end()
    with signals_to_us():
        result = pipeline.run()
    try:
        ending = _Ending(live, config, start, by_itself=isinstance(source, LibrdkafkaReader) and live.until_caught_up)
        restarts, watch = Restarts(on_flink), _Watch(live, config, start, guard, reader)
        stall = Stall(
            live.stall_seconds and live.stall_seconds + config.write.commit_age,
            partial(read_coverage, start.catalog, config.lake.namespace),
            start.waiting,
            start.probe,
            lambda: restarts.cause,
        )

        def between() -> None:
            for look in (restarts.look, watch.look, stall.look):
                look()

        _follow(result, stop, guard, ending, between)
        # A streaming job on Flink tells its job server no counters while it runs.
        ask = partial(counters, result) if on_flink is None else on_flink.counters
        counted = _settled(ask, rows_of_run(start.catalog, config.lake.namespace, str(config.write.run_id)))
    finally:
        _end(result, on_flink, guard)
    return counted


def _beginning(live: LiveConfig, start: _Start, stop: threading.Event) -> Iterator[RawBatch]:
    """The messages that wait for the job, from where it is to begin; what comes later is not waited for."""
    ends = {key: bound.end for key, bound in start.goal.bounds.items()}
    with closing(TopicReader(live.kafka, FIRST_MESSAGES)) as reader:
        reader.go_to(first_positions(start.topics, start.goal.starts))
        until = time.monotonic() + BEGINNING_SECONDS
        while not (reader.is_behind(ends) or stop.is_set() or time.monotonic() > until):
            yield from reader.read(wait_s=POLL_SECONDS)


class _Ending:
    """When a job is over, by what is committed. One that ends ``by_itself`` (its reader has an end) is let run on."""

    def __init__(self, live: LiveConfig, config: IngestConfig, start: _Start, *, by_itself: bool) -> None:
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


def _settled(ask: Callable[[], Mapping[str, int]], rows: int) -> Mapping[str, int]:
    """The counters once they know of ``rows``: a runner hears of a commit when the bundle ends that made it."""
    until = time.monotonic() + COUNTERS_SECONDS
    while rows_counted(counted := ask()) < rows and time.monotonic() < until:
        time.sleep(POLL_SECONDS / 5)
    return counted


def _reader(
    reader: Reader, live: LiveConfig, age: float, start: _Start, flink: bool
) -> BeamReader | LibrdkafkaReader | TickedReader:
    """The source; ``age`` is how old a row may get before it's committed, seconds."""
    expansion = live.expansion or LOCAL_EXPANSION
    if reader is Reader.LIBRDKAFKA:
        # A part of the time that rows wait for their commit: each bundle has files of its own.
        bundle_seconds = min(max(age / 4, LEAST_BUNDLE_SECONDS), BUNDLE_SECONDS)
        starts, pattern = start.goal.starts, live.topic_pattern
        if flink:
            return TickedReader(start.topics, live.kafka, starts, expansion, pattern, bundle_seconds)
        ends = {key: bound.end for key, bound in start.goal.bounds.items()} if live.until_caught_up else None
        return LibrdkafkaReader(start.topics, live.kafka, starts, pattern, ends, bundle_seconds)
    group = f"k2beam-{uuid.uuid4().hex}"
    start.cluster.seed_group(group, start.topics, start.goal.starts)
    return BeamReader(start.topics, live.kafka, group, expansion)


class _Watch:
    """What a running job looks after: its holes, and what its topics have got since it started."""

    def __init__(
        self, live: LiveConfig, config: IngestConfig, start: _Start, guard: TopicGuard, reader: Reader
    ) -> None:
        self._known = {(topic.source, partition) for topic in start.topics for partition in topic.partitions}
        self._discovery = Discovery(live.kafka, live.topic_pattern)
        self._config = config
        self._start = start
        self._guard = guard
        self._takes_news = reader is Reader.LIBRDKAFKA

    def look(self) -> None:
        if self._start.keeper.is_due:
            self._start.keeper.look(self._start.probe, self._start.goal.missing_within)
        if news := self._discovery.look(self._known):
            with warned("where new partitions begin is not recorded now, but will be later"):
                if self._takes_news:
                    self._record(news)
                self._known.update((topic.source, partition) for topic, partition in news)
                self._tell(news)

    def _record(self, news: Sequence[tuple[Topic, int]]) -> None:
        """Write down where their logs begin: what retention takes from now on is seen to be lost."""
        self._guard.add(topic for topic, _ in news)
        known = {source for source, _ in self._known}
        bounds = self._start.cluster.bounds({topic for topic, _ in news if topic.source not in known})
        # A partition that is added begins at 0; a topic may have been there, and not to be seen.
        first_offsets = {(topic.source, partition): 0 for topic, partition in news}
        first_offsets |= {key: bound.low for key, bound in bounds.items() if key in first_offsets}
        policy = few_tries(self._config.write)
        record_first_offsets(self._start.catalog, self._config.lake.namespace, first_offsets, policy)

    def _tell(self, news: Sequence[tuple[Topic, int]]) -> None:
        for topic, partition in news:
            log = get_logger("kafka").bind(topic=topic.name, partition=partition)
            if self._takes_news:
                log.info("a partition was added and is read from now on")
            else:
                log.warning("a partition was added and is not read by this job: run it again")


def _follow(
    result: Any,
    stop: threading.Event,
    guard: TopicGuard,
    ending: _Ending,
    between: Callable[[], None] = lambda: None,
) -> None:
    """Wait until the goal is reached, or until told to stop; ``between`` is called again and again meanwhile.

    The guard looks before each commit; it looks here too, since a reader whose topic is gone may wait for ever, and
    then there is no commit.
    """
    looked = time.monotonic()
    ended_at: float | None = None
    while not stop.wait(POLL_SECONDS):
        if time.monotonic() - looked >= GUARD_SECONDS:
            guard.look()
            looked = time.monotonic()
        state = state_of(result)
        if state in ENDED_STATES and ended_at is None:
            guard.look()  # what the reader says of a topic that is gone is a stack of Java
            if not (ending.by_itself and state == PipelineState.DONE):
                raise K2BeamError(f"the job ended as {state}: {reason_of(result)}; {AGAIN}")
            ended_at = time.monotonic()
        if ending.is_reached(ended=ended_at is not None):
            return
        if ended_at is not None and time.monotonic() - ended_at > ENDED_SECONDS:
            raise K2BeamError(f"the job read to the ends of its topics, and not all of it is committed; {AGAIN}")
        between()


def _end(result: Any, on_flink: FlinkRun | None, guard: TopicGuard) -> None:
    """Stop the job, and wait until nothing of it is at work in this process, so that what is counted then holds.

    On Flink it is stopped in the cluster too: the job server forgets a cancelled job, but the cluster runs it on.
    """
    alive = cancel(result)
    guard.stop()
    if on_flink is not None:
        on_flink.end(submitted=alive)
    if not commits_done(COMMIT_SECONDS):
        get_logger("live").warning("a commit of the ended job is still under way; it is not in the stats")
