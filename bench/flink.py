"""The live job on a standalone Flink cluster, with Kafka and Schema Registry on the same machine.

Throughput: a backlog over uneven partitions, to the last commit of its rows, from two moments: when the cluster has the
job, and the reader's first fetch. The half minute in which a submission uploads Beam's archives is not part of it.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.compaction import result_line
from bench.live import READING_BEGAN, SCHEMA_ID, Run, backlog, finished, lines, register, time_of
from k2beam.errors import FlinkRestError
from k2beam.flink import FlinkJobs
from k2beam.job.config import Reader
from k2beam.stack.flink import FLINK_SERVICES, TASK_MANAGER
from k2beam.stack.stack import LocalStack

CHECKPOINT_MS = 5000
PARALLELISM = 2
_SEEK = r"^(\S+ \S+) .*Setting offset for partition {topic}-\d+ "
"""What Java's consumer says right before its first fetch, in the TaskManager's log."""


@dataclass(frozen=True, slots=True)
class OnFlink:
    """The servers, the reader that jobs on them take, and further options of ``ingest kafka`` and of Beam."""

    stack: LocalStack
    reader: Reader
    beam_options: tuple[str, ...] = ("--max_bundle_size=20000",)

    def command(self, topic: str, warehouse: Path) -> list[str]:
        """``ingest kafka`` on the cluster; the tables' name is that of the job."""
        stack = self.stack
        return [
            *(sys.executable, "-m", "k2beam.cli.main", "--log-json", "ingest", "kafka"),
            *("--topic", topic, "--warehouse", str(warehouse), "--reader", self.reader),
            *("--bootstrap", stack.bootstrap, "--registry", stack.registry_url),
            *("--expansion", stack.flink_expansion_address),
            *("--output", "json", "--until-caught-up", "--", "--runner=FlinkRunner"),
            *(f"--flink_master={stack.flink_rest_url}", f"--job_endpoint={stack.job_endpoint}"),
            *(f"--job_name={warehouse.name}", "--environment_type=LOOPBACK", f"--parallelism={PARALLELISM}"),
            *(f"--checkpointing_interval={CHECKPOINT_MS}", *self.beam_options),
        ]


@dataclass
class Checkpoints:
    """What Flink told of a job while it ran: when it had it, and its checkpoints."""

    started: float = 0.0
    completed: int = 0
    failed: int = 0
    done: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Milliseconds and bytes of each, by its number: Flink remembers the last ten."""

    @property
    def durations_ms(self) -> list[int]:
        return [duration for duration, _ in self.done.values()]

    @property
    def most_bytes(self) -> int:
        return max((size for _, size in self.done.values()), default=0)

    def look(self, cluster: FlinkJobs, name: str) -> None:
        """Note what there is now; what a cluster that is busy does not answer, the next look may find."""
        for job in cluster.jobs():
            if job.name.startswith(f"{name}-"):
                told = cluster.checkpoints(job.id)
                self.started = cluster.started(job.id)
                self.completed, self.failed = told["counts"]["completed"], told["counts"]["failed"]
                self.done |= {
                    each["id"]: (each["end_to_end_duration"], each["checkpointed_size"])
                    for each in told["history"]
                    if each["status"] == "COMPLETED"
                }


def flink(scratch: Path, rows: int, runs: int) -> Iterator[dict[str, Any]]:
    """Throughput over ``rows`` messages by each reader, ``runs`` times in turn.

    Each run has a new TaskManager: every job loads Beam's classes anew, and a warm one soon has no room for them.
    """
    with LocalStack(scratch / "stack", services=("kafka", "registry", *FLINK_SERVICES)) as stack:
        topic = backlog(stack, scratch, {SCHEMA_ID: register(stack)}, "backlog", rows)
        jobs = {reader: OnFlink(stack, reader) for reader in Reader}
        measured: dict[Reader, list[tuple[Run, Checkpoints]]] = {reader: [] for reader in Reader}
        for number in range(runs):
            for reader, job in jobs.items():
                stack.stop(TASK_MANAGER)
                stack.start(TASK_MANAGER)
                measured[reader].append(run(job, scratch / f"flink-{reader}-{number}", topic))
        for reader, found in measured.items():
            what = f"live job on Flink, {reader}"
            done = [each for each, _ in found]
            yield from lines(what, rows, done)
            yield from working_lines(what, rows, done)
            yield from checkpoint_lines(what, rows, [each for _, each in found])


def run(job: OnFlink, warehouse: Path, topic: str) -> tuple[Run, Checkpoints]:
    """The job over a backlog until it has caught up; its tables are audited."""
    (log,) = (service.log for service in job.stack.status() if service.name == TASK_MANAGER)
    before = log.stat().st_size
    cluster, seen = FlinkJobs(job.stack.flink_rest_url), Checkpoints()

    def look() -> None:
        with suppress(FlinkRestError):
            seen.look(cluster, warehouse.name)

    done = finished(job.stack, job.command(topic, warehouse), warehouse, topic, look)
    if job.reader is Reader.BEAM:
        fetched = first_seek(log.read_bytes()[before:].decode(errors="replace"), topic)
    else:
        fetched = time_of(READING_BEGAN, done.said)
    return Run(done.messages, seen.started, fetched, min(done.commits), max(done.commits), done.used), seen


def working_lines(what: str, rows: int, runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Processor time from the first fetch to the last commit: without the start of a job, which is the same always."""
    for name in runs[0].used:
        spent = [run.used[name].between(run.fetched, run.last_commit) for run in runs if name in run.used]
        cpu = round(statistics.median(spent) / rows * 1_000_000, 2)
        yield result_line(f"{what}: processor time of {name} while it reads, median", rows, cpu, "CPU s/million")


def checkpoint_lines(what: str, rows: int, found: Sequence[Checkpoints]) -> Iterator[dict[str, Any]]:
    """How many there were in the last run, and the worst of all runs."""
    durations = [duration for each in found for duration in each.durations_ms]
    yield result_line(f"{what}: checkpoints completed, last run", rows, found[-1].completed, "")
    yield result_line(f"{what}: checkpoints failed, all runs", rows, sum(each.failed for each in found), "")
    if durations:
        yield result_line(f"{what}: checkpoint, median", rows, round(statistics.median(durations)), "ms")
        yield result_line(f"{what}: checkpoint, longest", rows, max(durations), "ms")
        yield result_line(f"{what}: checkpoint, largest", rows, max(each.most_bytes for each in found) >> 10, "KiB")


def first_seek(log: str, topic: str) -> float:
    """Seconds since the epoch at which the first reader of ``topic`` was set to its offset, in local time's log."""
    found = re.search(_SEEK.format(topic=re.escape(topic)), log, re.MULTILINE)
    if found is None:
        raise SystemExit(f"no consumer of {topic} in the log of the TaskManager: has its log another form?")
    return datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()
