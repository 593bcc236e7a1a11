"""What production looks like: a million messages through two TaskManagers and a pool into PostgreSQL and S3."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from k2beam.stack.flink import TASK_MANAGER
from tests.replay_helpers import simulated
from tests.soak.faults import away, kill_a_worker, kill_the_client
from tests.soak.feed import Feed, wait_until
from tests.soak.rig import Rig
from tests.soak.verdict import judge

pytestmark = [pytest.mark.integration, pytest.mark.full]

ROWS = 1_000_000
RATE = 10_000.0
PATIENCE_S = 900.0


def test_a_million_messages_are_exact_though_everything_is_lost_once(tmp_path: Path) -> None:
    """A worker, a TaskManager and the client are killed at 20, 40 and 60 %; the store goes away at 80 %."""
    faults = "gaps=200,duplicates=100,out-of-order=50,late=20,malformed=60"
    truth = simulated(tmp_path / "in", rows=ROWS, faults=faults, kinds=("trades",), files=1, symbols=12)
    began = time.monotonic()
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(f"{time.monotonic() - began:7.1f} {line}")
        print(lines[-1])

    chance = random.Random(1)
    plan = {
        0.2: ("a worker is killed", kill_a_worker),
        0.4: ("a TaskManager is away", away(TASK_MANAGER, 8, 4)),
        0.6: ("the client is killed", kill_the_client),
        0.8: ("the store is away", away("s3", 30, 20)),
    }
    with Rig(tmp_path, tmp_path / "in", truth, tell) as rig:
        rig.pool.start()
        rig.client.start()
        wait_until(rig.workers, "the job has workers", 300)
        feed = Feed(rig.stack.bootstrap, rig.topic, rig.messages, rig.ids, RATE)
        feed.start()
        for share, (what, fault) in plan.items():
            wait_until(lambda least=share * ROWS: rig.committed() >= least, f"{share:.0%} is committed", PATIENCE_S)
            assert rig.committed() < ROWS, "all was committed before: raise ROWS, or lower RATE"
            tell(f"{share:.0%}: {what}: {fault(rig, chance)}")
        wait_until(lambda: rig.committed() >= ROWS, "everything is committed", PATIENCE_S)
        tell("everything is committed")
        assert rig.client.stop() == 0, lines
        assert feed.failed == []
        verdict = judge(rig)
        tell(f"{verdict}")
    assert verdict.problems == ()
    assert verdict.rows + verdict.dead_letters == ROWS
