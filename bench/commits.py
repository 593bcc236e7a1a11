"""The cost of a commit as a table gets old: by k2beam's own commit path, a data file of 100 rows each.

By CPU time, since other work on the machine only adds to it. A commit's neighbours differ (every tenth merges
manifests), so the 99th percentile of a hundred commits is compared with that of a hundred others.
"""

from __future__ import annotations

import statistics
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from k2beam.config import NAMESPACE, LakeConfig, Retention, RetryPolicy
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.files import write_rows
from k2beam.lake.tables import SPECS, open_table

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
    taken = []
    for first in range(0, number * ROWS, ROWS):
        staged = write_rows(table, _rows(first), 0)
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


def _rows(first: int) -> pa.Table:
    """A hundred trades of one symbol, a millisecond apart."""
    numbers = list(range(first, first + ROWS))
    times = [1_767_571_200_000_000 + number * 1000 for number in numbers]
    given: dict[str, list[Any]] = {
        **{name: [str(number) for number in numbers] for name in ("message_id", "trade_id")},
        **dict.fromkeys(("source_sequence", "_offset"), numbers),
        **dict.fromkeys(("timestamp", "ingestion_timestamp", "_ingested_at"), times),
        **{name: [Decimal("1.5")] * ROWS for name in ("price", "quantity")},
        "_partition": [0] * ROWS,
    }
    schema = SPECS[TABLE].schema
    columns = [given.get(field.name, [None if field.nullable else field.name] * ROWS) for field in schema]
    return pa.table(
        [pa.array(values, type=field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
    )
