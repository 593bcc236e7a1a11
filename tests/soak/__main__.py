"""``python -m tests.soak``: a live feed through Flink into PostgreSQL and S3, with faults at random, judged at its end.

The log goes to standard output, and a line of JSON is its last. The same seed gives the same feed and the same order of
faults; when they hit is up to the machine. Exits with 1 unless everything is exact.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.replay_helpers import simulated
from tests.soak.beside import Beside
from tests.soak.faults import FAULTS, in_turns
from tests.soak.feed import Feed, wait_until
from tests.soak.rig import Rig
from tests.soak.verdict import judge

PATIENCE_S = 1_200.0
"""How long the job may take to come to the end of what was produced."""


def main() -> int:
    """Run it. 0 where nothing is lost, doubled or told wrong."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="k2beam-soak-") as folder:
        home = options.keep or Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        return _soak(options, home)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=None, help="of the feed and of the faults; by default the clock's")
    parser.add_argument("--rate", type=float, default=1_000.0, help="messages a second")
    parser.add_argument("--keep", type=Path, default=None, help="folder in which logs and servers' data stay")
    found = parser.parse_args()
    if found.seed is None:
        found.seed = int(time.time())
    return found


def _soak(options: argparse.Namespace, home: Path) -> int:
    started = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - started:8.1f}  {line}", flush=True)

    rows = int(options.rate * options.minutes * 60)
    tell(f"seed {options.seed}, {options.minutes:g} minutes, {rows:,} messages")
    faults = f"gaps={rows // 5_000},duplicates={rows // 10_000},out-of-order={rows // 20_000},malformed=60,late=20"
    settings = {"kinds": ("trades",), "files": 1, "symbols": 12, "seed": options.seed, "rate": options.rate}
    truth = simulated(home / "in", rows=rows, faults=faults, **settings)
    chance = random.Random(options.seed)
    done: Counter[str] = Counter()
    with Rig(home, home / "in", truth, tell) as rig:
        feed = Feed(rig.stack.bootstrap, rig.topic, rig.messages, rig.ids, options.rate)
        beside = Beside(rig)
        rig.pool.start()
        rig.client.start()
        wait_until(rig.workers, "the job has workers", 300)
        feed.start()
        beside.start()
        turn: list[str] = []
        while feed.is_alive():
            feed.join(chance.uniform(8, 25))
            turn = turn or in_turns(chance)
            name = turn.pop()
            beside.faulty_until = float("inf")
            tell(f"{name}: {FAULTS[name](rig, chance)}; {feed.produced:,} produced, {rig.committed():,} committed")
            beside.faulty_until = time.monotonic()
            done[name] += 1
        tell(f"all {feed.produced:,} are produced; no more faults")
        wait_until(lambda: rig.committed() >= len(rig.messages), "everything is committed", PATIENCE_S, 5)
        tell("everything is committed")
        beside.stop()
        code = rig.client.stop()
        verdict = judge(rig)
        problems = [*verdict.problems, *beside.problems, *feed.failed[:5]]
        if code != 0:
            problems.append(f"the client ended with {code}")
        starts = {"client": rig.client.starts, "pool": rig.pool.starts}
    summary = {
        "seed": options.seed,
        "minutes": options.minutes,
        "seconds": round(time.monotonic() - started),
        "messages": len(rig.messages),
        "rows": verdict.rows,
        "dead_letters": verdict.dead_letters,
        "gaps": verdict.gaps,
        "faults": dict(sorted(done.items())),
        "starts": starts,
        "beside": dict(beside.done),
        "beside_failed": dict(beside.failed),
        "problems": problems,
    }
    for problem in problems:
        tell(f"PROBLEM: {problem}")
    print(json.dumps(summary), flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
