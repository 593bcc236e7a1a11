"""Metadata of another warehouse in a table's folder: told from what this one leaves behind."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from k2beam.cli.main import main
from k2beam.config import NAMESPACE
from k2beam.errors import LakeError
from k2beam.lake.catalog import open_catalog
from k2beam.lake.foreign import foreign_metadata, refuse_foreign
from k2beam.lake.tables import open_table
from k2beam.lake.transaction import Append, append
from k2beam.maintain.orphans import orphans
from k2beam.maintain.warehouse import copy_warehouse, move_warehouse, plain_catalog
from tests.lake_helpers import lake_config, stage
from tests.warehouse_helpers import committed, copied, done, everything, made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path / "w")


def table_of(folder: Path) -> Table:
    return open_table(open_catalog(lake_config(folder)), NAMESPACE, "trades_v2")


def names(paths: list[str]) -> list[str]:
    return [Path(path).name for path in paths]


def written_by_a_copy(folder: Path, commits: int) -> tuple[Catalog, list[str]]:
    """What versions did that did not look where the tables lie: a copy of the catalog, and commits by it."""
    catalog = plain_catalog(copied(folder, folder.with_name("copy")))
    theirs = []
    for number in range(commits):
        table = catalog.load_table((NAMESPACE, "trades_v2"))
        file = stage(folder, range(100 + number, 101 + number)).data_file()
        append(table, Append([file], {}, {"k2.commit-id": f"theirs {number}"}))
        theirs.append(catalog.load_table((NAMESPACE, "trades_v2")).metadata_location)
    return catalog, theirs


@pytest.mark.parametrize("own_commits", [0, 1, 30])
def test_what_a_copy_of_the_warehouse_wrote_is_foreign(folder: Path, own_commits: int) -> None:
    assert foreign_metadata(table_of(folder)) == []
    _, theirs = written_by_a_copy(folder, 3)
    for number in range(own_commits):
        committed(folder, range(10 * number + 20, 10 * number + 30))
    assert names(foreign_metadata(table_of(folder))) == sorted(names(theirs))
    assert list(Path(theirs[0]).parent.glob("*.metadata.json"))


def test_then_no_file_of_the_table_is_called_an_orphan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog, theirs = written_by_a_copy(folder, 1)
    live = {task.file.file_path for task in catalog.load_table((NAMESPACE, "trades_v2")).scan().plan_files()}
    with pytest.raises(LakeError, match=r"1 metadata file in its folder came from another warehouse"):
        list(orphans(table_of(folder), timedelta(0)))
    with pytest.raises(SystemExit) as ended:
        main(["maintain", "orphans", "--older-than-hours", "0", "--warehouse", str(folder)])
    shown = capsys.readouterr()
    assert ended.value.code == 1
    assert theirs[0] in shown.err
    assert not any(path in shown.out for path in live)


def test_the_other_warehouse_has_the_files_of_this_one_for_foreign_too(folder: Path) -> None:
    catalog, _ = written_by_a_copy(folder, 1)
    committed(folder, range(20, 30))
    theirs = catalog.load_table((NAMESPACE, "trades_v2"))
    assert names(foreign_metadata(theirs)) == names([table_of(folder).metadata_location])


def test_the_log_of_a_long_lived_table_is_its_own(folder: Path) -> None:
    for number in range(2, 30):
        committed(folder, range(10 * number, 10 * number + 10))
    assert len(list(folder.rglob("trades_v2/metadata/*.metadata.json"))) == 21
    assert foreign_metadata(table_of(folder)) == []


def test_all_metadata_that_was_never_deleted_is_its_own(folder: Path) -> None:
    table = table_of(folder)
    with table.transaction() as change:
        change.set_properties(
            {"write.metadata.delete-after-commit.enabled": "false", "write.metadata.previous-versions-max": "3"}
        )
    for number in range(2, 14):
        committed(folder, range(10 * number, 10 * number + 10))
    table = expired(folder)
    assert len(table.snapshots()) == 1
    assert len(table.metadata.metadata_log) == 3
    assert len(list(folder.rglob("trades_v2/metadata/*.metadata.json"))) > 20
    assert foreign_metadata(table) == []


def test_a_file_that_a_crash_left_when_it_was_to_be_deleted_is_its_own(folder: Path) -> None:
    left = Path(table_of(folder).metadata_location)
    kept = left.read_bytes()
    for number in range(2, 30):
        committed(folder, range(10 * number, 10 * number + 10))
    assert not left.exists()
    left.write_bytes(kept)
    assert foreign_metadata(table_of(folder)) == []


def test_a_try_that_lost_a_race_is_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(folder)
    write = table.catalog._write_metadata

    def overtaken(*args: object, **options: object) -> None:
        write(*args, **options)
        committed(folder, range(20, 30))

    change = Append([stage(folder, range(30, 40)).data_file()], {}, {"k2.commit-id": "second"})
    monkeypatch.setattr(table.catalog, "_write_metadata", overtaken)
    with pytest.raises(CommitFailedException):
        append(table, change)
    assert len(strays(table_of(folder))) == 1
    assert foreign_metadata(table_of(folder)) == []


def strays(table: Table) -> set[Path]:
    """The metadata files that are not in the table's own log."""
    current = Path(table.metadata_location)
    return set(current.parent.glob("*.metadata.json")) - {
        current,
        *(Path(entry.metadata_file) for entry in table.metadata.metadata_log),
    }


def test_what_was_left_is_its_own_after_its_snapshots_have_expired_too(folder: Path) -> None:
    left = Path(table_of(folder).metadata_location)
    kept = left.read_bytes()
    for number in range(2, 30):
        committed(folder, range(10 * number, 10 * number + 10))
    table = expired(folder)
    assert len(table.snapshots()) == 1
    left.write_bytes(kept)
    assert strays(table) == {left}
    assert foreign_metadata(table) == []


def test_a_file_that_is_not_whole_was_never_a_catalog_s(folder: Path) -> None:
    current = Path(table_of(folder).metadata_location)
    for name, content in (("torn", current.read_bytes()[:99]), ("empty", b""), ("list", b"[]")):
        current.with_name(f"00009-{name}.metadata.json").write_bytes(content)
    assert foreign_metadata(table_of(folder)) == []


def test_a_table_of_the_same_name_and_another_id_is_foreign(folder: Path) -> None:
    current = Path(table_of(folder).metadata_location)
    other = json.loads(current.read_bytes()) | {"table-uuid": "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "snapshots": []}
    current.with_name("00009-other.metadata.json").write_text(json.dumps(other))
    with pytest.raises(LakeError, match=r"\(.*/00009-other.metadata.json\)"):
        refuse_foreign(table_of(folder))


def expired(folder: Path) -> Table:
    """The table, with no snapshot but the current one."""
    for snapshot in table_of(folder).snapshots()[:-1]:
        table_of(folder).maintenance.expire_snapshots().by_id(snapshot.snapshot_id).commit()
    return table_of(folder)


def test_what_a_move_or_a_copy_rewrote_is_not_foreign_also_when_its_snapshots_are_expired(
    folder: Path, tmp_path: Path
) -> None:
    done(copy_warehouse, folder, copied(folder, tmp_path / "copy"))
    done(move_warehouse, folder, tmp_path / "moved")
    for name in ("copy", "moved"):
        committed(tmp_path / name, range(20, 30))
        assert foreign_metadata(expired(tmp_path / name)) == []


def test_a_warehouse_of_whose_files_another_has_some_is_not_moved(folder: Path, tmp_path: Path) -> None:
    written_by_a_copy(folder, 1)
    before = everything(folder)
    with pytest.raises(LakeError, match="came from another warehouse"):
        move_warehouse(folder, tmp_path / "moved", lambda _: None)
    assert everything(folder) == before


def test_what_came_along_of_another_warehouse_by_mv_stays_foreign(folder: Path, tmp_path: Path) -> None:
    _, theirs = written_by_a_copy(folder, 1)
    folder.rename(tmp_path / "moved")
    done(move_warehouse, folder, tmp_path / "moved")
    assert names(foreign_metadata(table_of(tmp_path / "moved"))) == names(theirs)


def test_a_copy_that_was_completed_leaves_no_trace_in_the_old_folder(folder: Path, tmp_path: Path) -> None:
    done(copy_warehouse, folder, tmp_path / "copy")
    committed(tmp_path / "copy", range(20, 40))
    assert foreign_metadata(table_of(folder)) == []
    assert list(orphans(table_of(folder), timedelta(0))) == []
    shutil.rmtree(folder)
    assert list(orphans(table_of(tmp_path / "copy"), timedelta(0))) == []
