"""The command ``k2beam ingest kafka`` on a Flink cluster of its own, as a process that is watched from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from k2beam.config import NAMESPACE
from k2beam.flink import ENDED, FlinkJob, FlinkJobs
from k2beam.job.config import Reader
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import read_coverage
from k2beam.stack.server import free_ports
from k2beam.stack.stack import LocalStack
from tests.lake_helpers import lake_config

PATIENCE_S = 420.0
"""A submission uploads 200 MB and takes half a minute, and more on a busy machine."""

POLL_S = 0.2


@dataclass
class FlinkIngest:
    """A job: its client's process and its name in the cluster, which no other job has."""

    process: subprocess.Popen[bytes]
    cluster: FlinkJobs
    name: str
    warehouse: Path
    out: Path
    log: Path

    def committed(self) -> int:
        """The offsets that are in the tables now."""
        if not (self.warehouse / "catalog.db").exists():
            return 0
        return len(read_coverage(open_catalog(lake_config(self.warehouse)), NAMESPACE))

    def in_cluster(self) -> FlinkJob | None:
        """The job as the cluster knows it; None before it is submitted."""
        return next((job for job in self.cluster.jobs() if job.name.startswith(self.name)), None)

    def checkpoints(self) -> dict[str, int]:
        """How many checkpoints were ``completed``, ``failed``, ``restored`` and so on."""
        job = self.in_cluster()
        return {} if job is None else dict(self.cluster.checkpoints(job.id)["counts"])

    def last_checkpoint_bytes(self) -> int:
        """How large the latest complete checkpoint is."""
        job = self.in_cluster()
        assert job is not None
        return int(self.cluster.checkpoints(job.id)["latest"]["completed"]["checkpointed_size"])

    def wait_until(self, reached: Callable[[], bool], what: str) -> None:
        """Poll ``reached``. Fails when the client ends before, or after four minutes."""
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            assert self.process.poll() is None, f"the job ended before {what}: {self.said()}"
            assert time.monotonic() < deadline, f"not in time: {what}; {self.in_cluster()}; the log: {self.said()}"
            time.sleep(POLL_S)

    def kill(self) -> None:
        """SIGKILL to the client, which then can't end its job."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM to the client, as a supervisor does."""
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> dict[str, Any]:
        """Wait for the client's end, which must be a good one; gives the stats that it printed."""
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the client does not end: {self.said()}")
        assert code == 0, self.said()
        stats: dict[str, Any] = json.loads(self.out.read_text(encoding="utf-8"))
        return stats

    def said(self) -> str:
        """The end of the client's log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-20_000:]


@contextmanager
def worker_pool(env: Mapping[str, str] | None = None, cwd: Path = Path("/")) -> Iterator[tuple[int, Sequence[str]]]:
    """A pool in a folder of its own, its process id, and Beam's options for it; ``env`` are its own variables."""
    address = f"127.0.0.1:{free_ports(('pool',))['pool']}"
    command = [sys.executable, "-m", "k2beam.cli.main", "worker", "pool", "--listen", address]
    process = subprocess.Popen(command, cwd=cwd, env={**os.environ, **(env or {})})
    try:
        yield process.pid, ("--environment_type=EXTERNAL", f"--environment_config={address}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextmanager
def flink_ingest(
    stack: LocalStack,
    topics: Sequence[str],
    warehouse: Path,
    *options: str,
    reader: Reader = Reader.BEAM,
    workers: Sequence[str] = ("--environment_type=LOOPBACK",),
    parallelism: int = 2,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[FlinkIngest]:
    """A job over ``topics``; at the end the client is killed if it still runs, and its job cancelled.

    ``env``: variables that only the client has. ``cwd``: its folder, whose packages Python takes first.
    """
    # The cluster still knows the jobs of other tests, and lists all in no order.
    name = f"{warehouse.name}-{uuid.uuid4().hex[:8]}"
    command = [
        *(sys.executable, "-m", "k2beam.cli.main", "ingest", "kafka"),
        *(word for topic in topics for word in ("--topic", topic)),
        *("--bootstrap", stack.bootstrap, "--registry", stack.registry_url),
        *(() if "--expansion" in options else ("--expansion", stack.flink_expansion_address)),
        *("--reader", reader, "--commit-age", "500ms"),
        *(() if "--catalog" in options else ("--warehouse", str(warehouse))),
        *("--output", "json", *options, "--", "--runner=FlinkRunner"),
        *(f"--flink_master={stack.flink_rest_url}", f"--job_endpoint={stack.job_endpoint}", f"--job_name={name}"),
        *(*workers, f"--parallelism={parallelism}"),
        *("--checkpointing_interval=2000", "--max_bundle_size=20000"),
    ]
    out, log = (warehouse.parent / f"{name}.{suffix}" for suffix in ("out", "log"))
    with out.open("w") as output, log.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=cwd, stdout=output, stderr=errors, start_new_session=True, env={**os.environ, **(env or {})}
        )
    job = FlinkIngest(process, FlinkJobs(stack.flink_rest_url), name, warehouse, out, log)
    try:
        yield job
    finally:
        if process.poll() is None:
            job.kill()
        if (left := job.in_cluster()) is not None and left.state not in ENDED:
            job.cluster.cancel(left.id)
