"""DuckDB's own reader of Iceberg, an extension, reads the tables by the path of their metadata."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from k2beam.query.lake import Lake
from tests.integration.environments import python_with
from tests.replay_helpers import ingest, simulated

pytestmark = [pytest.mark.integration, pytest.mark.full]

VERSION = "1.5.5"
PACKAGES = ("duckdb", "duckdb-extensions", "duckdb-extension-avro", "duckdb-extension-iceberg")
"""Where DuckDB's site can't be reached its extensions come from PyPI, for its versions before 2."""

QUERY = """
    SELECT symbol, count(*)::BIGINT, sum(quantity)::VARCHAR, epoch_us(min(timestamp))::BIGINT
    FROM iceberg_scan('{path}') GROUP BY symbol ORDER BY symbol
"""
PROGRAM = """
import json, sys
import duckdb
from duckdb_extensions import import_extension

session = duckdb.connect()
for name in ("avro", "iceberg"):
    import_extension(name)
    session.execute(f"LOAD {name}")
print(json.dumps(session.execute(sys.argv[1]).fetchall()))
"""


def test_the_extension_reads_the_tables(tmp_path: Path) -> None:
    simulated(tmp_path / "in", 2_000, "gaps=4,duplicates=20", kinds=("trades",))
    ingest([tmp_path / "in"], tmp_path / "wh")
    lake = Lake(str(tmp_path / "wh"))
    python = python_with(*(f"{name}=={VERSION}" for name in PACKAGES))
    done = subprocess.run(
        [python, "-c", PROGRAM, QUERY.format(path=lake.path("trades_v2"))],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    _, batches = lake.sql(
        "SELECT symbol, count(*) AS rows, sum(quantity)::VARCHAR AS volume, epoch_us(min(timestamp)) AS first "
        "FROM trades_v2 GROUP BY symbol ORDER BY symbol"
    )
    wanted = [list(row.values()) for batch in batches for row in batch.to_pylist()]
    assert json.loads(done.stdout) == wanted
    assert len(wanted) == 4
