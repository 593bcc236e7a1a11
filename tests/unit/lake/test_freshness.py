"""Sizes and times of tables from their metadata alone, and that nothing is read twice."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table

from k2beam.config import NAMESPACE
from k2beam.errors import UnreadableFile
from k2beam.lake import freshness
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.files import write_rows
from k2beam.lake.freshness import DeadLetterReader, Files, GapReader, TableReader
from k2beam.lake.tables import DEAD_LETTERS, SEQUENCE_GAPS, SPECS, open_table
from k2beam.lake.transaction import Append, append, replaces
from k2beam.query.overview import list_stats
from tests.lake_helpers import QUICK, START, lake_config, stage, write_config
from tests.query_fixtures import append_dead_letters, append_gap_rows, dead_letter, gap, make_catalog


def commit(folder: Path, *offsets: range) -> Table:
    """One commit of a file of trades for each range; gives the table."""
    catalog = open_catalog(lake_config(folder))
    files = [stage(folder, numbers) for numbers in offsets]
    commit_files(catalog, NAMESPACE, "trades_v2", files, run_id=write_config().run_id, policy=QUICK)
    return open_table(catalog, NAMESPACE, "trades_v2")


def data_files(table: Table) -> list[Path]:
    return [Path(task.file.file_path.removeprefix("file://")) for task in table.scan().plan_files()]


def test_the_state_is_what_the_files_hold(tmp_path: Path) -> None:
    commit(tmp_path, range(100), range(100, 150))
    table = commit(tmp_path, range(200, 201))
    state = TableReader("trades_v2").read(table)
    (expected,) = list_stats(open_catalog(lake_config(tmp_path)), NAMESPACE)
    sizes = [path.stat().st_size for path in data_files(table)]
    assert state.data == Files(151, 3, sum(sizes), 3, START + 200_000)
    assert (expected.rows, expected.files, expected.bytes) == (151, 3, sum(sizes))
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert (state.last_commit, state.snapshots) == (snapshot.timestamp_ms * 1_000, 2)


def test_no_data_file_is_opened(tmp_path: Path) -> None:
    table = commit(tmp_path, range(10))
    for path in data_files(table):
        path.unlink()
    assert TableReader("trades_v2").read(table).data.rows == 10


def test_a_manifest_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = ManifestFile.fetch_manifest_entry

    def counted(self: ManifestFile, *arguments: object, **options: object) -> object:
        opened.append(self.manifest_path)
        return real(self, *arguments, **options)  # type: ignore[arg-type]

    table = commit(tmp_path, range(10))
    later = commit(tmp_path, range(10, 30))
    monkeypatch.setattr(ManifestFile, "fetch_manifest_entry", counted)
    reader = TableReader("trades_v2")
    assert [reader.read(one).data.rows for one in (table, table, later, later)] == [10, 10, 30, 30]
    assert len(opened) == len(set(opened)) == 2


def test_files_that_were_deleted_do_not_count(tmp_path: Path) -> None:
    commit(tmp_path, range(10))
    table = commit(tmp_path, range(10, 30))
    reader = TableReader("trades_v2")
    assert reader.read(table).data.rows == 30
    table.delete("trade_id = '29'")
    assert reader.read(table).data == Files(
        29, 2, sum(path.stat().st_size for path in data_files(table)), 2, START + 28_000
    )
    table.delete("source_sequence < 100")
    assert reader.read(table).data == Files()


def test_a_file_is_small_below_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = commit(tmp_path, range(10), range(10, 30))
    smaller, larger = sorted(path.stat().st_size for path in data_files(table))
    assert smaller < larger
    for limit, small in ((smaller, 0), (smaller + 1, 1), (larger + 1, 2)):
        monkeypatch.setattr(freshness, "SMALL_BYTES", limit)
        assert TableReader("trades_v2").read(table).data.small == small


def test_a_table_without_a_commit_is_empty(tmp_path: Path) -> None:
    table = open_table(open_catalog(lake_config(tmp_path)), NAMESPACE, "trades_v2")
    state = TableReader("trades_v2").read(table)
    assert (state.last_commit, state.snapshots, state.data) == (None, 0, Files())


def test_the_newest_event_is_not_known_without_statistics_or_events(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    dead_letters = append_dead_letters(catalog, [dead_letter(1)])
    assert TableReader(DEAD_LETTERS).read(dead_letters).data.newest_event is None
    table = open_table(catalog, NAMESPACE, "trades_v2")
    with table.transaction() as transaction:
        transaction.set_properties({"write.metadata.metrics.default": "none"})
    data = TableReader("trades_v2").read(commit(tmp_path, range(10))).data
    assert (data.rows, data.newest_event) == (10, None)


@pytest.mark.parametrize("part", ["manifest", "manifest list"])
def test_a_lost_manifest_is_named(tmp_path: Path, part: str) -> None:
    table = commit(tmp_path, range(10))
    snapshot = table.current_snapshot()
    assert snapshot is not None
    lost = snapshot.manifest_list if part == "manifest list" else snapshot.manifests(table.io)[0].manifest_path
    Path(lost.removeprefix("file://")).unlink()
    fresh = open_table(open_catalog(lake_config(tmp_path)), NAMESPACE, "trades_v2")
    with pytest.raises(UnreadableFile, match=r"market_data.trades_v2: file .*avro is gone"):
        TableReader("trades_v2").read(fresh)


def test_open_gaps_are_counted_by_their_last_revision_and_read_once(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    ledger = append_gap_rows(
        catalog, [gap("a", 1, 2), gap("b", 4, 4), gap("c", 10, 30), gap("d", 5, 6, kind="quotes"), gap("e", 8, 8)]
    )
    reader = GapReader()
    found = reader.read(ledger)
    assert found.gaps == {("trades", "SMALL"): 3, ("trades", "LARGE"): 1, ("quotes", "SMALL"): 1}
    assert found.missing == {"trades": 25, "quotes": 2}
    hidden = [path.rename(path.with_suffix(".away")) for path in data_files(ledger)]
    assert reader.read(open_table(catalog, NAMESPACE, SEQUENCE_GAPS)) == found
    for path in hidden:
        path.rename(path.with_suffix(".parquet"))
    ledger = append_gap_rows(catalog, [gap("b", 4, 4, "FILLED", 1), gap("c", 10, 12, "PARTIAL", 1)])
    assert reader.read(ledger).missing == {"trades": 6, "quotes": 2}


def test_dead_letters_are_counted_and_each_file_is_read_once(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    reader = DeadLetterReader()
    table = append_dead_letters(
        catalog, [dead_letter(1), dead_letter(2), dead_letter(3, stage="validate", error_class="negative_price")]
    )
    expected = {("decode", "Truncated"): 2, ("validate", "negative_price"): 1}
    assert reader.read(table) == expected
    for path in data_files(table):
        path.unlink()
    assert reader.read(table) == expected
    table = append_dead_letters(catalog, [dead_letter(4)])
    assert reader.read(table) == {("decode", "Truncated"): 3, ("validate", "negative_price"): 1}


def test_an_unreadable_file_of_dead_letters_is_named(tmp_path: Path) -> None:
    table = append_dead_letters(make_catalog(tmp_path), [dead_letter(1)])
    for path in data_files(table):
        path.unlink()
    with pytest.raises(UnreadableFile, match="dead_letters"):
        DeadLetterReader().read(table)


def test_the_sum_of_files_keeps_the_newest_event() -> None:
    assert sum([Files(1, 1, 10, 0, 5), Files(2, 1, 20, 1, None), Files(3, 1, 5, 1, 3)], Files()) == Files(
        6, 3, 35, 2, 5
    )


def test_a_compaction_is_no_commit_of_rows(tmp_path: Path) -> None:
    for number in range(5):
        table = commit(tmp_path, range(number * 10, number * 10 + 10))
    last = table.current_snapshot()
    assert last is not None
    replace_files(table)
    table = table.refresh()
    state = TableReader("trades_v2").read(table)
    assert (state.last_commit, state.snapshots) == (last.timestamp_ms * 1_000, 6)
    assert (state.data.rows, state.data.files) == (50, 1)
    only = [snapshot for snapshot in table.snapshots() if replaces(snapshot)]
    assert freshness._last_commit(only) == only[0].timestamp_ms * 1_000


def test_what_adds_no_row_is_no_commit_of_rows(tmp_path: Path) -> None:
    table = commit(tmp_path, range(10))
    last = table.current_snapshot()
    assert last is not None
    time.sleep(0.002)
    append(table, Append([], {"k2.x": "1"}))
    state = TableReader("trades_v2").read(table.refresh())
    assert (state.last_commit, state.snapshots) == (last.timestamp_ms * 1_000, 2)


def replace_files(table: Table) -> None:
    """All files by one, as a compaction does."""
    time.sleep(0.002)
    files = [task.file for task in table.scan().plan_files()]
    (rewritten,) = write_rows(table, table.scan().to_arrow().cast(SPECS["trades_v2"].schema), window=START)
    append(table, Append([rewritten.data_file()], replaced=files))
