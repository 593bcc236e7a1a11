"""``python -m bench [--rows N] [--symbols N]``: prints one table; figures are of this machine and this run.

``--live`` measures the live job instead, ``--flink`` that on Flink, ``--peers`` puts it beside what one would take
instead, ``--commits N`` tells what a commit costs as a table gets old, ``--compaction`` that of small files,
``--queries`` what queries take beside plain scans, ``--size`` what a large warehouse costs a job and the audit,
``--many-symbols`` what keys cost a replay; ``--demo N`` proves the live job: the demo N times in a row. Exits with 1
for what went wrong.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.commits import commits
from bench.compaction import compaction
from bench.counting import counting
from bench.decode import decode
from bench.demo import demos
from bench.flink import flink
from bench.live import live
from bench.memory import csv_memory, memory
from bench.metrics import metrics
from bench.peers.driver import peers
from bench.queries import queries
from bench.replay import many_symbols, replay
from bench.size import size
from k2beam.cli.output import OutputFormat, emit_rows
from k2beam.simulate.simulate import Simulation, simulate


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--symbols", type=int, default=200)
    parser.add_argument("--output", choices=[choice.value for choice in OutputFormat], default="table")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--live", action="store_true", help="the live job instead: starts Kafka, a registry and Prism")
    instead.add_argument("--flink", action="store_true", help="the live job on Flink instead: starts all of it")
    instead.add_argument("--peers", action="store_true", help="the live job beside its peers instead, on one topic")
    instead.add_argument("--commits", type=_hundreds, metavar="N", help="N commits to one table instead, 1000 or more")
    instead.add_argument("--compaction", action="store_true", help="the compaction of 2,000 files of one day instead")
    instead.add_argument("--queries", action="store_true", help="queries beside plain scans instead")
    instead.add_argument("--size", action="store_true", help="a warehouse of thirty days instead")
    instead.add_argument("--many-symbols", action="store_true", help="replays of 20,000 symbols beside 10 instead")
    instead.add_argument(
        "--demo", type=_count, metavar="N", help="k2beam demo N times instead, clean and with faults in turns"
    )
    parser.add_argument("--runs", type=_count, default=1, help="rounds: --live, --flink, --peers, --many-symbols")
    parser.add_argument("--rate", type=int, default=20_000, help="messages a second of the measurement of latency")
    parser.add_argument("--seconds", type=int, default=60, help="its length")
    given = parser.parse_args()
    if given.demo:
        for line in demos(given.demo):
            print(line, flush=True)
        return
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="k2beam-bench-") as folder:
        root = Path(folder)
        measuring = _measuring(given, root)
        try:
            for result in measuring:
                results.append(result)  # one by one: what was measured is shown, whatever fails later
        finally:
            emit_rows(("what", "rows", "value", "unit", "ratio", "beside"), results, OutputFormat(given.output))


def _measuring(given: argparse.Namespace, root: Path) -> Iterable[dict[str, Any]]:
    """What the options ask for."""
    rows, symbols, runs = given.rows, given.symbols, given.runs
    chosen: dict[str, Callable[[], Iterable[dict[str, Any]]]] = {
        "live": lambda: live(root, rows, given.rate, given.seconds, runs),
        "flink": lambda: flink(root, rows, runs),
        "peers": lambda: peers(root, rows, runs),
        "commits": lambda: commits(given.commits, root),
        "compaction": lambda: compaction(rows, symbols, root),
        "queries": lambda: queries(rows, symbols, root),
        "size": lambda: size(rows, symbols, root),
        "many_symbols": lambda: many_symbols(rows, runs, root),
    }
    return next((measure() for name, measure in chosen.items() if getattr(given, name)), _replay(root, rows, symbols))


def _replay(root: Path, rows: int, symbols: int) -> Iterator[dict[str, Any]]:
    for name, number in (("one", rows), ("four", 4 * rows)):
        simulate(root / name, Simulation(rows=number, symbols=symbols, seed=1, envelope="plain", files=8))
    yield from decode(root)
    yield from replay(root / "one", root)
    yield from memory(root / "one", root / "four", root)
    yield from csv_memory(rows, root)
    yield from metrics(root / "one", root)
    yield from counting(root)


def _count(text: str, least: int = 1) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"at least {least}, not {number}")
    return number


def _hundreds(text: str) -> int:
    return _count(text, least=1000)


if __name__ == "__main__":
    main()
