"""The cost of a commit as a table gets old: by k2beam's own commit path, a data file of 100 rows each.

By CPU time, since other work on the machine only adds to it. A commit's neighbours differ (every tenth merges
manifests), so the 99th percentile of a hundred commits is compared with that of a hundred others.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.compaction import START_US, make_trades
from k2beam.config import NAMESPACE, LakeConfig, Retention, RetryPolicy
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.files import write_rows
from k2beam.lake.tables import open_table

TABLE = "trades_v2"
ROWS = 100
EARLY = slice(50, 150)
LATE = slice(-100, None)


def commits(number: int, root: Path) -> list[dict[str, Any]]:
    """Milliseconds of CPU that a commit takes early and at the end, with expiry and (a fifth as many) without."""
    expiring = _commits(number, root / "expiring", Retention())
    keeping = _commits(number // 5, root / "keeping", None)
    return [*_results("snapshots expire", *expiring), *_results("all are kept", *keeping)]


def _commits(number: int, warehouse: Path, retention: Retention | None) -> tuple[list[float], int]:
    """The CPU milliseconds of each commit, and the bytes of the table's metadata in the end."""
    catalog = open_catalog(LakeConfig(warehouse=str(warehouse)))
    table = open_table(catalog, NAMESPACE, TABLE)
    taken, random = [], np.random.default_rng(1)
    for first in range(0, number * ROWS, ROWS):
        (staged,) = write_rows(table, make_trades(random, first, ROWS, START_US + first * 1_000, ROWS * 1_000, 1), 0)
        started = time.process_time()
        commit_files(catalog, NAMESPACE, TABLE, [staged], run_id="bench", policy=RetryPolicy(), retention=retention)
        taken.append((time.process_time() - started) * 1000)
    location = open_table(catalog, NAMESPACE, TABLE).metadata_location
    return taken, Path(location.removeprefix("file://")).stat().st_size


def _results(what: str, taken: list[float], metadata_bytes: int) -> list[dict[str, Any]]:
    early, late = (sorted(taken[part]) for part in (EARLY, LATE))
    name = f"commits, {what}"
    measured = {
        "median": (statistics.median(early), statistics.median(late)),
        "p99": (_p99(early), _p99(late)),
    }
    results = [
        {
            "what": f"{name}: {how} of the last 100",
            "rows": len(taken) * ROWS,
            "value": round(last, 2),
            "unit": "CPU ms",
            "ratio": round(last / first, 2),
            "beside": f"{how} of commits 50 to 150",
        }
        for how, (first, last) in measured.items()
    ]
    size = {"what": f"{name}: metadata in the end", "rows": len(taken) * ROWS, "value": metadata_bytes, "unit": "bytes"}
    return [*results, size]


def _p99(ordered: list[float]) -> float:
    return ordered[-1 - len(ordered) // 100]
