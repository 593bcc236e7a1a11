"""The live job on Prism, with Kafka and Schema Registry on the same machine.

Throughput: a backlog over uneven partitions, to the last commit of its rows, from two moments: the job's submission
(Prism is up to take it), and the reader's first fetch, well before Python's first bundle where that is Beam's.
Floor: librdkafka reading the same topic and doing nothing with it, from the first message on. Latency: from the moment
a message is produced to the moment a reader of the table sees it, at a steady rate that is checked.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from confluent_kafka import Consumer

from bench.compaction import result_line
from bench.java_log import first_fetch
from bench.live_feed import Fed, feed
from bench.processes import Usage, usage
from k2beam.config import NAMESPACE, LakeConfig
from k2beam.demo import audit_topics
from k2beam.job.config import Reader
from k2beam.kafka.topics import TopicSpec, create_topics
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import find_table
from k2beam.produce.republish import archived_messages, register_schemas, republish
from k2beam.registry.client import Registry
from k2beam.registry.config import RegistryConfig
from k2beam.registry.subjects import schema_text
from k2beam.simulate.faults import Faults
from k2beam.simulate.simulate import Simulation, simulate
from k2beam.stack.prism import ensure_prism
from k2beam.stack.stack import LocalStack

SCHEMA_ID = 1
"""Of trades in the simulated archives."""

FLOOR = "floor: librdkafka alone, as it comes"
SET = "librdkafka alone, with the settings of k2beam's reader"
SETTINGS: Mapping[str, Any] = {"fetch.queue.backoff.ms": 10}
"""By default a partition whose queue was full waits a second before it's fetched again, and a fast program with it."""

PRISM_READY = "Serving JobManagement"
"""What Prism logs right before it is given the job."""
READING_BEGAN = "reading begins"
"""What the reader on librdkafka logs right before its first fetch."""
BEGAN: Mapping[Reader, str] = {Reader.BEAM: "AnyEnv resolved", Reader.LIBRDKAFKA: READING_BEGAN}
"""What is logged once a job is at work."""

POLL_SECONDS = 0.05
PRISM_START_SECONDS = 120
LOOK_SECONDS = 1.0
SERVERS = ("kafka", "registry", "expansion")


@dataclass(frozen=True, slots=True)
class Live:
    """The servers, and the reader that jobs on them take."""

    stack: LocalStack
    reader: Reader

    def command(self, topic: str, warehouse: Path, *options: str) -> list[str]:
        """``ingest kafka`` on Prism."""
        java = ("--expansion", self.stack.expansion_address) if self.reader is Reader.BEAM else ()
        return [
            *(sys.executable, "-m", "k2beam.cli.main", "--log-json", "ingest", "kafka"),
            *("--topic", topic, "--warehouse", str(warehouse), "--reader", self.reader, *java),
            *("--bootstrap", self.stack.bootstrap, "--registry", self.stack.registry_url),
            *("--output", "json", *options),
            *("--", f"--prism_location={ensure_prism()}", "--environment_type=LOOPBACK"),
        ]


@dataclass(frozen=True, slots=True)
class Run:
    """A job over a backlog: messages, seconds since the epoch, and what each process used."""

    messages: int
    submitted: float
    fetched: float
    first_commit: float
    last_commit: float
    used: Mapping[str, Usage]

    @property
    def rates(self) -> dict[str, float]:
        """Messages a second to the last commit, from two moments."""
        return {
            "from the first fetch": self.messages / (self.last_commit - self.fetched),
            "from its submission": self.messages / (self.last_commit - self.submitted),
        }


def live(scratch: Path, rows: int, rate: int, seconds: int, runs: int) -> Iterator[dict[str, Any]]:
    """Throughput over ``rows`` messages, ``runs`` times, and latency at ``rate`` messages a second for ``seconds``.

    Both by each reader.
    """
    with LocalStack(scratch / "stack", services=SERVERS) as stack:
        yield from throughput(stack, scratch, rows, runs)
        for reader in Reader:
            yield from latency(Live(stack, reader), scratch, rate, seconds)


def throughput(stack: LocalStack, scratch: Path, rows: int, runs: int) -> Iterator[dict[str, Any]]:
    """The jobs beside librdkafka alone, in turn; a small run before warms up the Java side.

    Of several runs, each into tables of its own, the median and the least, beside the median of the floor.
    """
    ids = {SCHEMA_ID: register(stack)}
    jobs = {reader: Live(stack, reader) for reader in Reader}
    warm_up = backlog(stack, scratch, ids, "warm-up", max(rows // 10, 1))
    for reader, job in jobs.items():
        run(job, scratch / f"wh-warm-up-{reader}", warm_up)
    topic = backlog(stack, scratch, ids, "backlog", rows)
    floors: list[float] = []
    alone: list[float] = []
    measured: dict[Reader, list[Run]] = {reader: [] for reader in Reader}
    for number in range(runs):
        floors.append(consume(stack.bootstrap, topic, rows))
        alone.append(consume(stack.bootstrap, topic, rows, SETTINGS))
        for reader, job in jobs.items():
            measured[reader].append(run(job, scratch / f"wh-{reader}-{number}", topic))
    floor = statistics.median(floors)
    yield rate_of(FLOOR, rows, floor, floor)
    yield rate_of(SET, rows, statistics.median(alone), floor)
    for reader, found in measured.items():
        yield from lines(f"live job, {reader}", rows, found, floor)


def lines(what: str, rows: int, runs: Sequence[Run], floor: float | None = None) -> Iterator[dict[str, Any]]:
    """Rates, processor time, memory and the first commit of some runs."""
    for moment in runs[0].rates:
        rates = [run.rates[moment] for run in runs]
        yield rate_of(f"{what}, {moment}, median of {len(runs)}", rows, statistics.median(rates), floor)
        yield rate_of(f"{what}, {moment}, least of {len(runs)}", rows, min(rates), floor)
    for name in runs[0].used:
        used = [run.used[name] for run in runs if name in run.used]
        cpu = statistics.median(each.cpu_s for each in used) / rows * 1_000_000
        yield result_line(f"{what}: processor time of {name}, median", rows, round(cpu, 2), "CPU s/million")
        yield result_line(f"{what}: memory of {name}, most", rows, max(each.peak_mib for each in used), "MiB")
    first = statistics.median(run.first_commit - run.fetched for run in runs)
    yield result_line(f"{what}: first fetch to first commit, median", rows, round(first, 1), "s")


def rate_of(what: str, rows: int, value: float, floor: float | None) -> dict[str, Any]:
    ratio, beside = (None, None) if floor is None else (round(value / floor, 2), "floor")
    return result_line(what, rows, round(value), "messages/s", ratio, beside)


def latency(job: Live, scratch: Path, rate: int, seconds: int) -> Iterator[dict[str, Any]]:
    """Produced to queryable, with a commit interval of 2 s, and the rate that the feed reached.

    Raises SystemExit for a feed that was more than 5 % slower than asked.
    """
    stack, topic, warehouse = job.stack, f"bench.latency.{job.reader}", scratch / f"latency-{job.reader}"
    schema_id = register(stack)
    for result in create_topics(stack.bootstrap, [TopicSpec(topic, 4)]):
        if result.state != "created":
            raise SystemExit(f"{result.topic}: {result.note}")
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with _running_job(job, topic, warehouse, "--commit-age", "2s", "--window", "10s"), pool:
        feeding = pool.submit(feed, stack.bootstrap, topic, schema_id, rate, seconds)
        seen = _watch(warehouse, rate, rate * seconds, seconds + 120, feeding)
    fed = feeding.result()
    yield {
        "what": f"feed: reached in {fed.elapsed_s:.2f} s, of {rate:,}/s asked for",
        "rows": fed.messages,
        "value": round(fed.rate),
        "unit": "messages/s",
        "ratio": round(fed.rate / rate, 3),
        "beside": "asked",
    }
    delays = _delays(warehouse, seen)
    for percent in (50, 99):
        yield {
            "what": f"{job.reader}: produced to queryable, p{percent}, {rate:,}/s, commits every 2 s",
            "rows": len(delays),
            "value": round(float(np.percentile(delays, percent)), 2),
            "unit": "s",
            "ratio": None,
            "beside": None,
        }


def register(stack: LocalStack) -> int:
    registry = Registry(RegistryConfig(stack.registry_url))
    try:
        return register_schemas(registry, {SCHEMA_ID: schema_text("trade_v2")}, prefix="bench-")[SCHEMA_ID]
    finally:
        registry.close()


def backlog(stack: LocalStack, scratch: Path, ids: Mapping[int, int], name: str, rows: int) -> str:
    """Trades of 37 symbols, a key each, which spread unevenly over 4 partitions; the topic."""
    simulate(scratch / name, Simulation(rows=rows, symbols=37, seed=1, faults=Faults(gaps=20)))
    (topic,) = republish(stack.bootstrap, archived_messages(scratch / name), ids, prefix=f"{name}.")
    return topic


def consume(bootstrap: str, topic: str, rows: int, settings: Mapping[str, Any] = MappingProxyType({})) -> float:
    """Messages a second that librdkafka hands over in batches."""
    group = {"group.id": f"floor-{uuid.uuid4().hex}", "auto.offset.reset": "earliest"}  # a new one begins at the start
    consumer = Consumer({"bootstrap.servers": bootstrap, **settings, **group})
    consumer.subscribe([topic])
    try:
        got = len(consumer.consume(1, timeout=60))
        started = time.perf_counter()
        while got < rows:
            # No more than is left: it would wait for the rest of a full batch.
            got += len(consumer.consume(min(10_000, rows - got), timeout=1))
        return rows / (time.perf_counter() - started)
    finally:
        consumer.close()


def run(job: Live, warehouse: Path, topic: str) -> Run:
    """The job over a backlog until it has caught up; its tables are audited."""
    (log,) = (service.log for service in job.stack.status() if service.name == "expansion")
    before = log.read_bytes()
    done = finished(job.stack, job.command(topic, warehouse, "--until-caught-up"), warehouse, topic)
    after = log.read_bytes()[len(before) :]
    if job.reader is Reader.BEAM:
        fetched = first_fetch(before.decode(errors="replace"), after.decode(errors="replace"), topic)
    else:
        fetched = time_of(READING_BEGAN, done.said)
    return Run(done.messages, time_of(PRISM_READY, done.said), fetched, min(done.commits), max(done.commits), done.used)


@dataclass(frozen=True, slots=True)
class Finished:
    """A job that has ended: messages, its log, its commits in seconds since the epoch, and what each process used."""

    messages: int
    said: str
    commits: Sequence[float]
    used: Mapping[str, Usage]


def finished(
    stack: LocalStack, command: Sequence[str], warehouse: Path, topic: str, look: Callable[[], None] = lambda: None
) -> Finished:
    """A job's command until it ends, with its tables audited; ``look`` is called once a second meanwhile.

    Raises SystemExit where the job or the audit fails.
    """
    servers = {service.pid: service.name for service in stack.status() if service.pid is not None}
    out, err = (warehouse.with_suffix(suffix) for suffix in (".out", ".err"))
    with out.open("w") as output, err.open("w") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, start_new_session=True)
        with usage(process.pid, servers) as used:
            while process.returncode is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_SECONDS)
                look()
    said = err.read_text(encoding="utf-8")
    if process.returncode:
        raise SystemExit(f"the job failed: {said[-4000:]}")
    report = audit_topics(LakeConfig(str(warehouse)), stack.bootstrap, [topic])
    if not report.ok:
        raise SystemExit(f"the audit failed: {report.problems}")
    commits = [snapshot.timestamp_ms / 1000 for snapshot in trades(warehouse).snapshots()]
    return Finished(int(json.loads(out.read_text(encoding="utf-8"))["consumed"]), said, commits, used)


def time_of(event: str, log: str) -> float:
    """Seconds since the epoch of the first line with ``event``."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    for line in lines:
        if event in str(line.get("event")):
            return datetime.fromisoformat(line["timestamp"]).timestamp()
    raise SystemExit(f"the job's log does not say {event!r}: {log[-4000:]}")


@contextmanager
def _running_job(job: Live, topic: str, warehouse: Path, *options: str) -> Iterator[None]:
    """The unbounded job, up and polling, while it lasts."""
    log = warehouse.with_suffix(".log")
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            job.command(topic, warehouse, *options),
            stdout=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PRISM_START_SECONDS
        while BEGAN[job.reader] not in log.read_text(encoding="utf-8"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the job did not begin: {log.read_text(encoding='utf-8')[-4000:]}")
            time.sleep(0.2)
        yield
    finally:
        process.send_signal(signal.SIGTERM)  # nothing to one that has ended
        if process.wait(120):
            raise SystemExit(f"the job failed: {log.read_text(encoding='utf-8')}")


def trades(warehouse: Path) -> Any:
    return find_table(open_catalog(LakeConfig(str(warehouse))), NAMESPACE, "trades_v2")


def _watch(warehouse: Path, rate: int, rows: int, seconds: float, feeding: Future[Fed]) -> dict[int, float]:
    """When each snapshot was first seen by a reader that polls, until ``rows`` are there.

    Ends with the feed's own error, if it has one, or is not of ``rate``.
    """
    seen: dict[int, float] = {}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        table = trades(warehouse) if (warehouse / "catalog.db").exists() else None
        now = time.time()
        for snapshot in table.snapshots() if table is not None else ():
            seen.setdefault(snapshot.snapshot_id, now)
        current = table.current_snapshot() if table is not None else None
        if feeding.done():
            feeding.result().check(rate)
        if current is not None and int(current.summary["total-records"]) >= rows:
            feeding.result().check(rate)
            return seen
        time.sleep(POLL_SECONDS)
    raise SystemExit(f"{rows:,} rows were not there after {seconds} s")


def _delays(warehouse: Path, seen: Mapping[int, float]) -> Any:
    """Seconds from each row's event time, which is when it was produced, to when its snapshot was seen."""
    entries = trades(warehouse).inspect.entries().to_pylist()
    delays = []
    for entry in entries:
        times = pq.read_table(entry["data_file"]["file_path"].removeprefix("file://"), columns=["timestamp"])[
            "timestamp"
        ]
        produced = pc.cast(times, "int64").to_numpy() / 1e6
        delays.append(seen[entry["snapshot_id"]] - produced)
    return np.concatenate(delays)
