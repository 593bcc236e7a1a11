"""The sweep deletes what expired snapshots leave in the metadata, a grace later, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2beam.lake import lean
from k2beam.lake.sweep import Sweeper
from tests.lake_helpers import offsets_in
from tests.maintain_helpers import TABLE, KeptLake

GRACE = 100.0


class Lake(KeptLake):
    """A table that is committed to and swept, with a clock of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.now = 0.0
        self.sweeper = Sweeper(GRACE, lambda: self.now)

    def sweep(self, after: float = 0.0) -> int:
        self.now += after
        return self.sweeper.sweep(TABLE, self.table)

    def avro(self) -> set[str]:
        return self.files("*.avro")

    def needed(self) -> set[str]:
        table = self.table()
        lists = [Path(snapshot.manifest_list).name for snapshot in table.metadata.snapshots]
        manifests = [m.manifest_path for s in table.metadata.snapshots for m in s.manifests(table.io)]
        return {*lists, *(Path(path).name for path in manifests)}


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setattr(lean, "MERGED_AT_ONCE", 3)
    return Lake(tmp_path)


def test_what_no_snapshot_has_goes_a_grace_after_it_was_first_seen(lake: Lake) -> None:
    lake.commit(10, keep=2)
    everything = lake.avro()
    assert everything > lake.needed()
    assert lake.sweep() == 0
    assert lake.sweep(GRACE - 1) == 0, "not due yet"
    assert lake.avro() == everything
    assert lake.sweep(1) == len(everything) - len(lake.needed())
    assert lake.avro() == lake.needed()
    assert offsets_in(lake.folder) == list(range(10))


def test_what_expired_in_between_stays_for_a_grace_of_its_own(lake: Lake) -> None:
    lake.commit(4, keep=2)
    lake.sweep()
    before = lake.avro() - lake.needed()
    lake.commit(4, keep=2)
    after = lake.avro() - lake.needed() - before
    assert after
    assert lake.sweep(GRACE) == len(before)
    assert lake.avro() == lake.needed() | after
    assert lake.sweep(GRACE) == len(after)


def test_tags_keep_their_files(lake: Lake) -> None:
    lake.commit(2, keep=2)
    table = lake.table()
    first = table.history()[0].snapshot_id
    table.manage_snapshots().create_tag(first, "close").commit()
    lake.commit(8, keep=2)
    lake.sweep()
    lake.sweep(GRACE)
    table = lake.table()
    assert table.scan(snapshot_id=first, selected_fields=("_offset",)).to_arrow()["_offset"].to_pylist() == [0]


def test_only_manifests_and_their_lists_are_swept(lake: Lake) -> None:
    lake.commit(5, keep=2)
    folder = next(lake.folder.rglob("trades_v2/metadata"))
    others = [folder / "00000-other.metadata.json", folder / "statistics.puffin", folder.parent / "data" / "x.parquet"]
    for path in others:
        path.touch()
    lake.sweep()
    assert lake.sweep(GRACE) > 0
    assert all(path.exists() for path in others)


def test_two_sweepers_do_no_harm(lake: Lake) -> None:
    lake.commit(6, keep=2)
    rival = Sweeper(GRACE, lambda: lake.now)
    lake.sweep()
    rival.sweep(TABLE, lake.table)
    unused = lake.avro() - lake.needed()
    assert lake.sweep(GRACE) == len(unused)
    assert rival.sweep(TABLE, lake.table) == 0
    assert lake.avro() == lake.needed()


def test_what_fails_is_logged_and_nothing_is_deleted(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    lake.commit(6, keep=2)
    lake.sweep()
    table = lake.table()
    snapshot = table.current_snapshot()
    assert snapshot is not None
    lost = Path(snapshot.manifest_list.removeprefix("file://"))
    kept = lost.read_bytes()
    lost.unlink()
    before = lake.avro()
    assert lake.sweep(GRACE) == 0
    assert lake.avro() == before
    assert f"{lost.name} is gone" in caplog.text
    lost.write_bytes(kept)
    assert lake.sweep(GRACE) > 0
