"""A server is started detached, found again by its record, and ended with everything that it started."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from k2beam.errors import NotReady, PlatformError
from k2beam.stack import server
from k2beam.stack.server import HOST, Launch, Running

STUBBORN = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"
PARENT = """import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', CHILD])
print('child', child.pid, flush=True); time.sleep(600)"""


@dataclass(frozen=True)
class Fake:
    """A service that is ready when its log says so."""

    folder: Path
    name: str = "fake"
    patience_s: float = 30.0
    default_ports: Mapping[str, int] = ()  # type: ignore[assignment]

    def launch(self, folder: Path, ports: Mapping[str, int]) -> Launch:
        raise NotImplementedError

    def probe(self, ports: Mapping[str, int]) -> None:
        if "on" not in server.log_path(self.folder).read_text(encoding="utf-8"):
            raise NotReady("its log says nothing")

    def addresses(self, ports: Mapping[str, int]) -> dict[str, str]:
        return {}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder of a server; what still runs at the end is killed."""
    path = tmp_path / "fake"
    path.mkdir()
    yield path
    if (path / "server.json").is_file() and (running := server.find(path)) is not None:
        server.stop(running, 0)


def start(folder: Path, program: str, **environment: str) -> Running:
    return server.start(folder, Launch((sys.executable, "-c", program), environment), {"http": 1})


def log(folder: Path) -> str:
    return server.log_path(folder).read_text(encoding="utf-8")


def wait_for(folder: Path, text: str) -> str:
    deadline = time.monotonic() + 30
    while text not in log(folder):
        assert time.monotonic() < deadline, log(folder)
        time.sleep(0.02)
    return log(folder)


def exists(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_it_is_found_by_its_record_and_leads_a_group_of_its_own(folder: Path) -> None:
    assert server.find(folder) is None
    assert server.recorded(folder) is None
    running = start(folder, "import os, time; print('on', os.environ['GIVEN'], flush=True); time.sleep(600)", GIVEN="x")
    assert wait_for(folder, "on") == "on x\n"
    assert server.find(folder) == running
    assert os.getpgid(running.pid) == running.pid != os.getpgrp()
    assert server.stop(running, 10) is True
    assert server.find(folder) is None
    assert server.recorded(folder) == running, "the record stays, for the ports"


def test_the_end_of_a_child_leaves_no_zombie(folder: Path) -> None:
    running = start(folder, "print('on', flush=True)")
    wait_for(folder, "on")
    deadline = time.monotonic() + 30
    while server.is_alive(running):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not Path(f"/proc/{running.pid}").exists()


def test_another_program_can_find_and_end_it(folder: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from k2beam.stack import server as s; "
        "s.start(Path(sys.argv[1]), s.Launch((sys.executable, '-c', 'import time; time.sleep(600)'), {}), {})"
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, timeout=60)
    running = server.find(folder)
    assert running is not None
    assert exists(running.pid)
    assert server.stop(running, 10) is True
    assert not exists(running.pid)


def test_one_that_does_not_end_is_killed(folder: Path) -> None:
    running = start(folder, STUBBORN)
    wait_for(folder, "on")
    assert server.stop(running, 0.3) is False
    assert not exists(running.pid)


def test_without_grace_it_is_not_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    killpg = os.killpg

    def note(group: int, number: int) -> None:
        sent.append(number)
        killpg(group, number)

    monkeypatch.setattr(os, "killpg", note)
    running = start(folder, STUBBORN)
    wait_for(folder, "on")
    assert server.stop(running, 0) is False
    assert set(sent) == {signal.SIGKILL}


def test_what_it_started_ends_with_it(folder: Path) -> None:
    running = start(folder, PARENT.replace("CHILD", repr(STUBBORN)))
    wait_for(folder, "child")
    lines = wait_for(folder, "on\n").splitlines()  # of two processes: in either order
    child = int(next(line for line in lines if line.startswith("child")).split()[1])
    server.stop(running, 10)
    deadline = time.monotonic() + 30
    while exists(child):
        assert time.monotonic() < deadline, "the child of the server is left"
        time.sleep(0.02)


def test_a_pid_that_is_another_process_now_is_left_alone(folder: Path) -> None:
    running = start(folder, STUBBORN)
    stale = replace(running, began="ticks 1")
    assert not server.is_alive(stale)
    assert server.stop(stale, 0) is True
    assert server.is_alive(running)


def test_a_program_that_is_not_there_is_an_error(folder: Path) -> None:
    with pytest.raises(PlatformError, match="fake does not start: /no/such/java"):
        server.start(folder, Launch(("/no/such/java",), {}), {})


@pytest.mark.parametrize("content", ["{", "[]", '{"pid": 1}'])
def test_a_record_that_is_damaged_is_an_error(folder: Path, content: str) -> None:
    (folder / "server.json").write_text(content, encoding="utf-8")
    with pytest.raises(PlatformError, match=r"server\.json can't be read .* delete the file"):
        server.find(folder)
    (folder / "server.json").unlink()


def test_the_record_is_plain_json(folder: Path) -> None:
    running = start(folder, STUBBORN)
    record = json.loads((folder / "server.json").read_text(encoding="utf-8"))
    assert (record["pid"], record["ports"]) == (running.pid, {"http": 1})


def test_ready_is_when_it_answers(folder: Path) -> None:
    running = start(folder, "import time; time.sleep(0.3); print('on', flush=True); time.sleep(600)")
    server.wait_ready(Fake(folder), folder, running)
    assert "on" in log(folder)


def test_one_that_ends_while_it_starts_is_an_error_with_its_last_words(folder: Path) -> None:
    running = start(folder, "import sys; sys.exit('no memory left')")
    with pytest.raises(PlatformError, match=r"fake ended while it started\. The end of .*server\.log:\nno memory left"):
        server.wait_ready(Fake(folder), folder, running)


def test_one_that_is_never_ready_is_an_error_after_its_time(folder: Path) -> None:
    running = start(folder, "import time; print('working', flush=True); time.sleep(600)")
    wait_for(folder, "working")
    times = iter((0.0, 1.0, 31.0))
    with pytest.raises(PlatformError, match=r"not ready after 30 s: its log says nothing\. The end of(.|\n)*working"):
        server.wait_ready(Fake(folder), folder, running, clock=lambda: next(times))


def test_free_ports_are_free_and_different() -> None:
    ports = server.free_ports(("a", "b", "c"))
    assert list(ports) == ["a", "b", "c"]
    assert len(set(ports.values())) == 3
    assert all(20_000 <= port < 32_000 and server.is_free(port) for port in ports.values())


def test_a_port_that_is_listened_on_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        listening.listen()
        port = listening.getsockname()[1]
        assert not server.is_free(port)
        assert not server.becomes_free(port, wait_s=0.2)
        server.connect(port)
        monkeypatch.setattr(server, "_FREE_PORTS", range(port, port + 1))
        monkeypatch.setattr("random.sample", lambda ports, _: list(ports))
        with pytest.raises(PlatformError, match="no free ports between"):
            server.free_ports(("a",))
    assert server.becomes_free(port)
    with pytest.raises(NotReady, match=f"nothing listens on 127.0.0.1:{port}"):
        server.connect(port)
