"""Flink as local servers: a session cluster of one JobManager and one or two TaskManagers, Beam's job server
for it, and an expansion service of the job server's version of Beam.

The TaskManagers and the job server find the JobManager by its record in the same state folder, so it is started
first. The cluster listens on this machine only; what is Beam's may listen on every interface. None has any protection.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from k2beam.errors import FlinkRestError, NotReady, PlatformError
from k2beam.flink import FlinkJobs
from k2beam.stack import server
from k2beam.stack.beam_jars import beam_jars, java_flags
from k2beam.stack.expansion import Expansion
from k2beam.stack.flink_dist import ensure_flink, libraries
from k2beam.stack.jars import classpath
from k2beam.stack.java import ensure_java
from k2beam.stack.server import HOST, Launch, connect
from k2beam.stack.versions import FLINK_JAVA

JOB_MANAGER: Final = "flink-jobmanager"
TASK_MANAGER: Final = "flink-taskmanager"
SECOND_TASK_MANAGER: Final = "flink-taskmanager-2"
JOB_SERVER: Final = "flink-job-server"
EXPANSION: Final = "flink-expansion"
FLINK_SERVICES: Final = (JOB_MANAGER, TASK_MANAGER, JOB_SERVER, EXPANSION)
"""All that a pipeline over Kafka needs to run on Flink, but for Kafka."""

SLOTS: Final = 2

_JOB_MANAGER_MAIN: Final = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER_MAIN: Final = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
_JOB_SERVER_MAIN: Final = "org.apache.beam.runners.flink.FlinkJobServerDriver"
_EXPANSION_MAIN: Final = "org.apache.beam.sdk.expansion.service.ExpansionService"
_MEMORY_MAIN: Final = "org.apache.flink.runtime.util.bash.BashJavaUtils"
_MEMORY_MARK: Final = "BASH_JAVA_UTILS_EXEC_RESULT:"
_SHOW_TIME: Final = "-Dorg.slf4j.simpleLogger.showDateTime=true"
_LOG: Final = """\
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %-40c{1} %x - %m%n
"""


@dataclass(frozen=True)
class FlinkJobManager:
    """The JobManager; ``flink_rest_url`` is its REST API and web page, ``flink_master`` the same for Beam's options."""

    name: str = JOB_MANAGER
    patience_s: float = 120.0

    @property
    def default_ports(self) -> Mapping[str, int]:
        return {"rest": 8082, "rpc": 6123, "blob": 6124}

    def launch(self, folder: Path, ports: Mapping[str, int]) -> Launch:
        flink, java = ensure_flink(), str(ensure_java(*FLINK_JAVA))
        configuration = _configure(folder, job_manager_settings(folder, ports))
        heap = ("-Xms128m", "-Xmx512m", "-XX:MaxMetaspaceSize=256m")
        return _launch(java, (*heap, *java_flags()), flink, _JOB_MANAGER_MAIN, configuration)

    def probe(self, ports: Mapping[str, int]) -> None:
        connect(ports["rest"])
        try:
            FlinkJobs(_rest_url(ports)).overview()
        except FlinkRestError as error:
            raise NotReady(str(error)) from error

    def addresses(self, ports: Mapping[str, int]) -> dict[str, str]:
        return {"flink_rest_url": _rest_url(ports), "flink_master": f"{HOST}:{ports['rest']}"}


@dataclass(frozen=True)
class FlinkTaskManager:
    """A TaskManager: one process of 1.6 GB with two slots. ``number``: its usual ports are so many further."""

    name: str = TASK_MANAGER
    number: int = 0
    patience_s: float = 120.0

    @property
    def default_ports(self) -> Mapping[str, int]:
        return {"rpc": 6122 + 4 * self.number, "data": 6121 - 2 * self.number, "metrics": 9249 + self.number}

    def launch(self, folder: Path, ports: Mapping[str, int]) -> Launch:
        flink, java = ensure_flink(), str(ensure_java(*FLINK_JAVA))
        job_manager = server.ports_beside(folder, JOB_MANAGER)
        configuration = _configure(folder, task_manager_settings(folder, ports, job_manager))
        flags, dynamic = memory(java, flink, configuration)
        return _launch(java, (*flags, *java_flags()), flink, _TASK_MANAGER_MAIN, configuration, dynamic)

    def probe(self, ports: Mapping[str, int]) -> None:
        # It registers with the JobManager a moment later; a job waits for its slots.
        connect(ports["rpc"])
        connect(ports["data"])

    def addresses(self, ports: Mapping[str, int]) -> dict[str, str]:
        return {"metrics": f"http://{HOST}:{ports['metrics']}"}


@dataclass(frozen=True)
class FlinkJobServer:
    """Beam's job server; ``job_endpoint`` takes jobs for the cluster beside it."""

    name: str = JOB_SERVER
    patience_s: float = 120.0

    @property
    def default_ports(self) -> Mapping[str, int]:
        return {"job": 8099, "artifact": 8098}

    def launch(self, folder: Path, ports: Mapping[str, int]) -> Launch:
        java = str(ensure_java(*FLINK_JAVA))
        job_manager = server.ports_beside(folder, JOB_MANAGER)
        options = (
            f"--flink-master={HOST}:{job_manager['rest']}",
            f"--artifacts-dir={folder / 'artifacts'}",
            f"--job-host={HOST}",
            f"--job-port={ports['job']}",
            f"--artifact-port={ports['artifact']}",
            "--expansion-port=-1",  # its own service has no options; FlinkExpansion is the same with them
        )
        heap = ("-Xms128m", "-Xmx768m", _SHOW_TIME)
        return Launch((java, *heap, *java_flags(), "-cp", classpath(JOB_SERVER), _JOB_SERVER_MAIN, *options), {})

    def probe(self, ports: Mapping[str, int]) -> None:
        for port in ports.values():
            connect(port)

    def addresses(self, ports: Mapping[str, int]) -> dict[str, str]:
        return {"job_endpoint": f"{HOST}:{ports['job']}"}


@dataclass(frozen=True)
class FlinkExpansion(Expansion):
    """The expansion service with the job server's version of Beam; KafkaIO then runs inside the TaskManager.

    Environment EMBEDDED spares a Java worker. KafkaIO is a native source of Flink (``use_deprecated_read``): as a
    splittable DoFn it makes checkpoints that take seconds and grow.
    """

    name: str = EXPANSION

    @property
    def default_ports(self) -> Mapping[str, int]:
        return {"grpc": 8096}

    def launch(self, folder: Path, ports: Mapping[str, int]) -> Launch:
        del folder
        options = (
            "--javaClassLookupAllowlistFile=*",
            "--defaultEnvironmentType=EMBEDDED",
            "--experiments=use_deprecated_read",
        )
        java = str(ensure_java(*FLINK_JAVA))
        command = (java, "-Xms64m", "-Xmx512m", _SHOW_TIME, "-cp", classpath(JOB_SERVER), _EXPANSION_MAIN)
        return Launch((*command, str(ports["grpc"]), *options), {})


def job_manager_settings(folder: Path, ports: Mapping[str, int]) -> dict[str, str | int]:
    """Flink's configuration of the JobManager."""
    return _shared(folder, ports) | {
        "jobmanager.bind-host": HOST,
        "rest.address": HOST,
        "rest.bind-address": HOST,
        "rest.port": ports["rest"],
        "rest.bind-port": str(ports["rest"]),
        "blob.server.port": str(ports["blob"]),
        "metrics.fetcher.update-interval": 1000,
        # Beam looks for the pipeline of an archive beside its own class: that is to be the one of the archive.
        "classloader.resolve-order": "child-first",
        # Without a limit a job whose client has gone restarts for ever, since its Python worker went with it. The pause
        # spans the heartbeat's timeout: until a lost TaskManager is known to be lost, each restart fails at once.
        "restart-strategy.type": "failure-rate",
        "restart-strategy.failure-rate.max-failures-per-interval": 10,
        "restart-strategy.failure-rate.failure-rate-interval": "5 min",
        "restart-strategy.failure-rate.delay": "5 s",
    }


def task_manager_settings(
    folder: Path, ports: Mapping[str, int], job_manager: Mapping[str, int]
) -> dict[str, str | int]:
    """Flink's configuration of the TaskManager."""
    return _shared(folder, job_manager) | {
        "taskmanager.host": HOST,
        "taskmanager.bind-host": HOST,
        "taskmanager.rpc.port": str(ports["rpc"]),
        "taskmanager.data.port": ports["data"],
        "taskmanager.data.bind-port": str(ports["data"]),
        "taskmanager.numberOfTaskSlots": SLOTS,
        "taskmanager.memory.process.size": "1600m",
        "taskmanager.memory.jvm-metaspace.size": "256m",
        "taskmanager.memory.managed.size": "16m",  # state is on the heap
        "metrics.reporter.prometheus.factory.class": "org.apache.flink.metrics.prometheus.PrometheusReporterFactory",
        "metrics.reporter.prometheus.port": str(ports["metrics"]),
    }


def _shared(folder: Path, job_manager: Mapping[str, int]) -> dict[str, str | int]:
    return {
        "jobmanager.rpc.address": HOST,
        "jobmanager.rpc.port": job_manager["rpc"],
        "io.tmp.dirs": str(folder / "tmp"),
        "state.backend.type": "hashmap",
        "state.checkpoint-storage": "filesystem",
        "state.checkpoints.dir": (folder.parent / JOB_MANAGER / "checkpoints").as_uri(),
        # Beam's classes are loaded once, with Flink's own: each job that brings them leaves 55 MB in the metaspace.
        "classloader.resolve-order": "parent-first",
        "heartbeat.interval": 2000,
        "heartbeat.timeout": 10_000,
    }


def memory(java: str, flink: Path, configuration: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The TaskManager's flags of Java and options of its own, as Flink derives them from the size of the process.

    Raises:
        PlatformError: Flink's tool fails, as it does where the sizes do not add up.
    """
    tools = f"{flink}/bin/bash-java-utils.jar:{libraries(flink)}"
    tool = (java, "-cp", tools, _MEMORY_MAIN, "GET_TM_RESOURCE_PARAMS", "--configDir", str(configuration))
    done = subprocess.run(tool, capture_output=True, text=True, check=False)
    found = [line.removeprefix(_MEMORY_MARK) for line in done.stdout.splitlines() if line.startswith(_MEMORY_MARK)]
    if done.returncode != 0 or len(found) != 2:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-6:])
        raise PlatformError(f"Flink could not derive the TaskManager's memory from {configuration}:\n{last}")
    return tuple(found[0].split()), tuple(found[1].split())


def _configure(folder: Path, settings: Mapping[str, str | int]) -> Path:
    """Writes Flink's configuration and that of its log, which goes to standard output."""
    configuration = folder / "conf"
    for path in (configuration, folder / "tmp"):
        path.mkdir(exist_ok=True)
    lines = (f"{name}: {json.dumps(value)}\n" for name, value in settings.items())
    (configuration / "config.yaml").write_text("".join(lines), encoding="utf-8")
    (configuration / "log4j.properties").write_text(_LOG, encoding="utf-8")
    return configuration


def _launch(
    java: str, flags: tuple[str, ...], flink: Path, main: str, configuration: Path, options: tuple[str, ...] = ()
) -> Launch:
    log = f"-Dlog4j.configurationFile={(configuration / 'log4j.properties').as_uri()}"
    command = (java, *flags, log, "-cp", _with_beam(flink), main, "--configDir", str(configuration), *options)
    return Launch(command, {"FLINK_PLUGINS_DIR": str(flink / "plugins"), "FLINK_CONF_DIR": str(configuration)})


def _with_beam(flink: Path) -> str:
    """Flink's libraries, and behind them those of the pipelines that Beam's job server submits."""
    return os.pathsep.join((libraries(flink), *map(str, beam_jars(beside_flink=True))))


def _rest_url(ports: Mapping[str, int]) -> str:
    return f"http://{HOST}:{ports['rest']}"
