"""The command ``k2beam ingest kafka`` as a process of its own, with its log, to be watched and ended from outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from k2beam.config import NAMESPACE
from k2beam.coverage import Coverage
from k2beam.job.config import Reader
from k2beam.lake.catalog import Catalog, open_catalog
from k2beam.lake.commit import read_coverage
from k2beam.lake.holes import read_holes
from k2beam.produce.republish import ArchivedMessage
from k2beam.stack.stack import LocalStack
from tests.lake_helpers import lake_config
from tests.live_helpers import produce_more, reader_options

PATIENCE_S = 300.0
POLL_S = 0.1
FED_AT_ONCE = 250
COMMAND = ("-m", "k2beam.cli.main")
PATIENT_COMMAND = (str(Path(__file__).with_name("patient_command.py")),)
"""The same with more patience for a registry."""
HASTY_COMMAND = (str(Path(__file__).with_name("hasty_command.py")),)
"""The same with a job that looks for holes twice a second and reads in short bundles."""


@dataclass
class LiveJob:
    """A running job: its process leads a group of its own, so that what it started can be ended with it."""

    process: subprocess.Popen[bytes]
    warehouse: Path
    out: Path
    log: Path

    def committed(self) -> Coverage:
        """What is in the tables now; nothing before the catalog is there."""
        return self._read(read_coverage)

    def holes(self) -> Coverage:
        """The legal holes that are recorded now; nothing before the catalog is there."""
        return self._read(read_holes)

    def _read(self, read: Callable[[Catalog, str], Coverage]) -> Coverage:
        if not (self.warehouse / "catalog.db").exists():
            return Coverage()
        return read(open_catalog(lake_config(self.warehouse)), NAMESPACE)

    def wait_for_rows(self, count: int = 1) -> int:
        """Until so many offsets are committed; gives how many there are then."""
        self.wait_until(lambda: len(self.committed()) >= count, f"{count} offsets are committed")
        return len(self.committed())

    def wait_for_log(self, text: str) -> None:
        """Until the log has ``text``."""
        self.wait_until(lambda: text in self.said(), f"the log says {text!r}")

    def wait_until(self, reached: Callable[[], bool], what: str) -> None:
        """Poll ``reached``. Fails when the job ends before, or after five minutes."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if reached():
                return
            assert self.process.poll() is None, f"the job ended before {what}: {self.said()}"
            time.sleep(POLL_S)
        pytest.fail(f"not in time: {what}; the log: {self.said()}")

    def runs_for(self, seconds: float) -> None:
        """Let it be for a while. Fails when it ends meanwhile."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the job ended: {self.said()}"
            time.sleep(POLL_S)

    def tell(self, number: signal.Signals) -> None:
        """Send a signal to the job's process alone, as an operator or supervisor does."""
        self.process.send_signal(number)

    def tell_group(self, number: signal.Signals) -> None:
        """Send a signal to the job's process group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def end(self) -> int:
        """Wait for the end; gives the exit code."""
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the job does not end: {self.said()}")

    def kill(self) -> None:
        """kill -9 of the job, and of the runner that it started in a group of its own."""
        for pid in self._members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def kill_in_mid_stream(self, early: int, feeder: Feeder) -> None:
        """``kill`` at a moment when more than the ``early`` messages is committed, and not all that was sent."""
        self.wait_until(lambda: early < len(self.committed()) < early + feeder.sent, "messages are on their way")
        self.kill()

    def _members(self) -> list[int]:
        """Every process of the job's session."""
        found = subprocess.run(["ps", "-o", "pid=", "-s", str(self.process.pid)], stdout=subprocess.PIPE, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def stats(self) -> dict[str, Any]:
        """The stats object that the job printed at its end."""
        found: dict[str, Any] = json.loads(self.out.read_text(encoding="utf-8"))
        return found

    def said(self) -> str:
        """The log so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


@contextmanager
def live_job(
    stack: LocalStack,
    topics: Sequence[str],
    warehouse: Path,
    prism: Path,
    reader: Reader,
    *options: str,
    name: str = "job",
    program: Sequence[str] = COMMAND,
) -> Iterator[LiveJob]:
    """A job over ``topics`` with a quick commit age; killed at the end if it still runs."""
    command = [
        *(sys.executable, *program, "ingest", "kafka"),
        *(word for topic in topics for word in ("--topic", topic)),
        *("--bootstrap", stack.bootstrap, "--registry", stack.registry_url, *reader_options(stack, reader)),
        *(() if "--commit-age" in options else ("--commit-age", "300ms")),
        *("--warehouse", str(warehouse), "--output", "json", *options),
        *("--", f"--prism_location={prism}", "--environment_type=LOOPBACK"),
    ]
    out, log = (warehouse.parent / f"{name}.{suffix}" for suffix in ("out", "log"))
    with out.open("w") as output, log.open("w") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, start_new_session=True)
    job = LiveJob(process, warehouse, out, log)
    try:
        yield job
    finally:
        job.kill()


class Feeder:
    """Sends messages to a topic a few at a time, so that something is always on its way to the tables."""

    def __init__(
        self,
        stack: LocalStack,
        topic: str,
        messages: Sequence[ArchivedMessage],
        ids: Mapping[int, int],
        at_once: int = FED_AT_ONCE,
    ) -> None:
        self._stack = stack
        self._at_once = at_once
        self._topic = topic
        self._messages = messages
        self._ids = ids
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._failed: BaseException | None = None
        self.sent = 0

    def _run(self) -> None:
        try:
            while self.sent < len(self._messages):
                count = len(self._messages) if self._hurry.wait(POLL_S) else self._at_once
                part = self._messages[self.sent : self.sent + count]
                produce_more(self._stack, self._topic, part, self._ids)
                self.sent += len(part)
        except BaseException as error:  # noqa: BLE001 - raised again by the test's own thread
            self._failed = error

    def __enter__(self) -> Feeder:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        """All the rest at once."""
        self._hurry.set()
        self._thread.join()
        if self._failed is not None:
            raise self._failed
