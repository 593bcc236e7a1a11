"""What processes use while something runs: processor time and peak memory, by /proc (Linux)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_SECONDS = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Usage:
    """CPU seconds since it was first seen, and the most memory (MiB) that it had."""

    cpu_s: float = 0.0
    peak_mib: int = 0
    _before: float = field(default=0.0, repr=False)
    _seen: list[tuple[float, float]] = field(default_factory=list, repr=False)

    def between(self, begin: float, end: float) -> float:
        """CPU seconds from one moment to another, in seconds since the epoch."""
        until = [max((cpu for at, cpu in self._seen if at <= moment), default=0.0) for moment in (begin, end)]
        return until[1] - until[0]


@contextmanager
def usage(session: int, servers: Mapping[int, str]) -> Iterator[dict[str, Usage]]:
    """Watch the processes of a session from their start, by the names of their programs, and ``servers`` by theirs.

    The session's leader is ``job``. What a process uses in the last twentieth of a second may be missing.
    """
    found: dict[str, Usage] = {}
    for pid, name in servers.items():
        found[name] = Usage(_before=_read(pid)[2])
    over = threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLE_SECONDS):
            for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
                _note(pid, session, servers, found)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def _note(pid: int, session: int, servers: Mapping[int, str], found: dict[str, Usage]) -> None:
    try:
        program, leader, cpu_s, memory = _read(pid)
    except (FileNotFoundError, ProcessLookupError):
        return  # it ended meanwhile
    if pid not in servers and leader != session:
        return
    name = servers.get(pid) or ("job" if pid == session else program)
    used = found.setdefault(name, Usage())
    used.cpu_s = max(used.cpu_s, cpu_s - used._before)
    used._seen.append((time.time(), used.cpu_s))
    used.peak_mib = max(used.peak_mib, memory)


def _read(pid: int) -> tuple[str, int, float, int]:
    """Name of the program, id of its session, CPU seconds and MiB."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    begin, end = text.index("("), text.rindex(")")
    fields = text[end + 2 :].split()
    cpu = (int(fields[11]) + int(fields[12])) / _TICKS
    return text[begin + 1 : end], int(fields[3]), cpu, int(fields[21]) * _PAGE >> 20
