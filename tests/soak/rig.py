"""Servers, a worker pool and a client on this machine: what a job in production has, with a supervisor for both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil
import yaml
from pyiceberg.catalog import load_catalog

from k2beam.config import NAMESPACE
from k2beam.errors import first_line
from k2beam.lake.commit import read_coverage
from k2beam.lake.patience import own_error
from k2beam.produce.republish import ArchivedMessage, archived_messages
from k2beam.simulate.truth import Truth
from k2beam.stack.flink import FLINK_SERVICES, SECOND_TASK_MANAGER
from k2beam.stack.s3 import s3_properties
from k2beam.stack.server import free_ports
from k2beam.stack.stack import LocalStack
from tests.live_helpers import register

CATALOG: Final = "soak"
SERVICES: Final = ("kafka", "registry", "postgres", "s3", *FLINK_SERVICES, SECOND_TASK_MANAGER)
WORKER: Final = "k2beam.job.boot"
PAUSE_S: Final = 2.0
"""What a supervisor waits before it starts a program again."""

Tell = Callable[[str], None]


class Kept:
    """A program that is started again whenever it ends, until it is told to stop."""

    def __init__(self, name: str, command: Callable[[], Sequence[str]], log: Path, env: Mapping[str, str], tell: Tell):
        self._name = name
        self._command = command
        self._log = log
        self._env = {**os.environ, **env}
        self._tell = tell
        self._wanted = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.code: int | None = None

    def start(self) -> None:
        """Start it, and keep it."""
        self._wanted.set()
        self._thread.start()

    def kill(self) -> None:
        """As ``kill -9`` of its process and all that it started."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def stop(self, wait_s: float = 180.0) -> int | None:
        """Ask it to end, and start it no more; its exit code."""
        self._wanted.clear()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self._thread.join(wait_s)
        return self.code

    def _keep(self) -> None:
        with self._log.open("ab") as log:
            while self._wanted.is_set():
                self.starts += 1
                self.process = subprocess.Popen(
                    self._command(), stdout=log, stderr=log, env=self._env, cwd=self._log.parent, start_new_session=True
                )
                self.code = self.process.wait()
                if self._wanted.is_set():
                    self._tell(f"{self._name} ended with {self.code} and is started again")
                    time.sleep(PAUSE_S)


class Rig:
    """All of it under one folder; ``messages`` are what is produced, ``truth`` what is in them.

    As a context manager: servers are up in it. ``job`` are options of ``k2beam ingest kafka``.
    """

    def __init__(self, home: Path, archive: Path, truth: Truth, tell: Tell, job: Sequence[str] = ()) -> None:
        self.home = home
        self.truth = truth
        self.tell = tell
        self.messages: list[ArchivedMessage] = sorted(
            archived_messages(archive), key=lambda message: (message.offset, message.source, message.partition)
        )
        self.stack = LocalStack(home / "stack", SERVICES, free_ports=True)
        self.topic = f"soak-{uuid.uuid4().hex[:8]}"
        self.ids: Mapping[int, int] = {}
        self._env = {"PYICEBERG_HOME": str(home), "K2BEAM_CACHE": os.environ.get("K2BEAM_CACHE", "")}
        self._env = {name: value for name, value in self._env.items() if value}
        self._pool_address = f"127.0.0.1:{free_ports(('pool',))['pool']}"
        self._existing = "--attach"
        self._job = job
        self._committed = 0
        self._catalog: dict[str, str] = {}
        self.pool = Kept("pool", self._pool_command, home / "pool.log", self._env, tell)
        self.client = Kept("client", self._client_command, home / "client.log", self._env, tell)

    def __enter__(self) -> Self:
        self.stack.up()
        sql = {"type": "sql", "init_catalog_tables": "true", "uri": self.stack.postgres_url}
        self._catalog = {**sql, "warehouse": "s3://lake/soak", **s3_properties(self.stack.s3_endpoint)}
        (self.home / ".pyiceberg.yaml").write_text(yaml.safe_dump({"catalog": {CATALOG: self._catalog}}), "utf-8")
        self.ids = register(self.stack)
        self.ask(
            "topics",
            "create",
            self.topic,
            "--partitions",
            "4",
            "--retention",
            "forever",
            "--bootstrap",
            self.stack.bootstrap,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.stop(30)
        self.client.kill()
        self.pool.stop(30)
        self.pool.kill()
        self.stack.down()

    def replace_next(self) -> None:
        """The client that is started next ends the job that runs, instead of following it."""
        self._existing = "--replace"

    def workers(self) -> list[psutil.Process]:
        """The Python workers that the pool has started."""
        if self.pool.process is None or self.pool.process.poll() is not None:
            return []
        children = psutil.Process(self.pool.process.pid).children(recursive=True)
        return [child for child in children if WORKER in _command_line(child)]

    def committed(self) -> int:
        """The offsets that are in the tables; what was known last where catalog or store don't answer."""
        try:
            self._committed = len(read_coverage(load_catalog(CATALOG, **self._catalog), NAMESPACE))
        except Exception as error:
            if own_error(error) is None:  # else PostgreSQL or S3 is away on purpose
                raise
            self.tell(f"coverage can't be read: {first_line(error)[:150]}")
        return self._committed

    def run(self, *words: str, code: int = 0) -> str:
        """Standard output of ``k2beam WORDS``. Raises RuntimeError with what it said unless it exits with ``code``."""
        done = subprocess.run(
            [sys.executable, "-m", "k2beam.cli.main", *words],
            env={**os.environ, **self._env},
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        if done.returncode != code:
            raise RuntimeError(f"k2beam {' '.join(words[:2])} exited with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def ask(self, *words: str) -> Any:
        """The JSON that ``k2beam WORDS`` prints."""
        return json.loads(self.run(*words, "--output", "json"))

    def _pool_command(self) -> list[str]:
        return [sys.executable, "-m", "k2beam.cli.main", "worker", "pool", "--listen", self._pool_address]

    def _client_command(self) -> list[str]:
        existing, self._existing = self._existing, "--attach"
        return [
            *(sys.executable, "-m", "k2beam.cli.main", "ingest", "kafka", "--topic", self.topic),
            *("--bootstrap", self.stack.bootstrap, "--registry", self.stack.registry_url, "--catalog", CATALOG),
            *("--expansion", self.stack.flink_expansion_address, "--commit-age", "5s", existing, *self._job),
            *("--", "--runner=FlinkRunner", f"--flink_master={self.stack.flink_rest_url}", "--job_name=soak"),
            *(f"--job_endpoint={self.stack.job_endpoint}", "--environment_type=EXTERNAL"),
            *(f"--environment_config={self._pool_address}", "--parallelism=4", "--checkpointing_interval=5000"),
            "--max_bundle_size=20000",
        ]


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
