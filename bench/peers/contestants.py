"""Each contestant: its name with versions, what it needs, and one run of it."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from bench.live import READING_BEGAN, Live, run, time_of
from bench.peers import connect, flink_sql, quix
from bench.peers.peer import Failed, Outcome, Topic, Unavailable, run_process, tail, trade_schema
from bench.peers.table import CATALOG, NAME, NAMESPACE, create_table, with_bigint_times
from k2beam.errors import PlatformError
from k2beam.job.config import Reader
from k2beam.kafka.topics import TopicSpec, create_topics
from k2beam.stack.jars import locked_artifacts
from k2beam.stack.versions import FLINK

_SERVERS = ("kafka", "registry")
"""Which serve all alike, and count for nobody."""


@dataclass(frozen=True)
class K2beam:
    """``ingest kafka`` on Prism; its tables are audited."""

    reader: Reader

    @property
    def name(self) -> str:
        return f"k2beam, --reader {self.reader}"

    def prepare(self) -> None:
        """Prism was fetched with the stack."""

    def run(self, topic: Topic, warehouse: Path) -> Outcome:
        done = run(Live(topic.stack, self.reader), warehouse, topic.name)
        # Java reads for Beam's reader in the expansion service; for the other one it idles.
        others = _SERVERS if self.reader is Reader.BEAM else (*_SERVERS, "expansion")
        used = {name: used for name, used in done.used.items() if name not in others}
        return Outcome(done.fetched, done.last_commit, used)


@dataclass(frozen=True)
class PlainLoop:
    """:mod:`bench.peers.plain_loop`."""

    checked: bool

    @property
    def name(self) -> str:
        style = "consumer in K2's style" if self.checked else "plain loop"
        return f"{style}, pyiceberg {version('pyiceberg')}"

    def prepare(self) -> None:
        """Its libraries are k2beam's own."""

    def run(self, topic: Topic, warehouse: Path) -> Outcome:
        create_table(warehouse, trade_schema())
        log, stack = warehouse.with_suffix(".log"), topic.stack
        given = (stack.bootstrap, stack.registry_url, topic.name, str(warehouse), str(topic.rows))
        options = ("--checked",) if self.checked else ()
        command = [sys.executable, "-m", "bench.peers.plain_loop", *given, *options]
        committed, used = run_process(command, topic, warehouse, log, ends=True)
        return Outcome(_said(log), committed, used)


@dataclass(frozen=True)
class Connect:
    """:mod:`bench.peers.connect`."""

    @property
    def name(self) -> str:
        paths = [artifact.path for artifact in locked_artifacts("connect", connect.LOCK)]
        sink, worker = (_version_of(part, paths) for part in ("iceberg-kafka-connect", "connect-runtime"))
        return f"Kafka Connect {worker}, Iceberg's sink {sink}"

    def prepare(self) -> None:
        try:
            connect.fetch()
        except PlatformError as error:
            raise Unavailable(str(error)) from error

    def run(self, topic: Topic, warehouse: Path) -> Outcome:
        create_table(warehouse, with_bigint_times(trade_schema()))
        log, stack = warehouse.with_suffix(".log"), topic.stack
        for result in create_topics(stack.bootstrap, [TopicSpec(connect.control_topic(warehouse), 1)]):
            if result.state != "created":
                raise Failed(f"{result.topic}: {result.note}")
        command = connect.command(stack.bootstrap, stack.registry_url, topic.name, warehouse)
        committed, used = run_process(command, topic, warehouse, log, ends=False)
        return Outcome(_first_offset(log, topic.name), committed, used)


@dataclass(frozen=True)
class Quix:
    """:mod:`bench.peers.quix_sink`, in an environment of its own."""

    @property
    def name(self) -> str:
        return f"Quix Streams {quix.pinned('quixstreams')}, pyiceberg {quix.pinned('pyiceberg')}"

    def prepare(self) -> None:
        _ = self._python

    @cached_property
    def _python(self) -> Path:
        return quix.ensure_python()

    def run(self, topic: Topic, warehouse: Path) -> Outcome:
        create_table(warehouse, quix.flat_schema(trade_schema()))
        log, stack = warehouse.with_suffix(".log"), topic.stack
        given = (stack.bootstrap, stack.registry_url, topic.name, str(warehouse), CATALOG, f"{NAMESPACE}.{NAME}")
        command = [str(self._python), str(quix.PROGRAM), *given]
        committed, used = run_process(command, topic, warehouse, log, ends=False)
        return Outcome(_said(log), committed, used)


@dataclass(frozen=True)
class FlinkSql:
    """:mod:`bench.peers.flink_sql`."""

    @property
    def name(self) -> str:
        paths = [artifact.path for artifact in locked_artifacts("flink", flink_sql.LOCK)]
        return f"Flink SQL {FLINK}, Iceberg {_version_of('iceberg-flink-runtime-1.19', paths)}"

    def prepare(self) -> None:
        try:
            flink_sql.fetch()
        except (PlatformError, OSError, subprocess.CalledProcessError) as error:
            raise Unavailable(str(error)) from error

    def run(self, topic: Topic, warehouse: Path) -> Outcome:
        create_table(warehouse, with_bigint_times(trade_schema()))
        log = warehouse.with_suffix(".log")
        command = flink_sql.command(topic.stack.bootstrap, topic.name, topic.schema_id, warehouse)
        environment = {"FLINK_CONF_DIR": str(flink_sql.configuration(warehouse))}
        committed, used = run_process(command, topic, warehouse, log, ends=True, environment=environment)
        return Outcome(_first_offset(log, topic.name), committed, used)


def _first_offset(log: Path, topic: str) -> float:
    """Seconds since the epoch when Java's consumer was set to its first offset, right before it fetches."""
    text = log.read_text(encoding="utf-8", errors="replace")
    found = re.search(rf"(?m)^(\S+) .*Resetting offset for partition {re.escape(topic)}-\d", text)
    if found is None:
        raise Failed(f"its log has no first offset: {tail(log)}")
    return datetime.fromisoformat(found.group(1)).timestamp()


def _said(log: Path) -> float:
    try:
        return time_of(READING_BEGAN, log.read_text(encoding="utf-8"))
    except SystemExit as error:
        raise Failed(tail(log)) from error


def _version_of(artifact: str, paths: list[str]) -> str:
    for path in paths:
        if found := re.search(rf"/{artifact}/([^/]+)/", path):
            return found.group(1)
    raise ValueError(f"the lock file has no {artifact}")
