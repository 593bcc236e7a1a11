"""The log of an ingest: a line for each snapshot, and none for a row."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k2beam.config import NAMESPACE
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import SEQUENCE_GAPS, SPECS, find_table
from k2beam.logs import configure_logging
from tests.lake_helpers import lake_config
from tests.replay_helpers import ingest, simulated

pytestmark = pytest.mark.integration

Snapshots = set[tuple[str, int]]
"""Table and id."""


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    yield
    configure_logging("INFO")


def snapshots(warehouse: Path) -> Snapshots:
    catalog = open_catalog(lake_config(warehouse))
    tables = {name: find_table(catalog, NAMESPACE, name) for name in SPECS}
    return {(name, one.snapshot_id) for name, table in tables.items() if table is not None for one in table.snapshots()}


def logged(archives: Path, warehouse: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What an ingest logs at level INFO."""
    configure_logging("INFO", json=True)
    capsys.readouterr()
    ingest([archives], warehouse)
    return [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]


def of_commits(lines: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(line["table"], line["snapshot_after"]) for line in lines if line["event"] == "commit"]


def test_lines_of_commits_are_the_new_snapshots_however_many_rows_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoken = []
    for rows in (2_000, 20_000):
        archives, warehouse = tmp_path / f"in-{rows}", tmp_path / f"wh-{rows}"
        simulated(archives, rows=rows, files=2)
        lines = logged(archives, warehouse, capsys)
        assert sorted(of_commits(lines)) == sorted(snapshots(warehouse))
        assert {table for table, _ in of_commits(lines)} >= {"trades_v2", "quotes_v2", "dead_letters", SEQUENCE_GAPS}
        spoken.append(Counter(str(line["event"]) for line in lines))
    assert spoken[0] == spoken[1]


def test_what_is_mended_after_the_run_is_in_the_log_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the ledger gone, a second run of the same data commits nothing but the ledger."""
    archives, warehouse = tmp_path / "in", tmp_path / "wh"
    simulated(archives, rows=2_000, files=1)
    ingest([archives], warehouse)
    open_catalog(lake_config(warehouse)).drop_table((NAMESPACE, SEQUENCE_GAPS))
    before = snapshots(warehouse)
    commits = of_commits(logged(archives, warehouse, capsys))
    assert [table for table, _ in commits] == [SEQUENCE_GAPS]
    assert set(commits) == snapshots(warehouse) - before
