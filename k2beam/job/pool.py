"""A pool of Python workers for a cluster (``--environment_type=EXTERNAL``): a server that starts one when asked.

Each worker is a process of this Python, whatever the PATH says, in a process group of its own, started by the same
contract as a container's (:mod:`k2beam.job.boot`). So it has the job's logs, state cache and options, and its output
goes where the pool's does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc  # type: ignore[import-untyped]
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from k2beam.errors import PlatformError
from k2beam.logs import get_logger
from k2beam.signals import stop_signal

END_SECONDS = 10.0
"""How long workers may take to end when the pool does."""

_KEEP_ALIVE = (("grpc.http2.max_pings_without_data", 0), ("grpc.http2.max_ping_strikes", 0))


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):  # type: ignore[misc]
    """The workers that this process has started.

    A runner that asks for a worker to be stopped has closed its connection, by which it ends itself. It is not looked
    for by its name: two TaskManagers, and a TaskManager after a restart, give the same names to others.
    """

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", "k2beam.job.boot")) -> None:
        self._command = tuple(command)
        self._workers: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()

    def StartWorker(self, request: Any, _context: Any) -> Any:  # noqa: N802 - Beam's name
        """Start a worker; the answer has an error where that failed."""
        command = [
            *self._command,
            f"--id={request.worker_id}",
            f"--provision_endpoint={request.provision_endpoint.url}",
            f"--control_endpoint={request.control_endpoint.url}",
            f"--logging_endpoint={request.logging_endpoint.url}",
        ]
        try:
            worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
        except OSError as error:
            return beam_fn_api_pb2.StartWorkerResponse(error=f"the worker pool can't start a worker: {error}")
        with self._lock:
            self._workers.append(worker)
        get_logger("worker").info("worker started", worker=request.worker_id, pid=worker.pid)
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - Beam's name
        """Nothing: see the class."""
        return beam_fn_api_pb2.StopWorkerResponse()

    def living(self) -> int:
        """How many workers live; those that have ended are forgotten, and logged where they failed."""
        with self._lock:
            ended = [worker for worker in self._workers if worker.poll() is not None]
            self._workers = [worker for worker in self._workers if worker.returncode is None]
            for worker in ended:
                if worker.returncode:
                    get_logger("worker").warning("worker ended", pid=worker.pid, code=worker.returncode)
            return len(self._workers)

    def end(self) -> None:
        """End all workers, with what they have started: asked first, then killed."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for worker in self._workers:
                if worker.poll() is None:
                    os.killpg(worker.pid, number)
            until = time.monotonic() + END_SECONDS
            while self.living() and time.monotonic() < until:
                time.sleep(0.05)


def serve_pool(host: str, port: int, health: tuple[str, int] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then end the workers. ``health``: where ``/health`` answers with 200 over HTTP.

    Raises PlatformError where an address can't be taken.
    """
    pool = WorkerPool()
    server = grpc.server(ThreadPoolExecutor(8), options=(*_KEEP_ALIVE, ("grpc.so_reuseport", 0)))
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise PlatformError(f"the worker pool can't listen on {host}:{port}: is the port in use?") from error
    with stop_signal() as stop:
        answering = None if health is None else _health(pool, *health)
        server.start()
        get_logger("worker").info("worker pool ready", address=f"{host}:{bound}")
        while not stop.wait(1.0):
            pool.living()
        server.stop(0)
        if answering is not None:
            answering.shutdown()
        pool.end()


def _health(pool: WorkerPool, host: str, port: int) -> ThreadingHTTPServer:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"workers": pool.living()}).encode()
            self.send_response(200 if self.path == "/health" else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Probes are no news."""

    try:
        server = ThreadingHTTPServer((host, port), Answer)
    except OSError as error:
        raise PlatformError(f"the pool's health can't be at {host}:{port}: {error.strerror}") from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
