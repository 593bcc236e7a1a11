"""The local stack: Kafka, a Schema Registry, Prism, Flink, the Java expansion service, Prometheus,
PostgreSQL, an object store and a REST catalog as processes of this machine.

::

    with LocalStack(folder, services=("kafka", "registry")) as stack:
        produce(stack.bootstrap, stack.registry_url)

The state folder has a folder for each server (see :mod:`k2beam.stack.server`), so that another process can find,
use and end what one has started. Data survives a stop; it is gone when the state folder is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from k2beam.cache import cache_dir
from k2beam.errors import NotReady, PlatformError
from k2beam.stack import server
from k2beam.stack.expansion import Expansion
from k2beam.stack.flink import (
    SECOND_TASK_MANAGER,
    FlinkExpansion,
    FlinkJobManager,
    FlinkJobServer,
    FlinkTaskManager,
)
from k2beam.stack.kafka import Kafka
from k2beam.stack.postgres import Postgres
from k2beam.stack.prism_server import PrismServer
from k2beam.stack.prometheus import Prometheus, targets_folder
from k2beam.stack.registry import Apicurio
from k2beam.stack.rest_catalog import Nessie
from k2beam.stack.s3 import VersityGateway
from k2beam.stack.server import Service

SERVICES: Final[Mapping[str, Service]] = {
    service.name: service
    for service in (
        Kafka(),
        Apicurio(),
        PrismServer(),
        Expansion(),
        FlinkJobManager(),
        FlinkTaskManager(),
        FlinkTaskManager(SECOND_TASK_MANAGER, 1),
        FlinkJobServer(),
        FlinkExpansion(),
        Prometheus(),
        Postgres(),
        VersityGateway(),
        Nessie(),
    )
}
"""In the order of starting: some find others by their record. They end in the reverse order."""
DEFAULT_SERVICES: Final = ("kafka", "registry")
GRACE_S: Final = 20.0
"""Seconds that a server has to end by itself."""

_PORTS: Final = "ports.json"


def default_state() -> Path:
    """Where the stack of the command line is: ``stack`` in the cache."""
    return cache_dir() / "stack"


@dataclass(frozen=True)
class ServiceStatus:
    """How a server is: ``state`` is ``ready``, ``starting`` (it lives but does not answer) or ``stopped``."""

    name: str
    state: str
    pid: int | None
    ports: Mapping[str, int]
    addresses: Mapping[str, str]
    log: Path


class LocalStack:
    """Servers under one state folder; as a context manager, started on entry and ended on exit.

    With ``free_ports`` each server gets ports that nobody listens on, and keeps them for as long as the folder is kept;
    without, the well-known ones (Kafka 9092, registry 8081, and so on). Two programs may use one folder at once.

    Raises PlatformError for a service that there is not, and as :meth:`up` does on entry.

    Examples:
        >>> from pathlib import Path
        >>> from k2beam.stack.stack import LocalStack
        >>> with LocalStack(Path("stack"), services=["kafka"]) as stack:
        ...     [(server.name, server.state) for server in stack.status()]
        [('kafka', 'ready')]
    """

    def __init__(self, state: Path, services: Sequence[str] = DEFAULT_SERVICES, *, free_ports: bool = True) -> None:
        self.state = Path(state).expanduser().absolute()
        self.services = tuple(dict.fromkeys(services))
        self.free_ports = free_ports
        for name in self.services:
            _service(name)

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def bootstrap(self) -> str:
        """Kafka's address, as ``host:port``. Raises PlatformError unless it runs (as do the other addresses)."""
        return self._address("kafka", "bootstrap")

    @property
    def registry_url(self) -> str:
        """The base URL of Confluent's registry API."""
        return self._address("registry", "registry_url")

    @property
    def expansion_address(self) -> str:
        """The Java expansion service, as ``host:port``."""
        return self._address("expansion", "expansion_address")

    @property
    def flink_rest_url(self) -> str:
        """Flink's REST API and web page, as a URL."""
        return self._address("flink-jobmanager", "flink_rest_url")

    @property
    def job_endpoint(self) -> str:
        """The service that takes Beam's jobs for Flink, as ``host:port``."""
        return self._address("flink-job-server", "job_endpoint")

    @property
    def flink_expansion_address(self) -> str:
        """The Java expansion service for pipelines on Flink, as ``host:port``."""
        return self._address("flink-expansion", "expansion_address")

    @property
    def prometheus_url(self) -> str:
        """Prometheus' page and the base of its API, as a URL."""
        return self._address("prometheus", "prometheus_url")

    @property
    def postgres_url(self) -> str:
        """PostgreSQL's default database, as a URL for SQLAlchemy."""
        return self._address("postgres", "postgres_url")

    @property
    def s3_endpoint(self) -> str:
        """The object store, as a URL."""
        return self._address("s3", "s3_endpoint")

    @property
    def rest_catalog_url(self) -> str:
        """Iceberg's REST catalog, as a URL."""
        return self._address("rest-catalog", "rest_catalog_url")

    def prometheus_targets(self, job: str = "k2beam-workers") -> Path:
        """The folder whose ``*.json`` (``file_sd``) name what Prometheus scrapes as ``job``; made where it is missing.

        Raises PlatformError unless ``job`` is ``k2beam-workers`` or ``k2beam-exporter``.
        """
        folder = targets_folder(self._folder("prometheus"), job)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def up(self) -> None:
        """Start what does not run, together, and wait until each is ready. What this call started ends if one fails.

        Raises:
            PlatformError: a program can't be had, a port is taken, or a server ends or does not get ready.
        """
        with self._locked():
            started: list[str] = []
            try:
                for name in (name for name in SERVICES if name in self.services):
                    if server.find(self._folder(name)) is None:
                        started.append(name)
                        self._launch(name)
                for name in self.services:
                    self._wait(name)
            except BaseException:
                for name in started:
                    self._end(name, GRACE_S)
                raise

    def down(self, services: Sequence[str] = ()) -> list[str]:
        """End the named servers, or else every one that the state folder knows; the names of those that ran.

        Each is asked to end and killed after 20 s. Does nothing where nothing runs.
        """
        if not self.state.is_dir():
            return []
        with self._locked():
            known = [name for name in SERVICES if not services or name in services]
            return [name for name in reversed(known) if self._end(name, GRACE_S)]

    def start(self, name: str) -> None:
        """Start one server, on the ports and with the data that it had. Raises as :meth:`up`."""
        with self._locked():
            if server.find(self._folder(name)) is None:
                try:
                    self._launch(name)
                except BaseException:
                    self._end(name, 0)
                    raise
            self._wait(name)

    def stop(self, name: str) -> None:
        """End one server as its operator would; its data and ports stay for :meth:`start`."""
        with self._locked():
            self._end(name, GRACE_S)

    def kill(self, name: str) -> None:
        """End one server at once, as ``kill -9`` or a loss of power does to a process."""
        with self._locked():
            self._end(name, 0)

    def status(self) -> list[ServiceStatus]:
        """Every server that was started under this state folder, and those asked for, with what they answer now."""
        wanted = [name for name in SERVICES if name in self.services or self._folder(name).is_dir()]
        return [self._status(name) for name in wanted]

    def _status(self, name: str) -> ServiceStatus:
        service, folder = _service(name), self._folder(name)
        log = server.log_path(folder)
        running = server.find(folder)
        if running is None:
            return ServiceStatus(name, "stopped", None, {}, {}, log)
        try:
            service.probe(running.ports)
        except NotReady:
            state = "starting"
        else:
            state = "ready"
        return ServiceStatus(name, state, running.pid, running.ports, service.addresses(running.ports), log)

    def _address(self, name: str, key: str) -> str:
        running = server.recorded(self._folder(name))  # also of a stopped one: it comes back at the same address
        if running is None:
            raise PlatformError(f"{name} was not started under {self.state}: name it in services")
        return SERVICES[name].addresses(running.ports)[key]

    def _folder(self, name: str) -> Path:
        return self.state / _service(name).name

    def _launch(self, name: str) -> None:
        service, folder = _service(name), self._folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        ports = self._ports(service, folder)
        for purpose, port in ports.items():
            if not server.becomes_free(port):
                raise PlatformError(
                    f"port {port} ({name}, {purpose}) is in use: end what listens there, take other ports with "
                    f"--free-ports, or give the running server's address to the commands instead of starting one"
                )
        server.start(folder, service.launch(folder, ports), ports)

    def _ports(self, service: Service, folder: Path) -> dict[str, int]:
        """The ports to start with; free ones are written down, so that a restart has the same."""
        purposes = service.default_ports
        if not self.free_ports:
            return dict(purposes)
        path = folder / _PORTS
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if set(kept) == set(purposes):
                return {purpose: int(port) for purpose, port in kept.items()}
        ports = server.free_ports(tuple(purposes), self._given())
        path.write_text(json.dumps(ports) + "\n", encoding="utf-8")
        return ports

    def _given(self) -> set[int]:
        """The ports of all servers here: one that starts does not listen yet."""
        return {
            port for kept in self.state.glob(f"*/{_PORTS}") for port in json.loads(kept.read_text("utf-8")).values()
        }

    def _wait(self, name: str) -> None:
        folder = self._folder(name)
        running = server.recorded(folder)
        if running is None:
            raise PlatformError(f"{name} was not started under {self.state}")
        server.wait_ready(_service(name), folder, running)

    def _end(self, name: str, grace_s: float) -> bool:
        running = server.find(self._folder(name))
        if running is None:
            return False
        server.stop(running, grace_s)
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One program at a time starts or ends servers of a state folder."""
        import fcntl  # not there on Windows, where the rest of the command line still works

        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "stack.lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _service(name: str) -> Service:
    try:
        return SERVICES[name]
    except KeyError:
        raise PlatformError(f"there is no service {name!r}: choose from {', '.join(SERVICES)}") from None
