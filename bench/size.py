"""What a large warehouse costs a job when it starts and ends, and the audit: time, CPU seconds and peak memory.

Each step is a process of its own, so that its peak is its own: ``python -m bench.size STEP WAREHOUSE``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.compaction import NAME, START_US, make_trades, result_line, timed
from bench.memory import own_peak_kib
from k2beam import LakeConfig
from k2beam.arrays import Ints
from k2beam.audit.audit import audit
from k2beam.clock import MICROS_PER_DAY
from k2beam.config import NAMESPACE, RetryPolicy
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files, read_coverage
from k2beam.lake.files import write_rows
from k2beam.lake.reconcile import reconcile
from k2beam.lake.seed import LedgerSeed
from k2beam.lake.tables import open_table

DAYS = 30
PARTITIONS = 4
MORE = 20
"""One row for so many comes later, in the afternoon of the last day; the others are of mornings."""
STEPS = {
    "start of a job": "start",
    "end of a job, its rows read": "end",
    "start of a job, its days remembered": "start",
    "audit": "audit",
    "audit --full": "full",
}
_TIMES = ("timestamp", "_ingested_at")


def size(rows: int, symbols: int, scratch: Path) -> Iterator[dict[str, Any]]:
    """Fill a warehouse with ``rows`` trades of thirty days, then a twentieth more; measure each of :data:`STEPS`."""
    warehouse = scratch / "size"
    feed = _Feed(warehouse, symbols)
    for day in range(DAYS):
        feed.half_day(2 * day, rows // DAYS)
    yield from _measured("end of the first job", "end", warehouse, rows)
    feed.half_day(2 * DAYS - 1, rows // MORE)
    for what, step in STEPS.items():
        yield from _measured(what, step, warehouse, rows + rows // MORE)


class _Feed:
    """Writes days of trades, whose sequence numbers go on for each symbol; most columns of all days are one day's."""

    def __init__(self, warehouse: Path, symbols: int) -> None:
        self._catalog = open_catalog(LakeConfig(warehouse=str(warehouse)))
        self._table = open_table(self._catalog, NAMESPACE, NAME)
        self._symbols = symbols
        self._random = np.random.default_rng(1)
        self._next_offset = np.zeros(PARTITIONS, dtype=np.int64)
        self._next_sequence = np.zeros(symbols, dtype=np.int64)
        self._made = pa.table({})

    def half_day(self, half: int, count: int) -> None:
        """Write and commit the trades of half a day, in one file; ``half`` counts from the first day's morning."""
        if len(self._made) != count:
            self._made = make_trades(self._random, 0, count, START_US, MICROS_PER_DAY // 2, self._symbols)
        trades = self._made
        symbol = trades.column("symbol").cast(pa.string())
        symbol = pc.cast(pc.utf8_slice_codeunits(symbol, 1, -4), pa.int64()).to_numpy()
        sequence = _numbered(symbol, self._next_sequence)
        offsets = _numbered(symbol % PARTITIONS, self._next_offset)
        shift = half * MICROS_PER_DAY // 2
        times = {name: trades.column(name).cast(pa.int64()).to_numpy() + shift for name in _TIMES}
        for name, values in {"source_sequence": sequence, "_offset": offsets, **times}.items():
            field = trades.schema.field(name)
            trades = trades.set_column(trades.schema.get_field_index(name), field, pa.array(values).cast(field.type))
        (staged,) = write_rows(self._table, trades, START_US + shift)
        commit_files(self._catalog, NAMESPACE, NAME, [staged], run_id="bench", policy=RetryPolicy())


def _numbered(groups: Ints, following: Ints) -> Ints:
    """Numbers that go on within each group from where ``following`` says, which is moved on."""
    order, counts = np.argsort(groups, kind="stable"), np.bincount(groups, minlength=len(following))
    numbers = np.empty(len(groups), dtype=np.int64)
    numbers[order] = np.repeat(following - (np.cumsum(counts) - counts), counts) + np.arange(len(groups))
    following += counts
    return numbers


def _measured(what: str, step: str, warehouse: Path, rows: int) -> Iterator[dict[str, Any]]:
    line = [sys.executable, "-m", "bench.size", step, str(warehouse)]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
    for unit, value in json.loads(done.stdout).items():
        yield result_line(what, rows, value, unit, None, "")


def _start(lake: LakeConfig) -> None:
    """What a job's start reads of the tables, and the memory of every key."""
    read_coverage(open_catalog(lake), NAMESPACE)
    seed = LedgerSeed.of_now(lake)
    if seed.load("BINANCE", "S0000USDT", "trades") is None:
        raise RuntimeError("the symbol has no rows")


def _end(lake: LakeConfig) -> None:
    found = reconcile(open_catalog(lake), NAMESPACE)
    if found.diff.changes:
        raise RuntimeError(f"the rows have {len(found.diff.changes)} gaps")


def _audit(lake: LakeConfig, full: bool = False) -> None:
    report = audit(open_catalog(lake), NAMESPACE, full=full)
    if not report.ok:
        raise RuntimeError("; ".join(report.problems))


_RUNS: dict[str, Callable[[LakeConfig], None]] = {
    "start": _start,
    "end": _end,
    "audit": _audit,
    "full": lambda lake: _audit(lake, full=True),
}


def main(step: str, warehouse: str) -> None:
    """Run one step, and say what it took."""
    wall, cpu = timed(lambda: _RUNS[step](LakeConfig(warehouse=warehouse)))
    sys.stdout.write(json.dumps({"s": round(wall, 2), "CPU s": round(cpu, 2), "MiB": own_peak_kib() // 1024}))


if __name__ == "__main__":
    main(*sys.argv[1:])
