"""What a peer is to the driver, and the running of its process beside the clock of its table."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import pyarrow as pa

from bench.peers.table import progress
from bench.processes import Usage, usage
from k2beam.schemas import payload_arrow_schema
from k2beam.stack.stack import LocalStack

POLL_SECONDS = 0.5
SLOWEST = 2_000
"""Messages a second; who is slower has hung."""
START_SECONDS = 180
END_SECONDS = 120

_ROOT = Path(__file__).resolve().parent.parent.parent
_NONE: Mapping[str, str] = MappingProxyType({})


class Unavailable(Exception):
    """A peer can't be had here: no network, no such artifact."""


class Failed(Exception):
    """A peer that could be had did not do its work."""


@dataclass(frozen=True, slots=True)
class Topic:
    """What is to be read, and where."""

    stack: LocalStack
    name: str
    rows: int
    schema_id: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: when the reader was about to fetch, when the last rows were committed, what the processes used."""

    began: float
    committed: float
    used: Mapping[str, Usage]

    @property
    def cpu_s(self) -> float:
        """Of all processes of the contestant, with their start and end."""
        return sum(used.cpu_s for used in self.used.values())

    @property
    def peak_mib(self) -> int:
        """The sum of the most that each process had.

        What has used no time is a fork about to become another program, whose memory is that of the one it left.
        """
        return sum(used.peak_mib for used in self.used.values() if used.cpu_s > 0.1)


class Peer(Protocol):
    """A contestant. ``prepare`` fetches what it needs, and raises :class:`Unavailable` where it can't."""

    @property
    def name(self) -> str:
        """With versions."""

    def prepare(self) -> None: ...

    def run(self, topic: Topic, warehouse: Path) -> Outcome:
        """Into a table of its own. Raises :class:`Failed`."""


def trade_schema() -> pa.Schema:
    """The fields of a trade, without those that k2beam adds."""
    return payload_arrow_schema("trade_v2")


def run_process(
    command: Sequence[str],
    topic: Topic,
    warehouse: Path,
    log: Path,
    *,
    ends: bool,
    environment: Mapping[str, str] = _NONE,
) -> tuple[float, Mapping[str, Usage]]:
    """A peer's process until its table has all rows; the time of the last commit, and what was used.

    One that does not end by itself is asked to as soon as the rows are there. Raises :class:`Failed`.
    """
    with log.open("w", encoding="utf-8") as stream:
        variables = {**os.environ, "PYTHONPATH": str(_ROOT), **environment}
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, cwd=warehouse.parent, start_new_session=True, env=variables
        )
        try:
            with usage(process.pid, {}) as used:
                deadline = time.monotonic() + START_SECONDS + topic.rows / SLOWEST
                while (done := progress(warehouse)).rows < topic.rows and process.poll() is None:
                    if time.monotonic() > deadline:
                        raise Failed(f"{done.rows:,} of {topic.rows:,} rows in time: {tail(log)}")
                    time.sleep(POLL_SECONDS)
                if not ends:
                    process.terminate()
                process.wait(END_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"it did not end in {END_SECONDS} s: {tail(log)}") from error
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    done = progress(warehouse)
    if done.rows != topic.rows:
        raise Failed(f"{done.rows:,} of {topic.rows:,} rows: {tail(log)}")
    return done.committed, used


def tail(log: Path) -> str:
    """The end of a log, for an error message."""
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]
