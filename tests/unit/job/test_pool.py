"""The pool of workers: processes that a runner asks for, and their end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from k2beam.errors import PlatformError
from k2beam.job import pool as subject
from k2beam.job.pool import WorkerPool, serve_pool
from k2beam.stack.server import free_ports

SLEEPS = (sys.executable, "-c", "import time; time.sleep(60)")
DEAF = (sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)")


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    made = WorkerPool(SLEEPS)
    yield made
    made.end()


def test_two_workers_of_one_name_live_beside_each_other(pool: WorkerPool) -> None:
    """Each TaskManager counts from 1-1, also after it was started again."""
    for _ in range(2):
        assert not pool.StartWorker(beam_fn_api_pb2.StartWorkerRequest(worker_id="1-1"), None).error
    pool.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1"), None)
    assert pool.living() == 2
    first, second = pool._workers
    assert os.getpgid(first.pid) != os.getpgid(second.pid) != os.getpgid(0)


def test_a_worker_that_ended_is_forgotten(pool: WorkerPool) -> None:
    pool.StartWorker(beam_fn_api_pb2.StartWorkerRequest(worker_id="1-1"), None)
    pool._workers[0].kill()
    until(lambda: pool.living() == 0)


def test_the_end_also_takes_those_that_do_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "END_SECONDS", 0.5)
    deaf = WorkerPool(DEAF)
    deaf.StartWorker(beam_fn_api_pb2.StartWorkerRequest(worker_id="1-1"), None)
    (worker,) = deaf._workers
    time.sleep(0.5)
    deaf.end()
    assert worker.poll() is not None


def test_a_worker_that_can_not_be_started_is_told_to_the_runner() -> None:
    answer = WorkerPool(("/nowhere/python",)).StartWorker(beam_fn_api_pb2.StartWorkerRequest(worker_id="1-1"), None)
    assert "the worker pool can't start a worker" in answer.error


def test_the_contract_is_what_a_container_is_started_with(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    def popen(command: list[str], **_: Any) -> SimpleNamespace:
        started.append(command)
        return SimpleNamespace(pid=1, poll=lambda: 0, returncode=0)

    monkeypatch.setattr(subprocess, "Popen", popen)
    request = beam_fn_api_pb2.StartWorkerRequest(worker_id="1-1")
    request.provision_endpoint.url = "localhost:5"
    WorkerPool().StartWorker(request, None)
    assert started[0][:3] == [sys.executable, "-m", "k2beam.job.boot"]
    assert {"--id=1-1", "--provision_endpoint=localhost:5"} <= set(started[0])


def test_the_command_serves_says_how_it_is_and_ends_with_its_workers() -> None:
    ports = free_ports(("pool", "health"))
    address, health = (f"127.0.0.1:{ports[name]}" for name in ("pool", "health"))
    command = [sys.executable, "-m", "k2beam.cli.main", "worker", "pool", "--listen", address, "--health", health]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        stub = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(grpc.insecure_channel(address))
        # It waits for a runner that does not answer.
        request = beam_fn_api_pb2.StartWorkerRequest(worker_id="1-1")
        request.provision_endpoint.url = "127.0.0.1:9"
        assert not stub.StartWorker(request, wait_for_ready=True, timeout=60).error
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{health}/health", timeout=10) as answer:
            assert json.loads(answer.read()) == {"workers": 1}
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert "worker pool ready" in said


def test_an_address_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PlatformError, match=rf"can't listen on 127\.0\.0\.1:{port}"):
            serve_pool("127.0.0.1", port)
