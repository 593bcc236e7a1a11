"""Orphans: files of no snapshot, and only those."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyiceberg.table import Table

from k2beam.cli.main import main
from k2beam.config import NAMESPACE
from k2beam.errors import UnreadableFile
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.sweep import GRACE_SECONDS
from k2beam.lake.tables import open_table
from k2beam.lake.transaction import REPLACED_AT
from k2beam.maintain.orphans import delete_files, orphans
from k2beam.maintain.verify import verify
from tests.lake_helpers import QUICK, lake_config, stage
from tests.maintain_helpers import KeptLake


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


def test_metadata_of_no_snapshot_is_an_orphan_and_what_is_used_is_not(tmp_path: Path) -> None:
    lake = KeptLake(tmp_path)
    lake.commit(5)
    lake.table().manage_snapshots().create_tag(lake.snapshot_ids()[0], "close").commit()
    lake.commit(25, keep=2)
    folder = next(tmp_path.rglob("trades_v2/metadata"))
    extra = [folder / "00009-x.metadata.json", folder / "snap-1-0-x.avro", folder / "x-m0.avro", folder / "x.puffin"]
    for path in extra:
        path.write_bytes(b"x" * 7)
    found = orphans(lake.table(), timedelta(0))
    assert {str(path) for path in extra} <= {file.path for file in found}
    assert len(found) > len(extra), "the manifests of what was expired"
    assert orphans(lake.table(), timedelta(hours=1)) == []
    delete_files(lake.table(), found)
    delete_files(lake.table(), found)
    assert orphans(lake.table(), timedelta(0)) == []
    assert list(verify(lake.table())) == []
    assert lake.holds()


def test_data_files_stay_for_a_grace_after_others_replaced_them(tmp_path: Path) -> None:
    lake = KeptLake(tmp_path)
    lake.commit(2)
    stage(tmp_path, range(5, 9))
    now = datetime.now(UTC)
    with lake.table().transaction() as transaction:
        transaction.set_properties({REPLACED_AT: str(round(now.timestamp() * 1000))})
    early, late = (now + timedelta(seconds=seconds) for seconds in (GRACE_SECONDS - 1, GRACE_SECONDS + 1))
    assert orphans(lake.table(), timedelta(0), now=early) == []
    assert len(orphans(lake.table(), timedelta(0), now=late)) == 1


def test_each_manifest_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = KeptLake(tmp_path)
    lake.commit(9)
    table, opened = lake.table(), Counter[str]()
    real = type(table.io).new_input

    def new_input(self: object, location: str) -> object:
        opened[location] += 1
        return real(self, location)  # type: ignore[arg-type]

    monkeypatch.setattr(type(table.io), "new_input", new_input)
    assert orphans(table, timedelta(0)) == []
    avro = {path: times for path, times in opened.items() if path.endswith(".avro")}
    assert len(avro) == 18
    assert set(avro.values()) == {1}


def lost(table: Table, what: str) -> Path:
    """Take away a file that the table's metadata is made of."""
    snapshot = table.current_snapshot()
    assert snapshot is not None
    paths = {
        "metadata": table.metadata_location,
        "manifest list": snapshot.manifest_list,
        "manifest": snapshot.manifests(table.io)[0].manifest_path,
    }
    path = Path(paths[what].removeprefix("file://"))
    path.unlink()
    return path


@pytest.mark.parametrize("what", ["metadata", "manifest list", "manifest"])
def test_what_is_lost_is_named_and_nothing_is_called_an_orphan(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = open_catalog(lake_config(tmp_path))
    commit_files(catalog, NAMESPACE, "trades_v2", [stage(tmp_path, range(5))], run_id="r", policy=QUICK)
    table = open_table(catalog, NAMESPACE, "trades_v2")
    path = lost(table, what)
    with pytest.raises(UnreadableFile, match=rf"{path.name} is gone"):
        list(orphans(table, timedelta(0)))
    with pytest.raises(SystemExit) as ended:
        main(["maintain", "orphans", "--older-than-hours", "0", "--warehouse", str(tmp_path)])
    shown = capsys.readouterr()
    assert ended.value.code == 1
    assert f"{path.name} is gone" in shown.err
    assert "parquet" not in shown.out
