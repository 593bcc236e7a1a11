"""Spark reads the tables, as the page on other engines says; Spark itself is fetched into the cache (400 MB)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from k2beam.query.lake import Lake
from k2beam.stack.jars import ensure_jars
from k2beam.stack.java import ensure_java
from tests.integration.environments import python_with
from tests.replay_helpers import ingest, simulated

pytestmark = [pytest.mark.integration, pytest.mark.full]

PYSPARK = "pyspark==4.0.1"
LOCK = Path(__file__).with_name("spark.lock")
PROGRAM = """
import json, sys
from pyspark.sql import SparkSession

jars, warehouse = sys.argv[1:]
catalog = "spark.sql.catalog.k2beam"
spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.jars", jars)
    .config("spark.ui.enabled", "false")
    .config("spark.sql.session.timeZone", "UTC")
    .config(catalog, "org.apache.iceberg.spark.SparkCatalog")
    .config(f"{catalog}.type", "jdbc")
    .config(f"{catalog}.uri", f"jdbc:sqlite:{warehouse}/catalog.db")
    .config(f"{catalog}.jdbc.schema-version", "V1")
    .config(f"{catalog}.warehouse", f"file://{warehouse}")
    .getOrCreate()
)
rows = spark.sql(
    "SELECT symbol, count(*) AS rows, CAST(sum(quantity) AS STRING) AS volume, "
    "CAST(unix_micros(min(timestamp)) AS STRING) AS first FROM k2beam.market_data.trades_v2 GROUP BY symbol"
).collect()
print(json.dumps(sorted(list(row) for row in rows)))
"""


def test_spark_reads_the_embedded_catalog(tmp_path: Path) -> None:
    simulated(tmp_path / "in", 2_000, "gaps=4,duplicates=20", kinds=("trades",))
    ingest([tmp_path / "in"], tmp_path / "wh")
    jars = ",".join(map(str, ensure_jars("spark", LOCK)))
    java = ensure_java(17, 21)
    done = subprocess.run(
        [python_with(PYSPARK), "-c", PROGRAM, jars, str(tmp_path / "wh")],
        env={**os.environ, "JAVA_HOME": str(java.parent.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    schema, batches = Lake(str(tmp_path / "wh")).sql(
        "SELECT symbol, count(*) AS rows, sum(quantity)::VARCHAR AS volume, "
        "epoch_us(min(timestamp))::VARCHAR AS first FROM trades_v2 GROUP BY symbol"
    )
    assert schema.names == ["symbol", "rows", "volume", "first"]
    wanted = sorted(list(row.values()) for batch in batches for row in batch.to_pylist())
    assert json.loads(done.stdout.splitlines()[-1]) == wanted
