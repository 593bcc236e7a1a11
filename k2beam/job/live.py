"""Runs the pipeline over Kafka: starts from the coverage, follows what is committed, stops cleanly."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState

from k2beam.errors import K2BeamError, UsageError
from k2beam.flink import FlinkJob, FlinkRun, job_key
from k2beam.job.attached import AttachedJob, take_over
from k2beam.job.beam import (
    AGAIN,
    ENDED_STATES,
    POLL_SECONDS,
    answered,
    cancel,
    ended_after,
    quiet,
    reason_of,
    state_of,
    submitted,
)
from k2beam.job.beside import few_tries, warned
from k2beam.job.bounded import counters
from k2beam.job.config import LOCAL_EXPANSION, Existing, IngestConfig, LiveConfig, Reader
from k2beam.job.first import FIRST_MESSAGES, check_first
from k2beam.job.goal import Ending, Goal, Start
from k2beam.job.holes import HoleKeeper
from k2beam.job.jar import FlinkJar, JarRunner
from k2beam.job.opening import opened
from k2beam.job.options import (
    beam_options,
    check_as_jar,
    check_on_flink,
    check_outlives_client,
    flink_run,
    is_prism,
    name_job,
    uneven_readers,
)
from k2beam.job.pipeline import build
from k2beam.job.progress import Restarts, Stall
from k2beam.job.stats import IngestStats, check_sum, ingest_stats, rows_counted, rows_of_run, without_lost_counts
from k2beam.kafka.cluster import ASK_SECONDS, Cluster, Topic, first_wanted, start_offsets
from k2beam.kafka.count import missing_of
from k2beam.kafka.discovery import Discovery
from k2beam.kafka.guard import TopicGuard
from k2beam.kafka.holes import HoleProbe
from k2beam.kafka.reader import TopicReader, first_positions
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
BEGINNING_SECONDS = 30.0
"""How long the first messages are waited for, at most."""
LEAST_WAITING = 20
"""Fewer messages are not judged: a job that is started again must not stay down for some bad ones that came last."""
GUARD_SECONDS = 10.0
"""How often a running job looks whether its topics are still the ones that it started with."""
LEAST_BUNDLE_SECONDS = 0.25
COUNTERS_SECONDS = 5.0
"""How long the end of a job waits for the counters of its last commits."""
ENDED_SECONDS = 330.0
"""How long a job that has ended by itself asks the broker about what is missing: longer than a broker is waited for."""
COMMIT_SECONDS = 30.0
"""How long commits that were under way when the job was cancelled are waited for."""


def run_live(
    live: LiveConfig, config: IngestConfig, beam_arguments: Sequence[str] = (), *, resolver: Any = None
) -> IngestStats:
    """Read topics into the tables until the goal of ``live`` or a SIGINT or SIGTERM; returns the stats.

    Exactly once, whatever happens: the next run starts from the coverage. A Kafka that goes away under the job is
    waited for. Raises K2BeamError when Kafka can't be reached at the start, and when the job ends before its goal.
    Raises UsageError where the same job runs on its Flink cluster already, unless ``live.existing`` says what to do:
    the stats of a job that is followed are those of its whole life.

    Examples:
        >>> from k2beam import IngestConfig, KafkaConfig, LakeConfig, LiveConfig, RegistryResolver, run_live
        >>> live = LiveConfig(KafkaConfig(bootstrap), topics=(topic,), until_caught_up=True)
        >>> stats = run_live(live, IngestConfig(LakeConfig("lake")), resolver=RegistryResolver(registry))
        >>> stats.written
        {'trades_v2': 3, 'quotes_v2': 0, 'reference_data_v2': 0}
    """
    started = time.monotonic()
    with stop_signal() as stop, _begun(live, config, _options(beam_arguments), resolver, stop) as job:
        counted = job.run() if job.has_work else {}
    return job.stats(counted, time.monotonic() - started)


def detach_live(
    live: LiveConfig, config: IngestConfig, beam_arguments: Sequence[str] = (), *, resolver: Any = None
) -> FlinkJob:
    """Start the job of ``live`` on a Flink cluster, wait until its tasks run, and leave it there; returns the job.

    Exactly once, as by :func:`run_live`. Nobody looks after its holes, its topics and its failures before a client
    attaches. Raises UsageError for a goal, which a client would have to wait for, and for a job that can't work
    without this process, and otherwise as :func:`run_live`.
    """
    if live.has_goal:
        raise UsageError("--detach leaves a job without an end: give --until-caught-up or --max-messages to --attach")
    options = _options(beam_arguments)
    check_outlives_client(options, "--detach")
    with stop_signal() as stop, _begun(live, config, options, resolver, stop) as job:
        return job.detach()


def build_jar(
    out: str | Path, live: LiveConfig, config: IngestConfig, beam_arguments: Sequence[str] = (), *, resolver: Any = None
) -> FlinkJar:
    """Write the job of ``live`` as one Java archive that Flink's own tools start; replaces what is at ``out``.

    The tables are made, and the archive begins where they stand now: exactly once, as by :func:`run_live`, whenever and
    however often it is started, but what came between is read again. Nobody looks after its holes, its topics and its
    failures before a client attaches. Raises UsageError for a goal, for options that name a cluster, for workers of
    this process, and for a path that can't be written, and otherwise as :func:`run_live`.
    """
    if live.has_goal:
        raise UsageError("an archive has no goal: give --until-caught-up or --max-messages to ingest kafka --attach")
    options = beam_options(beam_arguments, streaming=True, default_runner="FlinkRunner")
    check_as_jar(options)
    runner = JarRunner(Path(out).absolute())
    with stop_signal() as stop, _begun(live, config, options, resolver, stop, runner) as job:
        return job.build()


def _options(beam_arguments: Sequence[str]) -> PipelineOptions:
    return beam_options(beam_arguments, streaming=True, default_runner=LIVE_RUNNER)


@contextmanager
def _begun(
    live: LiveConfig,
    config: IngestConfig,
    options: PipelineOptions,
    resolver: Any,
    stop: threading.Event,
    jar: JarRunner | None = None,
) -> Iterator[_Job]:
    """The job with what it begins from; nothing of it runs yet, unless it is one to be followed."""
    if live.existing is not Existing.REFUSE:
        check_on_flink(options, f"--{live.existing}")
    if live.existing is Existing.ATTACH:
        check_outlives_client(options, "--attach")
    config, catalog, resolver = opened(replace(config, write=live.of(config.write)), resolver)
    cluster = Cluster(live.kafka)
    topics = cluster.topics(live.topics, live.topic_pattern)
    run, attached = _in_cluster(options, live, config, topics, jar is not None)
    if attached is not None:
        config = replace(config, write=replace(config.write, run_id=str(attached.run_id)))
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
        start = Start(cluster, topics, goal, catalog, covered, probe, keeper)
        yield _Job(live, config, options, resolver, start, stop, attached or run, attached is not None, jar)
    keeper.save(probe.holes)


def _in_cluster(
    options: PipelineOptions, live: LiveConfig, config: IngestConfig, topics: Sequence[Topic], as_jar: bool
) -> tuple[FlinkRun | None, FlinkRun | None]:
    """The run as its Flink cluster is to know it, and that of the same job that is there and to be followed.

    Neither for an archive, whose cluster is not known: the job has its name.
    """
    kafka = topics[0].source.partition("/")[0]
    named = [f"{kafka}/{name}" for name in live.topics]
    key = job_key(str(config.lake.identity), named, live.topic_pattern or "")
    if as_jar:
        name_job(options, key, str(config.write.run_id))
        return None, None
    run = flink_run(options, key, str(config.write.run_id))
    return run, None if run is None else take_over(run, live.existing)


@dataclass(frozen=True, slots=True)
class _Job:
    """A job with all that it needs; ``attached`` is one that runs on Flink already, ``jar`` writes it as an archive."""

    live: LiveConfig
    config: IngestConfig
    options: PipelineOptions
    resolver: Any
    start: Start
    stop: threading.Event
    on_flink: FlinkRun | None
    attached: bool
    jar: JarRunner | None = None

    @property
    def _for_flink(self) -> bool:
        """Whether it is for a Flink cluster."""
        return self.on_flink is not None or self.jar is not None

    @property
    def has_work(self) -> bool:
        """Whether it is to be run: one that runs already is to be ended, whatever there is to take."""
        return self.attached or not (self.stop.is_set() or (self.live.until_caught_up and self.start.is_caught_up()))

    def run(self) -> Mapping[str, int]:
        """Run it to its goal or a signal, or follow the one that runs; gives its counters."""
        guard = self._guard()
        reader = self._reader()
        if self.attached and self.on_flink is not None:
            result: Any = AttachedJob(self.on_flink)
            by_itself, since_ms = False, round(time.time() * 1000)
        else:
            source, result = self._submitted(guard, reader)
            by_itself, since_ms = isinstance(source, LibrdkafkaReader) and self.live.until_caught_up, 0
        live, config, start, on_flink = self.live, self.config, self.start, self.on_flink
        end = partial(_end, result, on_flink, guard)
        with ended_after(end):
            ending = Ending(live, config, start, by_itself=by_itself)
            restarts, watch = Restarts(on_flink, since_ms), _Watch(live, config, start, guard, reader)
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

            _follow(result, self.stop, guard, ending, between)
            # A streaming job on Flink tells its job server no counters while it runs.
            ask = partial(counters, result) if on_flink is None else on_flink.counters
            counted = _settled(ask, rows_of_run(start.catalog, config.lake.namespace, str(config.write.run_id)))
        end()
        return counted

    def detach(self) -> FlinkJob:
        """Submit it and wait until its tasks run; one that does not come up, or not before a signal, is ended."""
        run = self.on_flink
        assert run is not None
        if self.attached:
            return run.wait_running()
        guard = self._guard()
        _, result = self._submitted(guard, self._reader())
        restarts = Restarts(run)

        def look() -> None:
            restarts.look()
            if self.stop.is_set():
                raise K2BeamError(f"a signal came before the job ran, so that it was ended; {AGAIN}")

        with ended_after(partial(_end, result, run, guard)):
            return run.wait_running(look)

    def build(self) -> FlinkJar:
        """Write it as an archive. Raises K2BeamError where a signal came first."""
        assert self.jar is not None
        if self.stop.is_set():
            raise K2BeamError("a signal came before the archive was written: build it again")
        self._submitted(self._guard(), self._reader())
        return self.jar.written(self.options)

    def stats(self, counted: Mapping[str, int], seconds: float) -> IngestStats:
        """Put the ledger right, and say what the run has done."""
        config, catalog = self.config, self.start.catalog
        reconcile(catalog, config.lake.namespace, run_id=config.write.run_id, metrics=config.metrics)
        stats = ingest_stats(catalog, config.lake.namespace, str(config.write.run_id), counted, seconds)
        stats = without_lost_counts(catalog, config.lake.namespace, stats)
        check_sum(stats, bounded=False)
        return stats

    def _guard(self) -> TopicGuard:
        return TopicGuard(self.live.kafka, tuple(self.start.topics))

    def _reader(self) -> Reader:
        return self.live.reader_on(prism=is_prism(self.options), flink=self._for_flink)

    def _submitted(self, guard: TopicGuard, reader: Reader) -> tuple[Any, Any]:
        """The source of the new job, and Beam's result of it."""
        live, start, config = self.live, self.start, self.config
        uneven = uneven_readers(self.options, len(start.goal.bounds))
        if self._for_flink and reader is Reader.BEAM and uneven:
            get_logger("live").warning(uneven)
        waiting = _beginning(live, start, self.stop)
        columns = ColumnCheck(start.catalog, config.lake.namespace) if config.evolve else None
        share = config.max_dead_share
        check_first(waiting, start.covered, self.resolver, share, least=LEAST_WAITING, columns=columns)
        # Rows that a job committed before it died count as seen from here on, with or without their gaps in the ledger.
        reconcile(start.catalog, config.lake.namespace, run_id=config.write.run_id, metrics=config.metrics)
        pipeline = beam.Pipeline(runner=self.jar, options=self.options)
        source = _reader(reader, live, config.write.commit_age, start, self._for_flink)
        guarded = replace(config, write=replace(config.write, guard=guard))
        with answered(f"Beam's Java expansion service at {live.expansion or LOCAL_EXPANSION} (--expansion)"):
            build(pipeline, ReadKafka(source), guarded, resolver=self.resolver)
        quiet.end()
        return source, submitted(pipeline)


def _beginning(live: LiveConfig, start: Start, stop: threading.Event) -> Iterator[RawBatch]:
    """The messages that wait for the job, from where it is to begin; what comes later is not waited for."""
    ends = {key: bound.end for key, bound in start.goal.bounds.items()}
    with closing(TopicReader(live.kafka, FIRST_MESSAGES)) as reader:
        reader.go_to(first_positions(start.topics, start.goal.starts))
        until = time.monotonic() + BEGINNING_SECONDS
        while not (reader.is_behind(ends) or stop.is_set() or time.monotonic() > until):
            yield from reader.read(wait_s=POLL_SECONDS)


def _settled(ask: Callable[[], Mapping[str, int]], rows: int) -> Mapping[str, int]:
    """The counters once they know of ``rows``: a runner hears of a commit when the bundle ends that made it."""
    until = time.monotonic() + COUNTERS_SECONDS
    while rows_counted(counted := ask()) < rows and time.monotonic() < until:
        time.sleep(POLL_SECONDS / 5)
    return counted


def _reader(
    reader: Reader, live: LiveConfig, age: float, start: Start, flink: bool
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

    def __init__(self, live: LiveConfig, config: IngestConfig, start: Start, guard: TopicGuard, reader: Reader) -> None:
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
    ending: Ending,
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
