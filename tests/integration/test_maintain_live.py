"""Maintenance beside a live job: each command is killed at random moments, and the job's tables stay exact."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from k2beam.job.config import Reader
from k2beam.lake.tables import DEAD_LETTERS, EVENT_TABLES
from k2beam.produce.republish import republish
from k2beam.stack.stack import LocalStack
from tests.integration.live_job import COMMAND, PATIENCE_S, Feeder, LiveJob, live_job
from tests.live_helpers import assert_live_audit, halves, register
from tests.replay_helpers import contents, open_gaps, simulated, true_gaps

pytestmark = pytest.mark.integration

FAULTS = "gaps=10,duplicates=8,late=20,malformed=30"
OLD = ("--older-than-hours", "0.006")
"""Some twenty seconds: longer than a commit is on its way, and short enough that something is deleted."""

FED_AT_ONCE = 50
"""So few, that there is something on its way for as long as the kills take."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "expire": ("expire", "--keep-snapshots", "3", *OLD, "--apply"),
    "compact": ("compact", "--quiet-hours", "0", "--apply"),
    "orphans": ("orphans", *OLD, "--delete"),
    "coverage": ("coverage", "--rebuild", "--apply"),
    "verify": ("verify",),
    "run": ("run", "--keep-snapshots", "2", "--quiet-hours", "0", *OLD, "--apply"),
}
NOTHING_WRONG = ("coverage", "verify")
"""What these find is wrong with the tables: nothing ever may be."""


class Maintenance:
    """Runs the commands on a warehouse, each as a process of its own."""

    def __init__(self, warehouse: Path) -> None:
        self._warehouse = warehouse
        self._took: dict[str, float] = {}

    def run(self, name: str) -> None:
        """Run a command to its end; it must find nothing wrong."""
        begun = time.monotonic()
        done = subprocess.run(self._command(name), capture_output=True, timeout=PATIENCE_S, check=False)
        self._took[name] = time.monotonic() - begun
        assert done.returncode == 0, done.stderr.decode()
        if name in NOTHING_WRONG:
            assert json.loads(done.stdout) == []

    def kill(self, name: str, rng: random.Random) -> bool:
        """Run a command and kill it at a random moment; whether it was still running then."""
        process = subprocess.Popen(self._command(name), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.3, 1.0) * self._took[name])
        process.kill()
        _, said = process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0), said.decode()
        return process.returncode != 0

    def _command(self, name: str) -> list[str]:
        where = ("--warehouse", str(self._warehouse), "--output", "json")
        return [sys.executable, *COMMAND, "maintain", *COMMANDS[name], *where]


def maintained(job: LiveJob, kills: int, enough: int) -> None:
    """Kill each command so many times while messages are on their way; all of them run to their ends before."""
    maintenance, rng = Maintenance(job.warehouse), random.Random(11)
    job.wait_for_rows(enough)
    for name in COMMANDS:
        maintenance.run(name)
    for _ in range(kills):
        for name in COMMANDS:
            assert any(maintenance.kill(name, rng) for _ in range(20)), f"{name} always ends before it is killed"
    assert job.process.poll() is None, job.said()


@pytest.mark.parametrize(
    ("rows", "kills"), [(60_000, 1), pytest.param(500_000, 10, marks=pytest.mark.full)], ids=["some", "many"]
)
def test_maintenance_killed_beside_a_live_job_loses_nothing(
    live: LocalStack, prism: Path, tmp_path: Path, unique: Callable[[str], str], rows: int, kills: int
) -> None:
    truth = simulated(tmp_path / "in", rows=rows, faults=FAULTS, kinds=("trades",), files=1)
    early, late = halves(tmp_path / "in")
    ids, warehouse = register(live), tmp_path / "wh"
    (topic,) = republish(live.bootstrap, early, ids, prefix=f"{unique('maintain')}.")
    with live_job(live, [topic], warehouse, prism, Reader.LIBRDKAFKA, "--keep-snapshots", "5") as job:
        with Feeder(live, topic, late, ids, FED_AT_ONCE):
            maintained(job, kills, len(early) // 2)
        job.wait_for_rows(len(early) + len(late))
        job.tell(signal.SIGTERM)
        assert job.end() == 0, job.said()
    written = job.stats()
    assert_live_audit(live, [topic], warehouse)
    found = contents(warehouse)
    assert len(found[EVENT_TABLES["trades"]]) == truth.rows["trades"] == written["written"][EVENT_TABLES["trades"]]
    assert len(found[DEAD_LETTERS]) == written["dead_letters"] > 0
    assert open_gaps(warehouse) == true_gaps(truth)
    for name in COMMANDS:
        Maintenance(warehouse).run(name)
    assert contents(warehouse) == found
