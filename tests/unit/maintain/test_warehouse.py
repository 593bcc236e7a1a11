"""Warehouses that are moved, copied and backed up: whole, also when killed at any moment, and the old one unharmed."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyiceberg.table import Table

from k2beam.audit.audit import audit
from k2beam.audit.compare import compare
from k2beam.config import NAMESPACE
from k2beam.errors import K2BeamError, LakeError, UnreadableFile, UsageError
from k2beam.lake.catalog import open_catalog
from k2beam.lake.place import UNFINISHED
from k2beam.lake.tables import open_table
from k2beam.maintain import transfer, warehouse
from k2beam.maintain.catalog_content import CatalogContent
from k2beam.maintain.warehouse import (
    as_it_was,
    back_up,
    copy_warehouse,
    file_problems,
    finish,
    move_warehouse,
    plain_catalog,
    restore_warehouse,
)
from tests.lake_helpers import lake_config, offsets_in, stage
from tests.warehouse_helpers import (
    COPIES,
    ODD_NAMES,
    Operation,
    assert_holds,
    committed,
    copied,
    done,
    everything,
    made,
    silent,
)


def table_of(folder: Path) -> Table:
    return open_table(open_catalog(lake_config(folder)), NAMESPACE, "trades_v2")


def sources(folder: Path) -> Iterator[Path]:
    """Every folder of the data files that a warehouse's tables have."""
    for task in table_of(folder).scan().plan_files():
        yield Path(task.file.file_path).parent


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return made(tmp_path / "old")


@pytest.mark.parametrize("operation", COPIES)
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_copy_is_a_warehouse_of_its_own(tmp_path: Path, operation: Operation, name: str) -> None:
    old, new = made(tmp_path / f"{name} old"), tmp_path / "deep" / name
    before = everything(old)
    relocated = done(operation, old, new)
    assert (relocated.files, relocated.copied.files, relocated.copied.bytes) == (2, 2, relocated.bytes)
    committed(new, range(20, 30))
    assert everything(old) == before
    assert all(new in folder.parents for folder in sources(new))
    old.rename(tmp_path / "gone")
    assert_holds(new, 3)


@pytest.mark.parametrize("operation", COPIES)
def test_a_copy_keeps_every_snapshot_and_the_coverage(tmp_path: Path, old: Path, operation: Operation) -> None:
    done(operation, old, tmp_path / "new")
    this, other = table_of(old), table_of(tmp_path / "new")
    assert [snapshot.snapshot_id for snapshot in other.snapshots()] == [each.snapshot_id for each in this.snapshots()]
    assert other.properties == this.properties
    assert other.schema() == this.schema()
    for mine, theirs in zip(this.snapshots(), other.snapshots(), strict=True):
        rows = [t.scan(snapshot_id=mine.snapshot_id).to_arrow().sort_by("_offset") for t in (this, other)]
        assert rows[0] == rows[1]
        for manifest in theirs.manifests(other.io):
            assert Path(manifest.manifest_path).stat().st_size == manifest.manifest_length
        summaries = [dict(one.summary.additional_properties) for one in (mine, theirs) if one.summary]
        assert [summary.pop("k2.warehouse") for summary in summaries] == [str(old), str(tmp_path / "new")]
        assert summaries[0] == summaries[1]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_moved_warehouse_is_at_its_new_place_only(tmp_path: Path, name: str) -> None:
    old, new = made(tmp_path / f"{name} old"), tmp_path / "deep" / name
    done(move_warehouse, old, new)
    assert not old.exists()
    committed(new, range(20, 30))
    assert_holds(new, 3)


def test_a_warehouse_can_be_moved_there_and_back_again_and_again(tmp_path: Path, old: Path) -> None:
    for number in range(2):
        done(move_warehouse, old, tmp_path / "new")
        committed(tmp_path / "new", range(20 + 10 * number, 30 + 10 * number))
        done(move_warehouse, tmp_path / "new", old)
    assert_holds(old, 4)


def test_a_move_that_is_repeated_finds_nothing_to_do(tmp_path: Path, old: Path) -> None:
    done(move_warehouse, old, tmp_path / "new")
    before = everything(tmp_path)
    assert done(move_warehouse, old, tmp_path / "new").tables == ()
    assert everything(tmp_path) == before


def test_what_mv_has_moved_is_completed(tmp_path: Path, old: Path) -> None:
    old.rename(tmp_path / "new")
    done(move_warehouse, old, tmp_path / "new")
    assert_holds(tmp_path / "new", 2)


def test_what_cp_has_copied_is_completed_as_it_was_then(tmp_path: Path, old: Path) -> None:
    new = copied(old, tmp_path / "new")
    committed(old, range(20, 30))
    before = everything(old)
    assert done(copy_warehouse, old, new).copied.files == 0
    assert everything(old) == before
    assert_holds(new, 2)


def test_what_cp_has_copied_in_part_is_completed_from_the_old_folder(tmp_path: Path, old: Path) -> None:
    new = copied(old, tmp_path / "new")
    torn, lost = sorted(new.rglob("*.parquet"))
    torn.write_bytes(torn.read_bytes()[:100])
    lost.unlink()
    for path in new.rglob("*.avro"):
        path.write_bytes(path.read_bytes()[:50])
    assert done(copy_warehouse, old, new).copied.files == 2
    old.rename(tmp_path / "gone")
    assert_holds(new, 2)


def test_a_folder_that_cp_left_as_a_link_is_refused(tmp_path: Path, old: Path) -> None:
    (old / "market_data").rename(tmp_path / "disk")
    (old / "market_data").symlink_to(tmp_path / "disk")
    new = copied(old, tmp_path / "new")
    before = everything(tmp_path)
    with pytest.raises(UsageError, match=r"leads out of .*/new: put a folder in the place of the link"):
        copy_warehouse(old, new, silent)
    (new / UNFINISHED).unlink()
    assert everything(tmp_path) == before


def test_what_an_older_version_wrote_to_the_old_folder_by_the_copy_comes_along(tmp_path: Path, old: Path) -> None:
    new = copied(old, tmp_path / "new")
    by_copy = plain_catalog(new).load_table((NAMESPACE, "trades_v2"))
    by_copy.append(by_copy.scan().to_arrow().slice(0, 3))
    done(copy_warehouse, old, new)
    assert len(offsets_in(new)) == 23
    assert len(offsets_in(old)) == 20
    old.rename(tmp_path / "gone")
    assert len(offsets_in(new)) == 23


def test_a_backup_takes_only_what_is_new(tmp_path: Path, old: Path) -> None:
    done(back_up, old, tmp_path / "backup")
    first = everything(tmp_path / "backup")
    assert done(back_up, old, tmp_path / "backup").copied.files == 0
    committed(old, range(20, 30))
    again = done(back_up, old, tmp_path / "backup")
    assert (again.files, again.copied.files) == (3, 1)
    now = everything(tmp_path / "backup")
    assert {name for name in first if name not in now} == {name for name in first if name.endswith(".metadata.json")}, (
        "the metadata of the earlier backup, and nothing else, is gone"
    )
    assert all(now[name] == first[name] for name in first if name.endswith((".parquet", ".avro")))
    assert_holds(tmp_path / "backup", 3)
    done(restore_warehouse, tmp_path / "backup", tmp_path / "restored")
    assert_holds(tmp_path / "restored", 3)


def test_a_backup_that_was_written_to_is_no_backup_any_more(tmp_path: Path, old: Path) -> None:
    done(back_up, old, tmp_path / "backup")
    committed(tmp_path / "backup", range(20, 30))
    with pytest.raises(UsageError, match="but not as a backup left it"):
        back_up(old, tmp_path / "backup", silent)
    assert_holds(tmp_path / "backup", 3)


def test_a_backup_is_not_replaced_by_that_of_another_warehouse(tmp_path: Path, old: Path) -> None:
    done(back_up, old, tmp_path / "backup")
    with pytest.raises(UsageError, match=r"backup of another warehouse: its market_data.trades_v2 is another table"):
        back_up(made(tmp_path / "other", 1), tmp_path / "backup", silent)
    assert_holds(tmp_path / "backup", 2)


def test_a_backup_beside_a_job_is_of_one_moment(tmp_path: Path, old: Path) -> None:
    stop, begun = threading.Event(), threading.Event()

    def job() -> None:
        for number in itertools.count(2):
            committed(old, range(10 * number, 10 * number + 10))
            begun.set()
            if stop.is_set():
                return

    thread = threading.Thread(target=job)
    thread.start()
    try:
        begun.wait()
        for _ in range(3):
            relocated = back_up(old, tmp_path / "backup", silent)
            with as_it_was(relocated) as source:
                assert compare(source, plain_catalog(tmp_path / "backup"), NAMESPACE).same
            finish(relocated)
            offsets = offsets_in(tmp_path / "backup")
            assert offsets == list(range(len(offsets)))
            assert len(offsets) >= 30
            assert audit(plain_catalog(tmp_path / "backup"), NAMESPACE, mend=False).ok
    finally:
        stop.set()
        thread.join()
    assert len(offsets_in(old)) >= len(offsets)


@pytest.mark.parametrize("operation", [*COPIES, move_warehouse])
def test_where_a_file_is_lost_nothing_is_begun(tmp_path: Path, old: Path, operation: Operation) -> None:
    lost = next(old.rglob("*.parquet"))
    lost.unlink()
    before = everything(old)
    with pytest.raises(UnreadableFile, match=f"table market_data.trades_v2: file .*{lost.name} is gone"):
        operation(old, tmp_path / "new", silent)
    assert everything(old) == before
    assert set(everything(tmp_path / "new")) <= {UNFINISHED}


@pytest.mark.parametrize("suffix", [".parquet", "-m0.avro", ".metadata.json"])
def test_a_damaged_file_is_named(tmp_path: Path, old: Path, suffix: str) -> None:
    table = table_of(old)
    path = Path(table.metadata_location) if suffix == ".metadata.json" else next(old.rglob(f"*{suffix}"))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UnreadableFile, match=path.name):
        move_warehouse(old, tmp_path / "new", silent)
    assert file_problems(old, silent)[0].startswith("table market_data.trades_v2: file ")


@pytest.mark.parametrize("operation", [copy_warehouse, move_warehouse])
def test_a_file_that_another_process_changes_the_catalog_under_is_an_error(
    tmp_path: Path, old: Path, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new"
    old.rename(new) if operation is move_warehouse else copied(old, new)
    written = transfer.write_table

    def meanwhile(*args: object) -> Path:
        plain_catalog(new).drop_table((NAMESPACE, "trades_v2"))
        return written(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(warehouse, "write_table", meanwhile)
    with pytest.raises(LakeError, match="were changed by another process meanwhile: stop the jobs"):
        operation(old, new, silent)


def test_a_commit_between_the_reading_and_the_rename_is_taken_along(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        committed(old, range(20, 30))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    done(move_warehouse, old, tmp_path / "new")
    assert_holds(tmp_path / "new", 3)


def test_another_file_system_is_refused(tmp_path: Path, old: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    new = elsewhere / f"k2beam-{os.getpid()}"
    with pytest.raises(UsageError, match=r"on another file system than .*: copy it \(k2beam warehouse copy"):
        move_warehouse(old, new, silent)
    assert_holds(old, 2)
    assert not new.exists()


def test_two_commands_do_not_work_on_one_folder(tmp_path: Path, old: Path) -> None:
    (tmp_path / "new").mkdir()
    with warehouse._alone(tmp_path / "new"), pytest.raises(UsageError, match="another k2beam warehouse command works"):
        back_up(old, tmp_path / "new", silent)
    done(back_up, old, tmp_path / "new")


def full(old: Path, new: Path) -> None:
    new.mkdir()
    (new / "letter.txt").touch()


def a_file(old: Path, new: Path) -> None:
    new.touch()


def other(old: Path, new: Path) -> None:
    made(new, 1)


def without_old(old: Path, new: Path) -> None:
    old.rename(old.with_name("gone"))


def a_bare_copy(old: Path, new: Path) -> None:
    shutil.rmtree(old)
    copied(made(old.with_name("real")), old)


def of_another_command(old: Path, new: Path) -> None:
    new.mkdir()
    (new / UNFINISHED).write_text("k2beam warehouse copy /x /y\n")


@pytest.mark.parametrize("operation", [*COPIES, move_warehouse])
@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (full, "is not empty"),
        (a_file, "is not a folder"),
        (other, "is a warehouse"),
        (without_old, "no warehouse at .*/old"),
        (a_bare_copy, "old was moved from|old is a copy of|old lie in"),
        (of_another_command, "of another command that was not finished: k2beam warehouse copy /x /y|not empty"),
    ],
)
def test_what_can_not_be_done_is_refused_and_changes_nothing(
    tmp_path: Path, old: Path, operation: Operation, prepare: Callable[[Path, Path], None], said: str
) -> None:
    prepare(old, tmp_path / "new")
    before = everything(tmp_path)
    with pytest.raises(UsageError, match=said):
        operation(old, tmp_path / "new", silent)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("operation", [*COPIES, move_warehouse])
@pytest.mark.parametrize("place", [".", "inner", ".."])
def test_a_folder_within_the_other_is_refused(old: Path, operation: Operation, place: str) -> None:
    with pytest.raises(UsageError, match="must be two folders, and neither in the other"):
        operation(old, old / place, silent)


def test_a_copy_whose_old_folder_is_there_is_not_taken_for_moved(tmp_path: Path, old: Path) -> None:
    new = copied(old, tmp_path / "new")
    with pytest.raises(
        UsageError, match=r"is a copy, and .*/old is still there: complete the copy by k2beam warehouse"
    ):
        move_warehouse(old, new, silent)


def test_a_copy_of_a_third_warehouse_is_refused_and_stays_as_it_is(tmp_path: Path, old: Path) -> None:
    new, wrong = copied(old, tmp_path / "new"), made(tmp_path / "wrong", 1)
    before = everything(tmp_path)
    with pytest.raises(UsageError, match=r"lie in .*/old, not in .*/wrong: k2beam warehouse copy .*/old .*/new"):
        copy_warehouse(wrong, new, silent)
    assert everything(tmp_path) == before


def test_a_moved_warehouse_keeps_its_links_to_other_disks(tmp_path: Path, old: Path) -> None:
    (old / "market_data").rename(tmp_path / "disk")
    (old / "market_data").symlink_to(tmp_path / "disk")
    done(move_warehouse, old, tmp_path / "new")
    assert_holds(tmp_path / "new", 2)
    done(copy_warehouse, tmp_path / "new", tmp_path / "copy")
    (tmp_path / "disk").rename(tmp_path / "gone")
    assert_holds(tmp_path / "copy", 2)


def test_metadata_that_a_job_replaces_while_it_is_to_be_read_is_looked_for_again(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = warehouse.read_content
    reads = itertools.count()

    def overtaken(folder: Path) -> CatalogContent:
        content = read(folder)
        if folder == old and next(reads) == 0:
            committed(old, range(20, 30))
            Path(content.tables[0]["metadata_location"]).unlink()
        return content

    monkeypatch.setattr(warehouse, "read_content", overtaken)
    done(copy_warehouse, old, tmp_path / "new")
    assert_holds(tmp_path / "new", 3)


def test_another_old_folder_than_that_of_the_tables_is_refused(tmp_path: Path, old: Path) -> None:
    old.rename(tmp_path / "new")
    with pytest.raises(UsageError, match=r"lie in .*/old, not in .*/wrong: k2beam warehouse move .*/old .*/new"):
        move_warehouse(tmp_path / "wrong", tmp_path / "new", silent)


@pytest.mark.parametrize("operation", [*COPIES, move_warehouse])
def test_links_to_both_folders_lead_to_them(tmp_path: Path, old: Path, operation: Operation) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(old)
    (tmp_path / "there").symlink_to(tmp_path / "disk")
    operation(tmp_path / "link", tmp_path / "there" / "new", silent)
    (tmp_path / "disk" / "new" / UNFINISHED).unlink(missing_ok=True)
    assert_holds(tmp_path / "disk" / "new", 2)
    assert_holds(tmp_path / "there" / "new", 2)


@pytest.mark.parametrize("operation", [*COPIES, move_warehouse])
def test_a_warehouse_without_tables_can_be_taken_elsewhere(tmp_path: Path, operation: Operation) -> None:
    open_catalog(lake_config(tmp_path / "old")).create_namespace("a", {"location": f"{tmp_path}/old/a"})
    done(operation, tmp_path / "old", tmp_path / "new")
    found = open_catalog(lake_config(tmp_path / "new"), create=False).load_namespace_properties("a")
    assert found["location"] == f"{tmp_path}/new/a"


def test_no_room_is_said_and_the_command_can_be_repeated(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(transfer.shutil, "copyfile", full_disk)
        with pytest.raises(LakeError, match=r"can't be written: No space left on device; run it again"):
            copy_warehouse(old, tmp_path / "new", silent)
    done(copy_warehouse, old, tmp_path / "new")
    assert_holds(tmp_path / "new", 2)


def test_the_old_tables_are_there_as_they_were_though_the_job_went_on(tmp_path: Path, old: Path) -> None:
    relocated = done(copy_warehouse, old, tmp_path / "new")
    stage(old, range(50, 60))
    for number in range(2, 26):  # more than the log of metadata files has
        committed(old, range(10 * number, 10 * number + 10))
    assert not Path(relocated.tables[0].place.location).exists()
    with as_it_was(relocated) as source:
        assert compare(source, open_catalog(lake_config(tmp_path / "new")), NAMESPACE).same
    assert not compare(open_catalog(lake_config(old)), plain_catalog(tmp_path / "new"), NAMESPACE).same


def test_every_error_is_one_of_ours(tmp_path: Path) -> None:
    for operation in (*COPIES, move_warehouse):
        with pytest.raises(K2BeamError, match="no warehouse at"):
            operation(tmp_path / "a", tmp_path / "b", silent)
