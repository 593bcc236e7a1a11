"""Commits of constant cost: what is shared, remembered and merged is what pyiceberg would have made."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.memory import InMemoryCatalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import TableAlreadyExistsError
from pyiceberg.manifest import ManifestEntryStatus
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadataUtil
from pyiceberg.types import NestedField, StringType

from k2beam.config import NAMESPACE, Retention
from k2beam.lake import lean as lean_module
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.lean import LeanSqlCatalog, LeanTransaction, lean
from k2beam.lake.tables import open_table
from k2beam.lake.transaction import Append, append
from tests.lake_helpers import QUICK, lake_config, offsets_in, stage


def commits(folder: Path, number: int, files: int = 1, retention: Retention | None = None) -> Table:
    """The trades after so many commits of ``files`` rows, a file for each."""
    catalog = open_catalog(lake_config(folder))
    for first in range(0, number * files, files):
        staged = [stage(folder, [offset]) for offset in range(first, first + files)]
        commit_files(catalog, NAMESPACE, "trades_v2", staged, run_id="r", policy=QUICK, retention=retention)
    return open_table(catalog, NAMESPACE, "trades_v2")


def sizes(table: Table) -> list[int]:
    """The number of live files of each manifest, largest first."""
    snapshot = table.current_snapshot()
    assert snapshot is not None
    manifests = snapshot.manifests(table.io)
    return sorted(((one.added_files_count or 0) + (one.existing_files_count or 0) for one in manifests), reverse=True)


def test_manifests_of_one_size_class_are_merged_by_the_next_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lean_module, "MERGED_AT_ONCE", 3)
    for number, expected in ((3, [1, 1, 1]), (4, [3, 1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert sizes(commits(folder, number)) == expected
    wide = tmp_path / "wide"
    wide.mkdir()
    assert sizes(commits(wide, 4, files=10)) == [30, 10], "two digits are a class of their own"


def test_manifests_that_only_say_what_was_deleted_are_let_go_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lean_module, "MERGED_AT_ONCE", 3)
    monkeypatch.setattr(lean_module, "LARGEST_MERGED", 1)
    table = commits(tmp_path, 1, files=60)
    live = [task.file for task in table.scan().plan_files()]
    for number in range(6):
        fresh = [stage(tmp_path, [offset]).data_file() for offset in range(10)]
        append(table, Append(fresh, {}, {"k2.commit-id": str(number)}, replaced=live[10 * number : 10 * number + 10]))
        table.refresh()
    assert sum(sizes(table)) == 60
    assert sizes(table).count(0) <= 1


def test_large_manifests_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean_module, "MERGED_AT_ONCE", 2)
    monkeypatch.setattr(lean_module, "LARGEST_MERGED", 1)
    assert sizes(commits(tmp_path, 4, files=10)) == [10, 10, 10, 10]


def test_no_manifest_is_written_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean_module, "MERGED_AT_ONCE", 2)
    table = commits(tmp_path, 9)
    used = {manifest.manifest_path for one in table.metadata.snapshots for manifest in one.manifests(table.io)}
    assert {Path(path).name for path in used} == {path.name for path in tmp_path.rglob("trades_v2/metadata/*-m*.avro")}


def test_a_merged_manifest_says_when_each_file_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean_module, "MERGED_AT_ONCE", 3)
    table = commits(tmp_path, 4)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    by_sequence = sorted(
        (entry.sequence_number, entry.snapshot_id, entry.status)
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io)
    )
    history = [one.snapshot_id for one in table.metadata.snapshots]
    existing, added = ManifestEntryStatus.EXISTING, ManifestEntryStatus.ADDED
    assert by_sequence == [*((n + 1, history[n], existing) for n in range(3)), (4, history[3], added)]
    assert offsets_in(tmp_path) == [0, 1, 2, 3]


def test_every_snapshot_stays_readable_while_manifests_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean_module, "MERGED_AT_ONCE", 3)
    table = commits(tmp_path, 11)
    for number, snapshot in enumerate(table.metadata.snapshots, start=1):
        rows = table.scan(snapshot_id=snapshot.snapshot_id, selected_fields=("_offset",)).to_arrow()
        assert sorted(rows["_offset"].to_pylist()) == list(range(number))


def test_the_transaction_gives_the_metadata_that_pyiceberg_gives(tmp_path: Path) -> None:
    table = commits(tmp_path, 2)
    with LeanTransaction(table) as ours, table.transaction() as theirs:
        for transaction in (ours, theirs):
            assert transaction.table_metadata.properties.get("owner") is None
            transaction.set_properties(owner="a")
            assert transaction.table_metadata.properties["owner"] == "a"
            transaction.set_properties(owner="b")
        assert ours.table_metadata.properties == theirs.table_metadata.properties
        assert ours.table_metadata.snapshots == theirs.table_metadata.snapshots
        ours._updates = theirs._updates = ()


def test_a_copy_of_the_metadata_shares_its_parts_and_a_change_of_one_leaves_the_other(tmp_path: Path) -> None:
    table = commits(tmp_path, 2)
    metadata, before = table.metadata, table.metadata.model_dump_json()
    copied = copy.deepcopy(metadata)
    assert copied == metadata
    assert copied is not metadata
    assert copied.snapshots is metadata.snapshots
    with table.transaction() as transaction:
        transaction.set_properties(owner="a").remove_properties("write.parquet.compression-codec")
    table.manage_snapshots().create_tag(metadata.snapshots[0].snapshot_id, "t").commit()
    commits(tmp_path, 3, retention=Retention(1))
    with table.refresh().update_schema() as schema:
        schema.add_column("more", StringType())
    assert metadata.model_dump_json() == copied.model_dump_json() == before
    assert table.refresh().metadata.model_dump_json() != before


def test_what_is_remembered_is_what_is_written(tmp_path: Path) -> None:
    table = commits(tmp_path, 12, retention=Retention(3))
    written = Path(table.metadata_location.removeprefix("file://")).read_text(encoding="utf-8")
    assert TableMetadataUtil.parse_raw(written) == table.metadata


def test_another_processes_commit_is_seen(tmp_path: Path) -> None:
    ours, theirs = (open_catalog(lake_config(tmp_path)) for _ in range(2))
    before = open_table(ours, NAMESPACE, "trades_v2")
    open_table(theirs, NAMESPACE, "trades_v2")
    commit_files(theirs, NAMESPACE, "trades_v2", [stage(tmp_path, [1])], run_id="r", policy=QUICK)
    assert len(open_table(ours, NAMESPACE, "trades_v2").snapshots()) == len(before.snapshots()) + 1


def test_a_configured_sql_catalog_is_lean_and_others_are_left(tmp_path: Path) -> None:
    plain = SqlCatalog("c", uri=f"sqlite:///{tmp_path}/c.db", warehouse=str(tmp_path))
    plain.create_namespace("n")
    found = lean(plain)
    assert isinstance(found, LeanSqlCatalog)
    assert (found.name, found.list_namespaces()) == ("c", [("n",)])
    assert found.properties == {**plain.properties, "pool_pre_ping": "true"}, "a database may have restarted"
    assert lean(found) is found
    other = InMemoryCatalog("m")
    assert lean(other) is other


def test_who_comes_second_in_making_a_table_leaves_no_metadata_behind(tmp_path: Path) -> None:
    """A file that no table has would pass for one of another warehouse."""
    config, together = lake_config(tmp_path), threading.Barrier(6)
    catalogs = [open_catalog(config) for _ in range(6)]
    for catalog in catalogs:
        catalog.create_namespace_if_not_exists("x")
    schema = Schema(NestedField(1, "a", StringType()))

    def make(catalog: Catalog) -> bool:
        together.wait()
        try:
            catalog.create_table("x.y", schema)
        except TableAlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(make, catalogs)) == 1
    assert len(list((tmp_path / "x" / "y" / "metadata").iterdir())) == 1
