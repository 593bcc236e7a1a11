"""The long set: what a million messages cost, in counts and not in time, so that nothing gets dearer unseen.

Each count is the difference of two runs, so that starting and ending a job are not in it. Limits are about a third
above what was found; one message in a call, or in an element, of its own would be far beyond them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from k2beam.job.config import Reader
from k2beam.stack.stack import LocalStack
from tests.integration.live_job import live_job
from tests.live_helpers import produce, register
from tests.replay_helpers import simulated

pytestmark = [pytest.mark.integration, pytest.mark.full]

PROGRAM = str(Path(__file__).with_name("cost_command.py"))
FEW, MANY = 100_000, 1_100_000


@dataclass(frozen=True)
class Cost:
    """Of a job, or of a million messages of one."""

    elements: int
    calls: int
    arrow_allocations: int
    arrow_bytes: int

    def assert_at_most(self, limit: Cost) -> None:
        assert all(found > 0 for found in vars(self).values()), f"something was not counted: {self}"
        dearer = {name: (found, getattr(limit, name)) for name, found in vars(self).items()}
        assert {name: pair for name, pair in dearer.items() if pair[0] > pair[1]} == {}


LIMIT_REPLAY = Cost(elements=300, calls=300_000, arrow_allocations=25_000, arrow_bytes=2_200_000_000)
LIMIT_LIVE = Cost(elements=600, calls=1_400_000, arrow_allocations=150_000, arrow_bytes=4_000_000_000)
"""Looser: a slow machine needs more bundles and polls."""


def of_a_million(measured: Callable[[int], Cost]) -> Cost:
    few, many = vars(measured(FEW)), vars(measured(MANY))
    return Cost(**{name: many[name] - few[name] for name in few})


def test_a_replay(tmp_path: Path) -> None:
    def replayed(rows: int) -> Cost:
        archive, report = tmp_path / f"in-{rows}", tmp_path / f"{rows}.json"
        simulated(archive, rows, "", symbols=200, files=8, envelope="plain", kinds=("trades",))
        words = ["ingest", "archive", str(archive), "--warehouse", str(tmp_path / f"wh-{rows}")]
        subprocess.run([sys.executable, PROGRAM, str(report), *words, "--", "--runner=FnApiRunner"], check=True)
        return Cost(**json.loads(report.read_text(encoding="utf-8")))

    of_a_million(replayed).assert_at_most(LIMIT_REPLAY)


def test_a_backlog(stack: LocalStack, tmp_path: Path, prism: Path, unique: Callable[[str], str]) -> None:
    ids = register(stack)

    def read(rows: int) -> Cost:
        report, warehouse = tmp_path / f"{rows}.json", tmp_path / f"wh-{rows}"
        simulated(tmp_path / f"in-{rows}", rows, "", symbols=200, kinds=("trades",))
        topics = produce(stack, tmp_path / f"in-{rows}", unique("cost"), ids)
        program, options = (PROGRAM, str(report)), ("--commit-age", "10s", "--until-caught-up")
        with live_job(stack, topics, warehouse, prism, Reader.LIBRDKAFKA, *options, program=program) as job:
            assert job.end() == 0, job.said()
            assert job.stats()["consumed"] == rows
        return Cost(**json.loads(report.read_text(encoding="utf-8")))

    of_a_million(read).assert_at_most(LIMIT_LIVE)
