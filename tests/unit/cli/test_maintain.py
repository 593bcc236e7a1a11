"""The commands of maintenance: nothing is done unless asked for, and what was done is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from k2beam.cli.main import main
from k2beam.config import NAMESPACE
from k2beam.coverage import Coverage
from k2beam.lake.commit import read_coverage
from tests.lake_helpers import stage
from tests.maintain_helpers import TABLE, KeptLake


@pytest.fixture
def lake(tmp_path: Path) -> KeptLake:
    lake = KeptLake(tmp_path)
    lake.commit(6)
    stage(tmp_path, range(50, 60))
    return lake


class Ran:
    """A command that ended: its exit code, rows, and what it said."""

    def __init__(self, lake: KeptLake, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["maintain", *arguments, "--warehouse", str(lake.folder), "--output", "json"])
        shown = capsys.readouterr()
        self.code, self.said = ended.value.code, shown.err
        self.rows: list[dict[str, Any]] = json.loads(shown.out) if shown.out else []


NOW = ("--older-than-hours", "0")


def test_expire(lake: KeptLake, capsys: pytest.CaptureFixture[str]) -> None:
    would = Ran(lake, capsys, "expire", "--keep-snapshots", "2", *NOW)
    assert (would.code, would.rows[0]["table"], would.rows[0]["snapshots"], would.rows[0]["kept"]) == (0, TABLE, 4, 2)
    assert "Nothing was changed. With --apply: expired 4 snapshots and deleted 4 files" in would.said
    assert len(lake.snapshot_ids()) == 6
    done = Ran(lake, capsys, "expire", "--keep-snapshots", "2", "--apply", *NOW)
    assert done.rows == would.rows
    assert "Expired 4 snapshots and deleted 4 files" in done.said
    assert len(lake.snapshot_ids()) == 2
    assert Ran(lake, capsys, "expire", "--keep-snapshots", "0", "--apply").rows == []


def test_orphans(lake: KeptLake, capsys: pytest.CaptureFixture[str]) -> None:
    assert Ran(lake, capsys, "orphans").rows == []
    listed = Ran(lake, capsys, "orphans", *NOW)
    (row,) = listed.rows
    assert Path(row["path"]).exists()
    assert "With --delete: deleted 1 files" in listed.said
    assert Ran(lake, capsys, "orphans", "--delete", *NOW).rows == [row]
    assert not Path(row["path"]).exists()
    assert lake.holds()


def test_coverage(lake: KeptLake, capsys: pytest.CaptureFixture[str]) -> None:
    assert Ran(lake, capsys, "coverage").code == 0
    claimed = Coverage()
    claimed.add_many("archive:a", 0, range(8))
    with lake.table().transaction() as transaction:
        transaction.set_properties(claimed.to_properties())
    differs = Ran(lake, capsys, "coverage")
    assert (differs.code, [row["without_rows"] for row in differs.rows]) == (1, [2])
    assert Ran(lake, capsys, "coverage", "--rebuild").rows == differs.rows
    rebuilt = Ran(lake, capsys, "coverage", "--rebuild", "--apply")
    assert (rebuilt.code, rebuilt.rows) == (0, differs.rows)
    assert "Rebuilt the coverage of 1 source partitions." in rebuilt.said
    assert list(read_coverage(lake.catalog, NAMESPACE)["archive:a", 0]) == list(range(6))
    refused = Ran(lake, capsys, "coverage", "--apply")
    assert (refused.code, "--apply goes with --rebuild" in refused.said) == (2, True)


def test_verify(lake: KeptLake, capsys: pytest.CaptureFixture[str]) -> None:
    well = Ran(lake, capsys, "verify")
    assert (well.code, well.rows, "Every file is there" in well.said) == (0, [], True)
    path = Path(next(iter(lake.table().scan().plan_files())).file.file_path.removeprefix("file://"))
    path.unlink()
    lost = Ran(lake, capsys, "verify")
    assert (lost.code, [(row["table"], row["problem"]) for row in lost.rows]) == (1, [(TABLE, "is gone")])
    assert path.name in lost.said


def test_run_does_it_all(lake: KeptLake, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("run", "--keep-snapshots", "2", *NOW)
    would = Ran(lake, capsys, *options)
    assert (would.code, len(lake.snapshot_ids())) == (0, 6)
    done = Ran(lake, capsys, *options, "--apply")
    assert [(row["step"], row["table"], row["files"]) for row in done.rows] == [
        ("expire", TABLE, 4),
        ("orphans", TABLE, 1),
        ("compact", TABLE, 6),
        ("verify", TABLE, 0),
    ]
    assert (done.code, len(lake.snapshot_ids())) == (0, 3)
    assert len(list(lake.table().scan().plan_files())) == 1
    next(path for path in lake.folder.rglob("*.parquet")).unlink()
    assert Ran(lake, capsys, *options).code == 1
    assert lake.rows == 6


@pytest.mark.parametrize("command", ["expire", "orphans", "coverage", "verify", "run"])
def test_a_table_that_there_is_not(lake: KeptLake, capsys: pytest.CaptureFixture[str], command: str) -> None:
    refused = Ran(lake, capsys, command, "--table", "trades")
    assert (refused.code, refused.rows) == (2, [])
    assert f"there is no table trades; the tables are {TABLE}" in refused.said


def test_an_age_that_is_none(lake: KeptLake, capsys: pytest.CaptureFixture[str]) -> None:
    refused = Ran(lake, capsys, "expire", "--keep-age", "soon")
    assert (refused.code, "--keep-age takes a duration" in refused.said) == (2, True)
