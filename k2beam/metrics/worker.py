"""Metrics of worker processes: one endpoint in each.

Every worker process counts for itself and Prometheus scrapes each of them, so no two processes write one sample and
sums over ``instance`` are right. Prometheus finds the endpoints by files (``file_sd_configs``).
"""

from __future__ import annotations

import atexit
import errno
import json
import os
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from wsgiref.simple_server import WSGIServer

from prometheus_client import REGISTRY, start_http_server

from k2beam.logs import get_logger
from k2beam.metrics.config import MetricsConfig
from k2beam.metrics.handle import Metrics, NullMetrics, forget_counts

_JOB = "k2beam-workers"
"""The label ``job`` of every target; alerts go by it."""

_ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, not bound


@dataclass(slots=True)
class _Endpoint:
    """The endpoint of this process, opened at most once."""

    server: WSGIServer | None = None
    tried: bool = False
    files: dict[str, Path] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def open(self, config: MetricsConfig) -> None:
        with self.lock:
            if not self.tried:
                self.tried = True
                self._serve(config)
            if self.server is not None and config.targets is not None and config.targets not in self.files:
                self._announce(config, config.targets, self.server.server_port)

    def _serve(self, config: MetricsConfig) -> None:
        first, last = config.ports
        for port in range(first, last + 1):
            try:
                self.server, _ = start_http_server(port, config.host, REGISTRY)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                _failed(config, "address", f"{config.host}:{port} can't be listened on ({error})")
            else:
                get_logger("metrics").info("metrics endpoint", address=f"{config.host}:{self.server.server_port}")
            return
        _failed(config, "ports_taken", f"all ports of {config.host}:{first}-{last} are taken; give a wider range")

    def _announce(self, config: MetricsConfig, folder: str, port: int) -> None:
        try:
            remove_stale_targets(folder)
            self.files[folder] = _write_target(config, folder, port)
        except OSError as error:
            _failed(config, "targets", f"the target file can't be written in {folder} ({error})")

    def withdraw(self) -> None:
        """Take the target files away."""
        with self.lock:
            for path in self.files.values():
                path.unlink(missing_ok=True)
            self.files = {}

    def close(self) -> None:
        """End the endpoint and take its target files away; a handle that is opened later starts another."""
        self.withdraw()
        with self.lock:
            if self.server is not None:
                self.server.shutdown()
                self.server.server_close()
            self.server, self.tried = None, False

    def after_fork(self) -> None:
        """In the child: the endpoint, its files and what was counted are the parent's."""
        if self.server is not None:
            self.server.socket.close()
        self.server, self.tried, self.files, self.lock = None, False, {}, Lock()
        forget_counts()


_endpoint = _Endpoint()


def open_handle(config: MetricsConfig, component: str) -> Metrics:
    """See :meth:`k2beam.metrics.config.MetricsConfig.open`."""
    if not config.enabled:
        return NullMetrics()
    if config.endpoint:
        _endpoint.open(config)
    return Metrics(component, config.environment)


def close_endpoint() -> None:
    """End this process's endpoint, if there is one, and remove its target files; what was counted stays."""
    _endpoint.close()


# Not the whole endpoint: its thread would be waited for, and it ends with the process anyway.
atexit.register(_endpoint.withdraw)
os.register_at_fork(after_in_child=_endpoint.after_fork)


def endpoint_address() -> tuple[str, int] | None:
    """Host and port on which this process serves its metrics; None where it does not."""
    server = _endpoint.server
    return None if server is None else (str(server.server_address[0]), server.server_port)


def remove_stale_targets(folder: str) -> None:
    """Remove the target files of processes of this host that are gone (killed, so that they could not do it).

    Raises OSError for a folder that can't be read.
    """
    prefix = _file_prefix()
    for path in Path(folder).glob(f"{prefix}*.json"):
        number = path.stem.removeprefix(prefix)
        if number.isdigit() and not _is_alive(int(number)):
            path.unlink(missing_ok=True)


def _failed(config: MetricsConfig, reason: str, message: str) -> None:
    metrics = Metrics("metrics_endpoint", config.environment)
    metrics.increment("k2_metrics_endpoint_failures_total", reason=reason)
    get_logger("metrics").error("no metrics endpoint", reason=reason, problem=message)


def _write_target(config: MetricsConfig, folder: str, port: int) -> Path:
    """Write this process's target file; in place only when it is whole, since Prometheus watches the folder."""
    host = socket.gethostname()
    address = host if config.host in _ANY_ADDRESS else config.host
    address = f"[{address}]" if ":" in address else address
    path = Path(folder) / f"{_file_prefix()}{os.getpid()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not .json until it's whole: that is what Prometheus is told to look for.
    partial = path.with_suffix(".partial")
    content = [{"targets": [f"{address}:{port}"], "labels": {"job": _JOB, "host": host}}]
    partial.write_text(json.dumps(content), encoding="utf-8")
    os.replace(partial, path)
    return path


def _file_prefix() -> str:
    return f"k2beam-{re.sub(r'[^A-Za-z0-9._]', '_', socket.gethostname())}-"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
