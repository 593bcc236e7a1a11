"""Runs the pipeline over Kafka: starts from the coverage, follows what is committed, stops cleanly."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
from apache_beam.runners.runner import PipelineState
from pyroaring import BitMap64

from k2beam.coverage import Coverage
from k2beam.errors import K2BeamError
from k2beam.ingest.stats import IngestStats, ingest_stats
from k2beam.kafka.cluster import Bounds, Cluster, Topic, start_offsets
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.guard import TopicGuard
from k2beam.kafka.holes import HoleProbe
from k2beam.lake.catalog import Catalog, open_catalog
from k2beam.lake.commit import read_coverage
from k2beam.lake.reconcile import reconcile
from k2beam.options import IngestConfig, beam_options
from k2beam.pipeline import build
from k2beam.run import counters
from transforms.read_kafka import ReadKafka

LIVE_RUNNER = "PrismRunner"
POLL_SECONDS = 0.5
CANCEL_SECONDS = 30.0
ENDED = frozenset({PipelineState.DONE, PipelineState.FAILED, PipelineState.CANCELLED, PipelineState.DRAINED})


@dataclass(frozen=True, slots=True)
class LiveConfig:
    """What to read and when to stop: never (both off), at the ends found at the start, or after a number of offsets."""

    kafka: KafkaConfig
    expansion: str
    topics: tuple[str, ...] = ()
    topic_pattern: str | None = None
    until_caught_up: bool = False
    max_messages: int | None = None


@dataclass(frozen=True, slots=True)
class Goal:
    """The offsets of each partition that are to be taken: from the start to the end as found then."""

    starts: Mapping[tuple[str, int], int]
    bounds: Mapping[tuple[str, int], Bounds]

    def missing(self, covered: Coverage) -> dict[tuple[str, int], BitMap64]:
        """What is not covered yet, by source partition."""
        missing = {}
        for key, bound in self.bounds.items():
            wanted = BitMap64()
            wanted.add_range(self.starts[key], bound.end)
            left = wanted - covered[key]
            if left:
                missing[key] = left
        return missing


def run_live(
    live: LiveConfig, config: IngestConfig, beam_arguments: Sequence[str] = (), *, resolver: Any = None
) -> IngestStats:
    """Read topics into the tables until the goal of ``live`` or a SIGINT or SIGTERM; returns the stats.

    Exactly once, whatever happens: the next run starts from the coverage. Raises K2BeamError when
    the job ends by itself, which an unbounded one must not.
    """
    catalog = open_catalog(config.lake)
    cluster = Cluster(live.kafka)
    topics = cluster.topics(live.topics, live.topic_pattern)
    bounds = cluster.bounds(topics)
    covered = read_coverage(catalog, config.lake.namespace)
    goal = Goal(start_offsets(bounds, covered), bounds)
    started = time.monotonic()
    counted: Mapping[str, int] = {}
    if not (live.until_caught_up and not goal.missing(covered)):
        counted = _run(live, config, beam_arguments, resolver, cluster, topics, goal, catalog, len(covered))
    reconcile(catalog, config.lake.namespace, run_id=config.write.run_id)
    return ingest_stats(catalog, config.lake.namespace, config.write.run_id, counted, time.monotonic() - started)


def _run(
    live: LiveConfig,
    config: IngestConfig,
    beam_arguments: Sequence[str],
    resolver: Any,
    cluster: Cluster,
    topics: Sequence[Topic],
    goal: Goal,
    catalog: Catalog,
    covered_before: int,
) -> Mapping[str, int]:
    group = f"k2beam-{uuid.uuid4().hex}"
    cluster.seed_group(group, topics, goal.starts)
    guarded = replace(config, write=replace(config.write, guard=TopicGuard(live.kafka, tuple(topics))))
    pipeline = beam.Pipeline(options=beam_options(beam_arguments, streaming=True, default_runner=LIVE_RUNNER))
    build(pipeline, ReadKafka(topics, live.kafka, group, live.expansion), guarded, resolver=resolver)
    with _stop_signal() as stop:
        result = pipeline.run()
        probe = HoleProbe(live.kafka, topics)
        try:
            _follow(result, stop, live, config, goal, catalog, covered_before, probe)
            counted = counters(result)
        finally:
            _cancel(result)
    return counted


def _follow(
    result: Any,
    stop: threading.Event,
    live: LiveConfig,
    config: IngestConfig,
    goal: Goal,
    catalog: Catalog,
    covered_before: int,
    probe: HoleProbe,
) -> None:
    """Wait until the goal is reached by what is committed, or until told to stop."""
    while not stop.wait(POLL_SECONDS):
        if result.state in ENDED:
            raise K2BeamError(
                f"the job ended as {result.state}; run it again: what was committed is left out, the rest is taken"
            )
        covered = read_coverage(catalog, config.lake.namespace)
        if live.max_messages is not None and len(covered) - covered_before >= live.max_messages:
            return
        if live.until_caught_up and not probe.without_holes(goal.missing(covered)):
            return


def _cancel(result: Any) -> None:
    """Stop the job; a thread, since a runner that hangs must not keep the process."""
    if result.state in ENDED:
        return
    thread = threading.Thread(target=result.cancel, daemon=True)
    thread.start()
    thread.join(CANCEL_SECONDS)


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, while it lasts."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
