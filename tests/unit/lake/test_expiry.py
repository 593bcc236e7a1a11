"""Which snapshots are let go of, and what a table remembers of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from pyiceberg.table import Table

from k2beam.config import NAMESPACE, Retention
from k2beam.errors import UsageError
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.expiry import Expired, expirable, remembered
from k2beam.lake.lean import LeanSqlCatalog
from k2beam.lake.tables import open_table
from k2beam.maintain.expire import expire
from tests.lake_helpers import QUICK, lake_config, offsets_in, stage

WEEK = 7 * 86_400_000


def table_of(folder: Path, commits: int = 0, retention: Retention | None = None) -> Table:
    """The trades, after so many commits of three rows each."""
    catalog = open_catalog(lake_config(folder))
    have = len(offsets_in(folder)) if commits and (folder / "catalog.db").exists() else 0
    for number in range(commits):
        file = stage(folder, range(have + 3 * number, have + 3 * number + 3))
        commit_files(catalog, NAMESPACE, "trades_v2", [file], run_id="r", policy=QUICK, retention=retention)
    return open_table(catalog, NAMESPACE, "trades_v2")


def ids(table: Table) -> list[int]:
    """Of the main branch, oldest first."""
    return [entry.snapshot_id for entry in table.history()]


def gone(table: Table, retention: Retention, *, later_ms: int = 0, appended: int = 0) -> list[int]:
    now_ms = table.metadata.last_updated_ms + later_ms
    return [snapshot.snapshot_id for snapshot in expirable(table.metadata, retention, now_ms, appended=appended)]


def test_the_newest_stay(tmp_path: Path) -> None:
    table = table_of(tmp_path, 5)
    assert gone(table, Retention(2)) == ids(table)[:3]
    assert gone(table, Retention(5)) == gone(table, Retention(100)) == []
    assert gone(table, Retention(2), appended=1) == ids(table)[:4]
    assert gone(table, Retention(1), appended=1) == ids(table)[:4], "somebody may be about to tag the current one"


def test_what_is_too_old_goes_but_for_the_current_one(tmp_path: Path) -> None:
    table = table_of(tmp_path, 3)
    assert gone(table, Retention(100), later_ms=WEEK - 3_600_000) == []
    assert gone(table, Retention(100), later_ms=WEEK + 1) == ids(table)[:2]
    assert gone(table, Retention(100), later_ms=WEEK + 1, appended=1) == ids(table)[:2]


def test_tags_and_branches_stay_with_what_they_are_made_of(tmp_path: Path) -> None:
    table = table_of(tmp_path, 6)
    first, second, *_ = ids(table)
    table.manage_snapshots().create_tag(first, "close").create_branch(second, "audit").commit()
    assert gone(table, Retention(1), later_ms=2 * WEEK) == ids(table)[2:5]
    table.append(table.scan().to_arrow().slice(0, 0), branch="audit")
    table.append(table.scan().to_arrow().slice(0, 0), branch="audit")
    table.refresh()
    assert gone(table, Retention(1), later_ms=2 * WEEK) == ids(table)[1:5]


def test_what_no_branch_has_stays_as_long_as_its_age_allows(tmp_path: Path) -> None:
    table = table_of(tmp_path, 3)
    first, second, third = ids(table)
    table.manage_snapshots().rollback_to_snapshot(first).commit()
    table.refresh()
    assert gone(table, Retention(1)) == []
    assert gone(table, Retention(1), later_ms=WEEK + 1) == [second, third]


def test_an_empty_table_has_nothing_to_expire(tmp_path: Path) -> None:
    assert gone(table_of(tmp_path), Retention(1)) == []


@pytest.mark.parametrize("keep", [2, 4])
def test_a_commit_expires_as_it_appends(tmp_path: Path, keep: int) -> None:
    table = table_of(tmp_path, 6, Retention(keep))
    assert len(table.metadata.snapshots) == len(ids(table)) == keep
    assert offsets_in(tmp_path) == list(range(18))
    expired = Expired.from_properties(table.properties)
    assert expired is not None
    assert expired.snapshots == 6 - keep
    assert expired.until_ms <= table.metadata.snapshots[0].timestamp_ms
    assert expired.at_ms <= table.metadata.snapshots[-1].timestamp_ms


def test_a_tag_that_comes_before_the_commit_that_expires_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(tmp_path, 2)
    current, real = ids(table)[-1], LeanSqlCatalog.commit_table

    def overtaken(self: LeanSqlCatalog, *arguments: object) -> object:
        monkeypatch.setattr(LeanSqlCatalog, "commit_table", real)
        table.refresh().manage_snapshots().create_tag(current, "close").commit()
        return real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(LeanSqlCatalog, "commit_table", overtaken)
    found = table_of(tmp_path, 1, Retention(1))
    assert found.metadata.refs["close"].snapshot_id == current
    assert found.metadata.snapshot_by_id(current) is not None


def test_another_one_that_expires_the_same_is_a_conflict_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table_of(tmp_path, 4)
    catalog, real = open_catalog(lake_config(tmp_path)), LeanSqlCatalog.commit_table

    def overtaken(self: LeanSqlCatalog, *arguments: object) -> object:
        monkeypatch.setattr(LeanSqlCatalog, "commit_table", real)
        expire(catalog, NAMESPACE, "trades_v2", Retention(1), timedelta(hours=1), apply=True)
        return real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(LeanSqlCatalog, "commit_table", overtaken)
    table = table_of(tmp_path, 1, Retention(2))
    assert offsets_in(tmp_path) == list(range(15))
    assert len(table.metadata.snapshots) == 2


def test_a_commit_without_retention_expires_nothing(tmp_path: Path) -> None:
    table = table_of(tmp_path, 4)
    assert len(table.metadata.snapshots) == 4
    assert Expired.from_properties(table.properties) is None


def test_what_is_remembered_adds_up(tmp_path: Path) -> None:
    snapshots: Sequence = table_of(tmp_path, 3).metadata.snapshots
    once = remembered({}, snapshots[:1], 7)
    twice = remembered(once, snapshots[1:], 9)
    assert Expired.from_properties(twice) == Expired(3, snapshots[2].timestamp_ms, 9)


@pytest.mark.parametrize(("snapshots", "age"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, -5.0), (1, float("nan"))])
def test_a_table_keeps_something_for_some_time(snapshots: int, age: float) -> None:
    with pytest.raises(UsageError, match="keeps at least one snapshot"):
        Retention(snapshots, age)
