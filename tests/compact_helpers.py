"""Lakes of small files, and their compaction."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.table import Table

from k2beam.config import NAMESPACE, RetryPolicy
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.scan import plan_files
from k2beam.lake.tables import SPECS, open_table
from k2beam.maintain.compact import Compaction, compact_group, plan_compaction
from k2beam.maintain.orphans import orphans
from tests.lake_helpers import QUICK, lake_config, stage

TARGET = 64 << 20
NEVER_BUSY = 1 << 62
NAME = "trades_v2"
SYMBOLS = ("ETH", "BTC", "SOL")


def opened(folder: Path, name: str = NAME) -> Table:
    return open_table(open_catalog(lake_config(folder)), NAMESPACE, name)


def commit(folder: Path, offsets: range, **options: Any) -> None:
    catalog = open_catalog(lake_config(folder))
    commit_files(catalog, NAMESPACE, NAME, [stage(folder, offsets, **options)], run_id="r", policy=QUICK)


def fill(folder: Path, files: int = 6, rows: int = 10) -> None:
    """Small files of one partition, each of one symbol and of a snapshot of its own."""
    for number in range(files):
        commit(folder, range(number * rows, (number + 1) * rows), symbol=SYMBOLS[number % len(SYMBOLS)])


def compacted(folder: Path, target: int = TARGET, policy: RetryPolicy = QUICK, name: str = NAME) -> list[Compaction]:
    """Plan and do it."""
    catalog = open_catalog(lake_config(folder))
    return [
        compact_group(catalog, NAMESPACE, planned, group, target, policy)
        for planned, group in plan_compaction(catalog, NAMESPACE, name, target, NEVER_BUSY)
    ]


def paths(table: Table) -> list[str]:
    return [task.file.file_path for task in plan_files(table)]


def rows_of(table: Table) -> pa.Table:
    return table.scan().to_arrow().cast(SPECS[table.name()[-1]].schema)


def orphaned(folder: Path) -> int:
    """How many data files no snapshot has, once the grace for queries is over."""
    found = orphans(opened(folder), timedelta(0), now=datetime.now(UTC) + timedelta(hours=2))
    return sum(file.path.endswith(".parquet") for file in found)
