"""Starts a server as a process of its own, waits until it answers, and ends it without leaving anything.

A server has a folder: ``server.log`` (its standard output and error), ``server.json`` (pid, ports, command)
and its data. It is detached: it leads a process group of its own and outlives the program that started it.
A pid alone proves nothing, since the system gives it to another process later; so the time at which the
process began is kept beside it and compared.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

from k2beam.errors import NotReady, PlatformError

HOST: Final = "127.0.0.1"
"""The address that the local servers are found at, and the only one that those listen on which let us choose."""

_RECORD: Final = "server.json"
_LOG: Final = "server.log"
_ENDED: Final = frozenset("ZX")
_POLL_S: Final = 0.1
_KILL_WAIT_S: Final = 10.0
_FREE_PORTS: Final = range(20_000, 32_000)
"""Below the range that systems take for outgoing connections: a client that retries a stopped server there could
be given the very port as its own, and find itself connected to itself."""


@dataclass(frozen=True)
class Launch:
    """How a process is started and asked to end; ``environment`` is added to the caller's."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    end_signal: int = signal.SIGTERM


class Service(Protocol):
    """One kind of server: what it needs, how it starts and how it is asked whether it is ready."""

    @property
    def name(self) -> str:
        """The name in commands and of its folder."""
        ...

    @property
    def default_ports(self) -> Mapping[str, int]:
        """Its ports by purpose, with the numbers that are used unless free ones are asked for."""
        ...

    @property
    def patience_s(self) -> float:
        """Seconds after which a start has failed."""
        ...

    def launch(self, folder: Path, ports: Mapping[str, int]) -> Launch:
        """Fetches programs, prepares the folder. Raises PlatformError where something can't be had."""
        ...

    def probe(self, ports: Mapping[str, int]) -> None:
        """Returns when the server does its work; raises :class:`NotReady` otherwise."""
        ...

    def addresses(self, ports: Mapping[str, int]) -> dict[str, str]:
        """What clients are to be given, by name."""
        ...


@dataclass(frozen=True)
class Running:
    """A process that was started: its pid, the time it began (opaque), ports by purpose and the command."""

    pid: int
    began: str
    ports: Mapping[str, int]
    command: tuple[str, ...]
    end_signal: int = signal.SIGTERM


def log_path(folder: Path) -> Path:
    """Where a server's output goes."""
    return folder / _LOG


def start(folder: Path, launch: Launch, ports: Mapping[str, int]) -> Running:
    """Start a process, detached, and write its record.

    Raises:
        PlatformError: the program does not start.
    """
    with log_path(folder).open("ab") as log:
        try:
            process = subprocess.Popen(
                launch.command,
                cwd=folder,
                env=os.environ | dict(launch.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise PlatformError(f"{folder.name} does not start: {launch.command[0]}: {error}") from error
    # Popen would warn of a child that runs on when it is collected; whether it lives is asked of the system instead.
    process.returncode = 0
    state = _state(process.pid)
    running = Running(process.pid, state[1] if state else "", dict(ports), launch.command, launch.end_signal)
    _write(folder, running)
    return running


def find(folder: Path) -> Running | None:
    """The process that the record names, if it still lives; else None.

    Raises:
        PlatformError: the record can't be read.
    """
    running = recorded(folder)
    return running if running is not None and is_alive(running) else None


def recorded(folder: Path) -> Running | None:
    """What was started last, living or not; None if nothing was.

    Raises:
        PlatformError: the record can't be read.
    """
    path = folder / _RECORD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        end_signal = content.get("end_signal", signal.SIGTERM)
        return Running(content["pid"], content["began"], content["ports"], tuple(content["command"]), end_signal)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlatformError(f"{path} can't be read ({error!r}): end its server by hand and delete the file") from error


def ports_beside(folder: Path, name: str) -> Mapping[str, int]:
    """The ports of another server in the same state folder as ``folder``, which the server of ``folder`` needs.

    Raises:
        PlatformError: none was started there.
    """
    running = recorded(folder.parent / name)
    if running is None:
        raise PlatformError(f"{folder.name} needs {name}, which was not started under {folder.parent}: name both")
    return running.ports


def is_alive(running: Running) -> bool:
    """Whether that very process lives; one that has ended and was not collected does not."""
    state = _state(running.pid)
    if state is None or state[1] != running.began:
        return False
    return state[0] not in _ENDED or _is_ending(running.pid)


def _is_ending(pid: int) -> bool:
    """Takes note of the end of a child, which else would stay a zombie; whether threads of it are still at work."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:  # the child of another program, which is to take note itself
        return len(list(Path("/proc").glob(f"{pid}/task/*"))) > 1


def wait_ready(service: Service, folder: Path, running: Running, clock: Callable[[], float] = time.monotonic) -> None:
    """Wait until a server answers.

    Raises:
        PlatformError: it ended, or did not answer in time; the message has the end of its log.
    """
    deadline = clock() + service.patience_s
    while True:
        try:
            service.probe(running.ports)
        except NotReady as error:
            said = str(error)
        else:
            return
        if not is_alive(running):
            raise PlatformError(f"{service.name} ended while it started. {_log_tail(folder)}")
        if clock() > deadline:
            raise PlatformError(
                f"{service.name} was not ready after {service.patience_s:.0f} s: {said}. {_log_tail(folder)}"
            )
        time.sleep(_POLL_S)


def stop(running: Running, grace_s: float) -> bool:
    """End a process and all of its group: asked first, killed after ``grace_s`` seconds.

    Returns whether it ended by itself. Does nothing to one that has ended, or whose pid is another process now.

    Raises:
        PlatformError: it can't be killed.
    """
    if not is_alive(running):
        return True
    graceful = grace_s > 0 and _end(running, running.end_signal, grace_s)
    if not _end(running, signal.SIGKILL, _KILL_WAIT_S):  # also for what the process started itself and left
        raise PlatformError(f"process {running.pid} could not be killed: {' '.join(running.command)[:200]}")
    return graceful


def free_ports(purposes: Sequence[str], taken: Collection[int] = ()) -> dict[str, int]:
    """A port for each purpose that nobody listens on, and that is none of those ``taken``.

    Raises:
        PlatformError: none was found.
    """
    found: dict[str, int] = {}
    for port in random.sample(_FREE_PORTS, 200):
        if len(found) == len(purposes):
            break
        if port not in taken and is_free(port):
            found[purposes[len(found)]] = port
    if len(found) < len(purposes):
        raise PlatformError(f"no free ports between {_FREE_PORTS.start} and {_FREE_PORTS.stop}")
    return found


def is_free(port: int) -> bool:
    """Whether a server could listen on a port of this machine now."""
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: connections may linger
        try:
            attempt.bind((HOST, port))
        except OSError:
            return False
    return True


def becomes_free(port: int, wait_s: float = 5.0) -> bool:
    """As :func:`is_free`, with some patience: the system takes a moment to clear up after a killed server."""
    deadline = time.monotonic() + wait_s
    while not is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def connect(port: int, timeout_s: float = 1.0) -> None:
    """Raises :class:`NotReady` unless somebody accepts connections on a port of this machine."""
    try:
        socket.create_connection((HOST, port), timeout_s).close()
    except OSError as error:
        raise NotReady(f"nothing listens on {HOST}:{port} ({error})") from error


def answers(url: str, timeout_s: float = 5.0) -> None:
    """Raises :class:`NotReady` unless a server of this machine answers a GET without an error."""
    try:
        # A proxy of the environment has no business between two programs of one machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=timeout_s) as answer:
            answer.read()
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        raise NotReady(f"GET {url}: {error}") from error


def _end(running: Running, number: int, wait_s: float) -> bool:
    """Signals the group once, since some servers break off their work at a second one; whether the process ended."""
    _signal(running.pid, number)
    deadline = time.monotonic() + wait_s
    while is_alive(running):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _state(pid: int) -> tuple[str, str] | None:
    """The state of a process, in the letters of ps, and a text for when it began; None where there is no such pid."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return fields[0], f"ticks {fields[19]}"
    done = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, began = done.stdout.strip().partition(" ")
    return (state[0], began.strip()) if state else None


def _write(folder: Path, running: Running) -> None:
    partial = folder / f".{_RECORD}"
    partial.write_text(json.dumps(asdict(running), indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / _RECORD)


def _log_tail(folder: Path, lines: int = 12) -> str:
    path = log_path(folder)
    try:
        last = path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    except OSError as error:
        return f"Its log {path} can't be read: {error}"
    return "\n".join([f"The end of {path}:", *last])
