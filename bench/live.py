"""The live job on Prism, with Kafka and Schema Registry on the same machine.

Throughput: a backlog over uneven partitions, from the first message read to the last commit. Floor: librdkafka reading
the same topic and doing nothing with it. Latency: from the moment a message is produced to the moment a reader of the
table sees it, at a steady rate.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from confluent_kafka import Consumer

from bench.live_feed import feed
from k2beam.demo import audit_topics
from k2beam.ingest.faults import Faults
from k2beam.ingest.republish import archived_messages, register_schemas, republish
from k2beam.ingest.simulate import Simulation, simulate
from k2beam.ingest.topics import TopicSpec, create_topics
from k2beam.lake.catalog import NAMESPACE, LakeConfig, open_catalog
from k2beam.lake.tables import find_table
from k2beam.platform.prism import ensure_prism
from k2beam.platform.stack import LocalStack
from k2beam.registry.client import Registry, RegistryConfig
from k2beam.registry.subjects import schema_text

SCHEMA_ID = 1
"""Of trades in the simulated archives."""

POLL_SECONDS = 0.05
PRISM_START_SECONDS = 60


def live(scratch: Path, rows: int, rate: int, seconds: int) -> Iterator[dict[str, Any]]:
    """Throughput over ``rows`` messages and latency at ``rate`` messages a second for ``seconds``."""
    with LocalStack(scratch / "stack", services=("kafka", "registry", "expansion")) as stack:
        yield from throughput(stack, scratch, rows)
        yield from latency(stack, scratch, rate, seconds)


def throughput(stack: LocalStack, scratch: Path, rows: int) -> Iterator[dict[str, Any]]:
    """The job beside librdkafka alone; a small run before warms up the Java side, as it is in a job that lives."""
    ids = {SCHEMA_ID: _register(stack)}
    _job_rate(stack, scratch, _backlog(stack, scratch, ids, "warm-up", rows // 10))
    topic = _backlog(stack, scratch, ids, "backlog", rows)
    floor = _consume(stack.bootstrap, topic, rows)
    job = _job_rate(stack, scratch, topic)
    for what, value in (("floor: librdkafka alone", floor), ("live job, Prism", job)):
        yield {
            "what": what,
            "rows": rows,
            "value": round(value),
            "unit": "messages/s",
            "ratio": round(value / floor, 2),
            "beside": "floor",
        }


def latency(stack: LocalStack, scratch: Path, rate: int, seconds: int) -> Iterator[dict[str, Any]]:
    """Produced to queryable, with a commit interval of 2 s."""
    schema_id, topic, warehouse = _register(stack), "bench.latency", scratch / "latency"
    for result in create_topics(stack.bootstrap, [TopicSpec(topic, 4)]):
        if result.state != "created":
            raise SystemExit(f"{result.topic}: {result.note}")
    with _running_job(stack, topic, warehouse, "--commit-age", "2s", "--window", "10s"):
        context = multiprocessing.get_context("spawn")
        arguments = (stack.bootstrap, topic, schema_id, rate, seconds)
        producer = context.Process(target=feed, args=arguments)
        producer.start()
        seen = _watch(warehouse, rate * seconds, seconds + 120)
        producer.join()
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
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "floor", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    try:
        got = len(consumer.consume(1, timeout=60))
        started = time.perf_counter()
        while got < rows:
            got += len(consumer.consume(10_000, timeout=1))
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


def _job_rate(stack: LocalStack, scratch: Path, topic: str) -> float:
    """Messages a second from the first one read to the last commit; the outcome is audited."""
    warehouse = scratch / f"wh-{topic}"
    command = [*_command(stack, topic, warehouse, "--until-caught-up")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    report = audit_topics(LakeConfig(str(warehouse)), stack.bootstrap, [topic])
    if not report.ok:
        raise SystemExit(f"the audit failed: {report.problems}")
    began = min(float(line["read_at"]) for line in _events(done.stderr, "first batch read"))
    ended = max(snapshot.timestamp_ms for snapshot in _trades(warehouse).snapshots()) / 1000
    return int(json.loads(done.stdout)["consumed"]) / (ended - began)


def _events(log: str, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == event]


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
        while "AnyEnv resolved" not in log.read_text(encoding="utf-8") and time.monotonic() < deadline:
            time.sleep(0.2)
        yield
    finally:
        job.send_signal(signal.SIGTERM)
        if job.wait(120):
            raise SystemExit(f"the job failed: {log.read_text(encoding='utf-8')}")


def _trades(warehouse: Path) -> Any:
    return find_table(open_catalog(LakeConfig(str(warehouse))), NAMESPACE, "trades_v2")


def _watch(warehouse: Path, rows: int, seconds: float) -> dict[int, float]:
    """When each snapshot was first seen by a reader that polls, until ``rows`` are there."""
    seen: dict[int, float] = {}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        table = _trades(warehouse) if (warehouse / "catalog.db").exists() else None
        now = time.time()
        for snapshot in table.snapshots() if table is not None else ():
            seen.setdefault(snapshot.snapshot_id, now)
        current = table.current_snapshot() if table is not None else None
        if current is not None and int(current.summary["total-records"]) >= rows:
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
