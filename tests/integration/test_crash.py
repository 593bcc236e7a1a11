"""kill -9 at the worst moments, and a run after it: every offset is there once."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from pyiceberg.table import Table

from k2beam.config import NAMESPACE
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import SPECS, find_table
from k2beam.maintain.orphans import orphans
from tests.lake_helpers import lake_config
from tests.replay_helpers import assert_truth, ingest, simulated

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("point", "passes"),
    [
        ("after_write", 0),
        ("after_write", 3),
        ("before_commit", 0),
        ("before_commit", 2),
        ("after_commit", 0),
        ("after_commit", 1),
        ("after_commit", 3),
    ],
)
def test_killed_and_run_again(tmp_path: Path, repository: Path, point: str, passes: int) -> None:
    truth = simulated(tmp_path / "in")
    warehouse = tmp_path / "wh"
    for attempt in range(2):
        crashed = subprocess.run(
            [sys.executable, "-m", "tests.integration.crashing", point, str(passes), tmp_path / "in", warehouse],
            cwd=repository,
            check=False,
            capture_output=True,
            text=True,
        )
        # What the first run leaves to do may be done before the point comes again.
        if attempt and crashed.returncode == 1:
            assert "never reached" in crashed.stderr, crashed.stderr
            continue
        assert crashed.returncode == -signal.SIGKILL, crashed.stderr
        if not attempt and point != "after_write":
            assert snapshots(warehouse) == passes + (point == "after_commit"), "killed on the other side of the commit"
    ingest([tmp_path / "in"], warehouse)
    assert_truth(warehouse, truth, tmp_path / "in")
    assert orphan_files(warehouse) or point == "after_commit", "a file without a commit is listed"


def tables_of(warehouse: Path) -> list[Table]:
    catalog = open_catalog(lake_config(warehouse))
    return [table for name in SPECS if (table := find_table(catalog, NAMESPACE, name)) is not None]


def snapshots(warehouse: Path) -> int:
    return sum(len(table.snapshots()) for table in tables_of(warehouse))


def orphan_files(warehouse: Path) -> list[str]:
    return [orphan.path for table in tables_of(warehouse) for orphan in orphans(table, timedelta(0))]


def test_two_jobs_over_the_same_files_at_once(tmp_path: Path, repository: Path) -> None:
    truth = simulated(tmp_path / "in")
    command = [sys.executable, "-m", "k2beam.cli.main", "ingest", "archive", tmp_path / "in"]
    jobs = [subprocess.Popen([*command, "--warehouse", tmp_path / "wh"], cwd=repository) for _ in range(2)]
    assert [job.wait() for job in jobs] == [0, 0]
    assert_truth(tmp_path / "wh", truth, tmp_path / "in")
