"""Expiry by hand: what goes, what stays, and what a crash or another writer in between makes of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException

from k2beam.config import NAMESPACE, Retention
from k2beam.errors import UnreadableFile
from k2beam.lake import lean
from k2beam.lake.expiry import Expired
from k2beam.maintain import expire as module
from k2beam.maintain.expire import Expiry, expire
from k2beam.maintain.orphans import orphans
from k2beam.maintain.verify import verify
from tests.lake_helpers import QUICK
from tests.maintain_helpers import TABLE, KeptLake

AT_ONCE = timedelta(0)


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeptLake:
    monkeypatch.setattr(lean, "MERGED_AT_ONCE", 3)
    return KeptLake(tmp_path)


def run(lake: KeptLake, keep: int = 2, *, apply: bool = True, older_than: timedelta = AT_ONCE) -> Expiry:
    return expire(lake.catalog, NAMESPACE, TABLE, Retention(keep), older_than, apply=apply, policy=QUICK)


def whole(lake: KeptLake) -> bool:
    """All rows are there, and every file that a snapshot has."""
    return lake.holds() and not list(verify(lake.table()))


def test_the_old_snapshots_go_with_the_files_that_only_they_had(lake: KeptLake) -> None:
    lake.commit(10)
    before, newest = lake.files(), lake.snapshot_ids()[-2:]
    would = run(lake, apply=False)
    assert (would.snapshots, would.kept) == (8, 2)
    assert lake.files() == before
    assert len(lake.snapshot_ids()) == 10
    done = run(lake)
    assert done == would
    assert lake.snapshot_ids() == newest
    deleted = before - lake.files()
    assert len(deleted) == done.files > 8
    assert all(name.endswith(".avro") for name in deleted), "all rows are in the newest snapshot"
    assert whole(lake)
    assert [file.path for file in orphans(lake.table(), AT_ONCE)] == []
    expired = Expired.from_properties(lake.table().properties)
    assert expired is not None
    assert expired.snapshots == 8


def test_data_files_that_were_deleted_from_the_table_go_too(lake: KeptLake) -> None:
    lake.commit(3, rows=2)
    lake.table().delete("_offset < 2")
    size = sum(path.stat().st_size for path in lake.folder.rglob("*.parquet"))
    done = run(lake, keep=1)
    left = sum(path.stat().st_size for path in lake.folder.rglob("*.parquet"))
    assert len(lake.files("*.parquet")) == 2
    assert done.bytes > size - left > 0
    assert lake.holds(range(2, 6))
    assert not list(verify(lake.table()))


def test_tags_and_branches_stay_readable(lake: KeptLake) -> None:
    lake.commit(4)
    first, second, *_ = lake.snapshot_ids()
    lake.table().manage_snapshots().create_tag(first, "close").create_branch(second, "audit").commit()
    lake.table().delete("_offset >= 0")
    run(lake, keep=1)
    for snapshot, offsets in ((first, [0]), (second, [0, 1])):
        rows = lake.table().scan(snapshot_id=snapshot, selected_fields=("_offset",)).to_arrow()
        assert sorted(rows["_offset"].to_pylist()) == offsets


def test_young_files_stay_and_are_orphans_later(lake: KeptLake) -> None:
    lake.commit(6)
    before = lake.files("*.avro")
    done = run(lake, older_than=timedelta(hours=24))
    assert (done.snapshots, done.files, done.bytes) == (4, 0, 0)
    assert lake.files("*.avro") == before
    later = orphans(lake.table(), AT_ONCE)
    assert len(later) > 4
    assert whole(lake)


def test_a_second_time_there_is_nothing_to_do(lake: KeptLake) -> None:
    lake.commit(5)
    run(lake)
    location = lake.table().metadata_location
    assert run(lake) == Expiry(TABLE, 0, 2, 0, 0)
    assert lake.table().metadata_location == location


@pytest.mark.parametrize("error", [CommitFailedException("x"), CommitStateUnknownException("x")])
@pytest.mark.parametrize("landed", [True, False])
def test_a_rival_and_a_lost_answer(
    lake: KeptLake, monkeypatch: pytest.MonkeyPatch, error: Exception, landed: bool
) -> None:
    lake.commit(6)
    real, failing = SqlCatalog.commit_table, [True]

    def commit_table(self: SqlCatalog, *args: object) -> object:
        if failing and failing.pop():
            if landed:
                real(self, *args)  # type: ignore[arg-type]
            lake.commit()
            raise error
        return real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(SqlCatalog, "commit_table", commit_table)
    done = run(lake)
    assert (done.snapshots, len(lake.snapshot_ids())) == (5, 2)
    assert whole(lake)
    expired = Expired.from_properties(lake.table().properties)
    assert expired is not None
    assert expired.snapshots == 5
    assert orphans(lake.table(), AT_ONCE) == []


@pytest.mark.parametrize("step", ["_remove", "_freed", "delete_files"])
@pytest.mark.parametrize("after", [True, False])
def test_killed_at_any_step_nothing_is_lost_and_what_is_left_is_found(
    lake: KeptLake, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    lake.commit(8)
    real = getattr(module, step)

    def killed(*args: object, **kwargs: object) -> None:
        if after:
            real(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, step, killed)
        with pytest.raises(KeyboardInterrupt):
            run(lake)
    assert whole(lake)
    run(lake)
    assert len(lake.snapshot_ids()) == 2
    for file in orphans(lake.table(), AT_ONCE):
        Path(file.path).unlink()
    assert whole(lake)


def test_lost_metadata_stops_it_before_anything_is_deleted(lake: KeptLake) -> None:
    lake.commit(6)
    lost = Path(lake.table().metadata.snapshots[-1].manifest_list.removeprefix("file://"))
    lost.unlink()
    before = lake.files("*.avro")
    with pytest.raises(UnreadableFile, match=f"{lost.name} is gone"):
        run(lake)
    assert lake.files("*.avro") == before
