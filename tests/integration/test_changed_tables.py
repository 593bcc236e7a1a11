"""Runs into tables that others have changed or made, from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.table import Table
from pyiceberg.transforms import BucketTransform
from pyiceberg.types import StringType

from k2beam.cli.main import main
from k2beam.config import NAMESPACE
from k2beam.lake.catalog import open_catalog
from tests.lake_helpers import lake_config
from tests.replay_helpers import simulated

pytestmark = pytest.mark.integration

READING = (
    ["query", "trades", "--limit", "1"],
    ["query", "stats"],
    ["audit", "--no-mend"],
    ["maintain", "compact"],
    ["maintain", "expire"],
)


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    simulated(tmp_path / "a", rows=600, seed=1)
    simulated(tmp_path / "b", rows=600, seed=2)
    assert run("ingest", "archive", str(tmp_path / "a"), "--warehouse", str(tmp_path / "w")) == 0
    return tmp_path / "w"


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def of_trades(warehouse: Path) -> Table:
    return open_catalog(lake_config(warehouse)).load_table((NAMESPACE, "trades_v2"))


def rows(capsys: pytest.CaptureFixture[str], warehouse: Path, *options: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert run("query", "trades", "--with-duplicates", "--warehouse", str(warehouse), "--output", "json", *options) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_each_symbol_is_found_after_others_partitioned_by_it(
    warehouse: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with of_trades(warehouse).update_spec() as update:
        update.add_field("symbol", BucketTransform(4), "symbol_bucket")
    assert run("ingest", "archive", str(warehouse.parent / "b"), "--warehouse", str(warehouse)) == 0
    everything = rows(capsys, warehouse)
    for symbol in {row["symbol"] for row in everything}:
        assert len(rows(capsys, warehouse, "--symbol", symbol)) == sum(row["symbol"] == symbol for row in everything)
    assert run("audit", "--warehouse", str(warehouse)) == 0


def test_a_column_that_others_added_stays_null(warehouse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with of_trades(warehouse).update_schema() as update:
        update.add_column("desk_note", StringType())
    before = len(rows(capsys, warehouse))
    assert run("ingest", "archive", str(warehouse.parent / "b"), "--warehouse", str(warehouse)) == 0
    assert len(rows(capsys, warehouse)) > before
    assert set(of_trades(warehouse).scan().to_arrow().column("desk_note").to_pylist()) == {None}
    assert run("audit", "--warehouse", str(warehouse)) == 0


@pytest.mark.parametrize("change", ["renamed", "dropped"])
def test_a_column_that_is_gone_is_refused_before_anything_is_read(
    warehouse: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    with of_trades(warehouse).update_schema() as update:
        if change == "renamed":
            update.rename_column("trade_id", "id")
        else:
            update.delete_column("trade_id")
    version = of_trades(warehouse).metadata_location
    for command in (["ingest", "archive", str(warehouse.parent / "b")], *READING):
        capsys.readouterr()
        assert run(*command, "--warehouse", str(warehouse)) == 1
        told = capsys.readouterr().err
        assert "trades_v2 has no column trade_id (it was " in told
        assert "Traceback" not in told
    assert of_trades(warehouse).metadata_location == version


def test_a_table_of_others_is_taken_over_when_asked(warehouse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with of_trades(warehouse).transaction() as transaction:
        transaction.remove_properties(*of_trades(warehouse).properties)
    ingest = ["ingest", "archive", str(warehouse.parent / "b"), "--warehouse", str(warehouse)]
    assert run(*ingest) == 1
    assert "`k2beam ingest --adopt` takes over a table that another program has made" in capsys.readouterr().err
    assert run(*ingest, "--adopt") == 0
    assert run(*ingest) == 0
    assert "Nothing was added" in capsys.readouterr().err
    sources = [part for name in ("a", "b") for part in ("--source", str(warehouse.parent / name))]
    assert run("audit", *sources, "--warehouse", str(warehouse)) == 0
