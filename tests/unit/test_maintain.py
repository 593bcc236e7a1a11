"""Orphans: files of no snapshot, and only those."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from k2beam.lake.catalog import NAMESPACE, open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.maintain import orphans
from k2beam.lake.tables import open_table
from tests.lake_helpers import QUICK, lake_config, stage


def test_only_files_of_no_snapshot_and_old_enough(tmp_path: Path) -> None:
    catalog = open_catalog(lake_config(tmp_path))
    live, orphan = stage(tmp_path, range(5)), stage(tmp_path, range(5, 9))
    commit_files(catalog, NAMESPACE, "trades_v2", [live], run_id="r", policy=QUICK)
    table = open_table(catalog, NAMESPACE, "trades_v2")
    found = list(orphans(table, timedelta(0)))
    assert [(item.table, item.path, item.bytes) for item in found] == [("trades_v2", orphan.path, orphan.nbytes)]
    assert list(orphans(table, timedelta(hours=1))) == []
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert len(list(orphans(table, timedelta(hours=1), now=tomorrow))) == 1


def test_a_file_of_an_old_snapshot_is_no_orphan(tmp_path: Path) -> None:
    catalog = open_catalog(lake_config(tmp_path))
    commit_files(catalog, NAMESPACE, "trades_v2", [stage(tmp_path, range(5))], run_id="r", policy=QUICK)
    table = open_table(catalog, NAMESPACE, "trades_v2")
    table.delete("_offset >= 0")
    assert list(orphans(table, timedelta(0))) == []
