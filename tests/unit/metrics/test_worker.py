"""The endpoint of a worker process: one at most, found by a file, never a reason not to ingest."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from k2beam.errors import UsageError
from k2beam.metrics.config import MetricsConfig
from k2beam.metrics.handle import Metrics, NullMetrics
from k2beam.metrics.worker import close_endpoint, endpoint_address, remove_stale_targets
from tests.metrics_recorder import Samples

HOST = "127.0.0.1"
ANY = (0, 0)
ROWS = "k2_rows_written_total"


@pytest.fixture(autouse=True)
def endpoint_closed() -> Iterator[None]:
    close_endpoint()
    yield
    close_endpoint()


def scrape(address: tuple[str, int]) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address[0]}:{address[1]}/metrics", timeout=10) as answer:
        return str(answer.read(), "utf-8")


def target_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def own_file(pid: int | None = None) -> str:
    return f"k2beam-{socket.gethostname()}-{os.getpid() if pid is None else pid}.json"


def dead_pid() -> int:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return gone.pid


def taken_port() -> socket.socket:
    taken = socket.socket()
    taken.bind((HOST, 0))
    taken.listen()
    return taken


def test_the_default_counts_and_serves_nothing() -> None:
    config = MetricsConfig(environment="test")
    assert pickle.loads(pickle.dumps(config)) == config
    metrics = config.open("tester")
    samples = Samples("tester")
    metrics.increment(ROWS, 3, table="t")
    assert samples.changed() == {f"{ROWS}{{table=t}}": 3}
    assert endpoint_address() is None


def test_switched_off_nothing_is_recorded_or_checked() -> None:
    metrics = MetricsConfig(enabled=False, endpoint=True, ports=ANY).open("writer")
    assert isinstance(pickle.loads(pickle.dumps(metrics)), NullMetrics)
    samples = Samples("writer")
    metrics.increment(ROWS, 3, table="t")
    metrics.gauge("k2_freshness_seconds", 1, table="t")
    metrics.histogram("k2_nothing", float("nan"))
    assert samples.changed() == {}
    assert endpoint_address() is None


@pytest.mark.parametrize("ports", [(9400, 9399), (0, 9400), (-1, 5), (1, 65536)])
def test_ports_that_are_none_are_refused(ports: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="from 1 to 65535"):
        MetricsConfig(endpoint=True, ports=ports)


def test_targets_without_an_endpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--metrics-endpoint"):
        MetricsConfig(targets=str(tmp_path))


def test_a_process_has_one_endpoint_that_its_file_names(tmp_path: Path) -> None:
    config = MetricsConfig(endpoint=True, ports=ANY, targets=str(tmp_path / "made" / "here"))
    with ThreadPoolExecutor(8) as threads:
        handles = list(threads.map(config.open, [f"component{number}" for number in range(16)]))
    address = endpoint_address()
    assert address is not None
    assert config.open("later") is not None
    assert endpoint_address() == address
    assert target_files(tmp_path / "made" / "here") == [own_file()]
    assert json.loads((tmp_path / "made" / "here" / own_file()).read_text()) == [
        {"targets": [f"{HOST}:{address[1]}"], "labels": {"job": "k2beam-workers", "host": socket.gethostname()}}
    ]
    handles[5].increment(ROWS, 2, table="t")
    line = f'{ROWS}{{component="component5",environment="",service="k2beam",table="t"}} 2.0'
    assert line in scrape(address).splitlines()

    close_endpoint()
    assert endpoint_address() is None
    assert target_files(tmp_path / "made" / "here") == []
    with pytest.raises(OSError, match="refused"):
        scrape(address)


def test_an_address_of_all_interfaces_is_known_by_the_hosts_name(tmp_path: Path) -> None:
    MetricsConfig(endpoint=True, host="0.0.0.0", ports=ANY, targets=str(tmp_path)).open("writer")
    [entry] = json.loads((tmp_path / own_file()).read_text())
    assert entry["targets"][0].startswith(f"{socket.gethostname()}:")


def test_a_taken_port_is_passed_over() -> None:
    with taken_port() as taken:
        port = taken.getsockname()[1]
        if port > 65_000:
            pytest.fail("no room above the port that the system chose")
        MetricsConfig(endpoint=True, ports=(port, port + 50)).open("writer")
        address = endpoint_address()
        assert address is not None
        assert port < address[1] <= port + 50


def test_a_full_range_is_logged_and_counted_once_and_the_handle_works(caplog: pytest.LogCaptureFixture) -> None:
    failures = Samples("metrics_endpoint")
    rows = Samples("writer")
    with taken_port() as taken, caplog.at_level("INFO", logger="k2beam"):
        port = taken.getsockname()[1]
        config = MetricsConfig(endpoint=True, ports=(port, port))
        for _ in range(3):
            config.open("writer").increment(ROWS, table="t")
    assert failures.changed() == {"k2_metrics_endpoint_failures_total{reason=ports_taken}": 1}
    assert rows.changed() == {f"{ROWS}{{table=t}}": 3}
    assert caplog.text.count(f"all ports of {HOST}:{port}-{port} are taken; give a wider range") == 1
    assert endpoint_address() is None


def test_an_address_that_is_not_ours_is_told(caplog: pytest.LogCaptureFixture) -> None:
    failures = Samples("metrics_endpoint")
    with caplog.at_level("INFO", logger="k2beam"):
        MetricsConfig(endpoint=True, host="192.0.2.1", ports=(9400, 9499)).open("writer")
    assert failures.changed() == {"k2_metrics_endpoint_failures_total{reason=address}": 1}
    assert "192.0.2.1:9400 can't be listened on" in caplog.text


def test_targets_that_can_not_be_written_leave_the_endpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    failures = Samples("metrics_endpoint")
    with caplog.at_level("INFO", logger="k2beam"):
        MetricsConfig(endpoint=True, ports=ANY, targets=str(tmp_path / "file")).open("writer")
    assert failures.changed() == {"k2_metrics_endpoint_failures_total{reason=targets}": 1}
    assert str(tmp_path / "file") in caplog.text
    assert endpoint_address() is not None


def test_files_of_dead_processes_of_this_host_go(tmp_path: Path) -> None:
    kept = [own_file(), f"k2beam-elsewhere-{dead_pid()}.json", "k2beam-notes.json", "mine.json"]
    for name in (own_file(dead_pid()), *kept):
        (tmp_path / name).write_text("[]")
    remove_stale_targets(str(tmp_path))
    assert target_files(tmp_path) == sorted(kept)


WORKER = """
import os, sys, time
from k2beam.metrics.config import MetricsConfig
from k2beam.metrics.worker import endpoint_address
config = MetricsConfig(endpoint=True, ports=(0, 0), targets=sys.argv[1])
config.open("writer").increment("k2_rows_written_total", 5, table="t")
print(os.getpid(), endpoint_address()[1], flush=True)
if "fork" in sys.argv:
    child = os.fork()
    if child == 0:
        metrics = config.open("writer")
        metrics.increment("k2_rows_written_total", 2, table="t")
        print(os.getpid(), endpoint_address()[1], flush=True)
    sys.stdin.readline()
    if child:
        os.waitpid(child, 0)
else:
    sys.stdin.readline()
"""


def worker(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(folder), *options]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> tuple[int, int]:
    assert process.stdout is not None
    pid, port = process.stdout.readline().split()
    return int(pid), int(port)


def rows_at(port: int) -> float:
    [line] = [line for line in scrape((HOST, port)).splitlines() if line.startswith(f"{ROWS}{{")]
    return float(line.rsplit(" ", 1)[1])


def test_a_file_goes_with_its_process_or_with_the_next_one(tmp_path: Path) -> None:
    killed = worker(tmp_path)
    pid, _ = said(killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert target_files(tmp_path) == [own_file(pid)]
    ending = worker(tmp_path)
    pid, _ = said(ending)
    assert target_files(tmp_path) == [own_file(pid)]
    ending.communicate("end\n", timeout=30)
    assert target_files(tmp_path) == []


def test_a_forked_process_counts_from_nothing_at_an_endpoint_of_its_own(tmp_path: Path) -> None:
    process = worker(tmp_path, "fork")
    try:
        (parent, first), (child, second) = said(process), said(process)
        assert first != second
        assert target_files(tmp_path) == sorted([own_file(parent), own_file(child)])
        assert (rows_at(first), rows_at(second)) == (5, 2)
    finally:
        process.communicate("end\nend\n", timeout=30)
    deadline = time.monotonic() + 30
    while target_files(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert target_files(tmp_path) == []


def test_handles_of_one_component_share_their_samples() -> None:
    samples = Samples("shared")
    first, second = MetricsConfig().open("shared"), Metrics("shared")
    first.increment(ROWS, table="t")
    second.increment(ROWS, table="t")
    assert samples.changed() == {f"{ROWS}{{table=t}}": 2}
