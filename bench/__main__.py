"""``python -m bench [--rows N] [--symbols N]``: prints one table; figures are of this machine and this run."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench.memory import memory
from bench.replay import replay
from k2beam.cli.output import OutputFormat, emit_rows
from k2beam.ingest.simulate import Simulation, simulate


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--symbols", type=int, default=200)
    parser.add_argument("--output", choices=[choice.value for choice in OutputFormat], default="table")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="k2beam-bench-") as folder:
        root = Path(folder)
        for name, rows in (("one", given.rows), ("four", 4 * given.rows)):
            simulate(root / name, Simulation(rows=rows, symbols=given.symbols, seed=1, envelope="plain", files=8))
        results = [*replay(root / "one", root), *memory(root / "one", root / "four", root)]
    emit_rows(("what", "rows", "value", "unit", "ratio", "beside"), results, OutputFormat(given.output))


if __name__ == "__main__":
    main()
