"""The live job on Prism, with Kafka and Schema Registry on the same machine.

Throughput: a backlog over uneven partitions, to the last commit of its rows, from two moments: the job's submission
(Prism is up to take it), and the first fetch of the Java consumer, which comes well before Python's first bundle.
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
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from confluent_kafka import Consumer

from bench.java_log import first_fetch
from bench.live_feed import Fed, feed
from k2beam.config import NAMESPACE, LakeConfig
from k2beam.demo import audit_topics
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

FLOOR = "floor: librdkafka alone"
FROM_FIRST_READ = "live job, Prism, from the first fetch"
FROM_SUBMISSION = "live job, Prism, from its submission"

PRISM_READY, JOB_BEGAN = "Serving JobManagement", "AnyEnv resolved"
"""What Prism logs right before it is given the job, and once it has it."""

POLL_SECONDS = 0.05
PRISM_START_SECONDS = 120


def live(scratch: Path, rows: int, rate: int, seconds: int, runs: int) -> Iterator[dict[str, Any]]:
    """Throughput over ``rows`` messages, ``runs`` times, and latency at ``rate`` messages a second for ``seconds``."""
    with LocalStack(scratch / "stack", services=("kafka", "registry", "expansion")) as stack:
        yield from throughput(stack, scratch, rows, runs)
        yield from latency(stack, scratch, rate, seconds)


def throughput(stack: LocalStack, scratch: Path, rows: int, runs: int) -> Iterator[dict[str, Any]]:
    """The job beside librdkafka alone; a small run before warms up the Java side, as it is in a job that lives.

    Of several runs, each into tables of its own, the median and the least, beside the median of the floor.
    """
    ids = {SCHEMA_ID: _register(stack)}
    _job_rates(stack, scratch / "wh-warm-up", _backlog(stack, scratch, ids, "warm-up", max(rows // 10, 1)))
    topic = _backlog(stack, scratch, ids, "backlog", rows)
    measured: dict[str, list[float]] = {FLOOR: [], FROM_FIRST_READ: [], FROM_SUBMISSION: []}
    for run in range(runs):
        measured[FLOOR].append(_consume(stack.bootstrap, topic, rows))
        for what, value in _job_rates(stack, scratch / f"wh-{run}", topic).items():
            measured[what].append(value)
    floor = statistics.median(measured[FLOOR])
    for what, values in measured.items():
        if runs == 1:
            yield _rate_of(what, rows, values[0], floor)
        else:
            yield _rate_of(f"{what}, median of {runs}", rows, statistics.median(values), floor)
            yield _rate_of(f"{what}, least of {runs}", rows, min(values), floor)


def _rate_of(what: str, rows: int, value: float, floor: float) -> dict[str, Any]:
    return {
        "what": what,
        "rows": rows,
        "value": round(value),
        "unit": "messages/s",
        "ratio": round(value / floor, 2),
        "beside": "floor",
    }


def latency(stack: LocalStack, scratch: Path, rate: int, seconds: int) -> Iterator[dict[str, Any]]:
    """Produced to queryable, with a commit interval of 2 s, and the rate that the feed reached.

    Raises SystemExit for a feed that was more than 5 % slower than asked.
    """
    schema_id, topic, warehouse = _register(stack), "bench.latency", scratch / "latency"
    for result in create_topics(stack.bootstrap, [TopicSpec(topic, 4)]):
        if result.state != "created":
            raise SystemExit(f"{result.topic}: {result.note}")
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with _running_job(stack, topic, warehouse, "--commit-age", "2s", "--window", "10s"), pool:
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
            "what": f"produced to queryable, p{percent}, {rate:,}/s, commits every 2 s",
            "rows": len(delays),
            "value": round(float(np.percentile(delays, percent)), 2),
            "unit": "s",
            "ratio": None,
            "beside": None,
        }


def _register(stack: LocalStack) -> int:
    registry = Registry(RegistryConfig(stack.registry_url))
    try:
        return register_schemas(registry, {SCHEMA_ID: schema_text("trade_v2")}, prefix="bench-")[SCHEMA_ID]
    finally:
        registry.close()


def _backlog(stack: LocalStack, scratch: Path, ids: Mapping[int, int], name: str, rows: int) -> str:
    """Trades of 37 symbols, a key each, which spread unevenly over 4 partitions; the topic."""
    simulate(scratch / name, Simulation(rows=rows, symbols=37, seed=1, faults=Faults(gaps=20)))
    (topic,) = republish(stack.bootstrap, archived_messages(scratch / name), ids, prefix=f"{name}.")
    return topic


def _consume(bootstrap: str, topic: str, rows: int) -> float:
    """Messages a second that librdkafka hands over in batches."""
    group = {"group.id": f"floor-{uuid.uuid4().hex}", "auto.offset.reset": "earliest"}  # a new one begins at the start
    consumer = Consumer({"bootstrap.servers": bootstrap, **group})
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


def _command(stack: LocalStack, topic: str, warehouse: Path, *options: str) -> list[str]:
    return [
        *(
            sys.executable,
            "-m",
            "k2beam.cli.main",
            "--log-json",
            "ingest",
            "kafka",
            "--topic",
            topic,
            "--warehouse",
            str(warehouse),
        ),
        *("--bootstrap", stack.bootstrap, "--registry", stack.registry_url, "--expansion", stack.expansion_address),
        *("--output", "json", *options),
        *("--", f"--prism_location={ensure_prism()}", "--environment_type=LOOPBACK"),
    ]


def _job_rates(stack: LocalStack, warehouse: Path, topic: str) -> dict[str, float]:
    """Messages a second to the last commit of rows, from the first fetch and from the submission; audited."""
    (log,) = (service.log for service in stack.status() if service.name == "expansion")
    before = log.read_bytes()
    command = [*_command(stack, topic, warehouse, "--until-caught-up")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the job failed: {done.stderr[-4000:]}")
    report = audit_topics(LakeConfig(str(warehouse)), stack.bootstrap, [topic])
    if not report.ok:
        raise SystemExit(f"the audit failed: {report.problems}")
    after = log.read_bytes()[len(before) :]
    began = first_fetch(before.decode(errors="replace"), after.decode(errors="replace"), topic)
    ended = max(snapshot.timestamp_ms for snapshot in _trades(warehouse).snapshots()) / 1000
    messages = int(json.loads(done.stdout)["consumed"])
    return {FROM_FIRST_READ: messages / (ended - began), FROM_SUBMISSION: messages / (ended - _submitted(done.stderr))}


def _submitted(log: str) -> float:
    """Seconds since the epoch at which Prism was ready to be given the job, by the job's log."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    for line in lines:
        if PRISM_READY in str(line.get("event")):
            return datetime.fromisoformat(line["timestamp"]).timestamp()
    raise SystemExit(f"the job's log does not say when it was submitted ({PRISM_READY!r}): {log[-4000:]}")


@contextmanager
def _running_job(stack: LocalStack, topic: str, warehouse: Path, *options: str) -> Iterator[None]:
    """The unbounded job, up and polling, while it lasts."""
    log = warehouse.with_suffix(".log")
    with log.open("w", encoding="utf-8") as stream:
        job = subprocess.Popen(
            _command(stack, topic, warehouse, *options),
            stdout=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PRISM_START_SECONDS
        while JOB_BEGAN not in log.read_text(encoding="utf-8"):
            if job.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the job did not begin: {log.read_text(encoding='utf-8')[-4000:]}")
            time.sleep(0.2)
        yield
    finally:
        job.send_signal(signal.SIGTERM)  # nothing to one that has ended
        if job.wait(120):
            raise SystemExit(f"the job failed: {log.read_text(encoding='utf-8')}")


def _trades(warehouse: Path) -> Any:
    return find_table(open_catalog(LakeConfig(str(warehouse))), NAMESPACE, "trades_v2")


def _watch(warehouse: Path, rate: int, rows: int, seconds: float, feeding: Future[Fed]) -> dict[int, float]:
    """When each snapshot was first seen by a reader that polls, until ``rows`` are there.

    Ends with the feed's own error, if it has one, or is not of ``rate``.
    """
    seen: dict[int, float] = {}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        table = _trades(warehouse) if (warehouse / "catalog.db").exists() else None
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
    entries = _trades(warehouse).inspect.entries().to_pylist()
    delays = []
    for entry in entries:
        times = pq.read_table(entry["data_file"]["file_path"].removeprefix("file://"), columns=["timestamp"])[
            "timestamp"
        ]
        produced = pc.cast(times, "int64").to_numpy() / 1e6
        delays.append(seen[entry["snapshot_id"]] - produced)
    return np.concatenate(delays)
