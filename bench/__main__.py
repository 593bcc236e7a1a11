"""``python -m bench [--rows N] [--symbols N]``: prints one table; figures are of this machine and this run."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from bench.decode import decode
from bench.live import live
from bench.memory import memory
from bench.metrics import metrics
from bench.replay import replay
from k2beam.cli.output import OutputFormat, emit_rows
from k2beam.ingest.simulate import Simulation, simulate


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--symbols", type=int, default=200)
    parser.add_argument("--output", choices=[choice.value for choice in OutputFormat], default="table")
    parser.add_argument("--live", action="store_true", help="the live job instead: starts Kafka, a registry and Prism")
    parser.add_argument("--rate", type=int, default=20_000, help="messages a second of the measurement of latency")
    parser.add_argument("--seconds", type=int, default=60, help="its length")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="k2beam-bench-") as folder:
        root = Path(folder)
        if given.live:
            results = list(live(root, given.rows, given.rate, given.seconds))
        else:
            results = _replay(root, given.rows, given.symbols)
    emit_rows(("what", "rows", "value", "unit", "ratio", "beside"), results, OutputFormat(given.output))


def _replay(root: Path, rows: int, symbols: int) -> list[dict[str, Any]]:
    for name, number in (("one", rows), ("four", 4 * rows)):
        simulate(root / name, Simulation(rows=number, symbols=symbols, seed=1, envelope="plain", files=8))
    return [
        *decode(root),
        *replay(root / "one", root),
        *memory(root / "one", root / "four", root),
        *metrics(root / "one", root),
    ]


if __name__ == "__main__":
    main()
