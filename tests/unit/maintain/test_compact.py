"""Compaction: the same rows in fewer, sorted files; and its command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.table import Table

from k2beam.audit.audit import audit
from k2beam.audit.compare import compare
from k2beam.cli.main import main
from k2beam.config import NAMESPACE
from k2beam.errors import LakeError
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import read_coverage
from k2beam.lake.digest import digest_rows
from k2beam.lake.scan import plan_files
from k2beam.lake.transaction import REPLACED_AT, replaces
from k2beam.maintain import candidates, rewrite
from k2beam.maintain.compact import plan_compaction
from k2beam.query.overview import list_snapshots
from tests.audit_helpers import SmallLake
from tests.compact_helpers import (
    NAME,
    NEVER_BUSY,
    SYMBOLS,
    TARGET,
    commit,
    compacted,
    fill,
    opened,
    paths,
    rows_of,
)
from tests.lake_helpers import DAY, START, lake_config, offsets_in, trades


def test_small_files_become_one_with_the_same_rows_in_order(tmp_path: Path) -> None:
    fill(tmp_path)
    before = opened(tmp_path)
    expected = digest_rows(rows_of(before))
    (done,) = compacted(tmp_path)
    table = opened(tmp_path)
    (path,) = paths(table)
    assert (done.result, done.files, done.files_after, done.rows) == ("compacted", 6, 1, 60)
    assert done.bytes_after == Path(path.removeprefix("file://")).stat().st_size
    assert digest_rows(rows_of(table)) == expected
    found = rows_of(table).select(["symbol", "timestamp"]).to_pylist()
    assert found == sorted(found, key=lambda row: (row["symbol"], row["timestamp"]))
    snapshot = table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    assert replaces(snapshot)
    summary = snapshot.summary.additional_properties
    assert (summary["k2.compacted.rows"], summary["k2.compacted.files"]) == ("60", "6")
    assert summary["k2.compacted.digest"] == done.digest == str(expected)
    assert (summary["total-records"], summary["total-data-files"]) == ("60", "1")
    assert "k2.rows" not in summary
    shown = list_snapshots(open_catalog(lake_config(tmp_path)), NAMESPACE)[-1]
    assert (shown.operation, shown.added_rows, shown.added_files, shown.total_rows) == ("replace", 0, 1, 60)


def test_coverage_and_older_snapshots_stay_and_a_second_time_nothing_is_to_be_done(tmp_path: Path) -> None:
    fill(tmp_path)
    before = opened(tmp_path)
    snapshot = before.current_snapshot()
    assert snapshot is not None
    compacted(tmp_path)
    table = opened(tmp_path)
    assert table.properties.keys() - before.properties.keys() == {REPLACED_AT}
    assert before.properties.items() <= table.properties.items()
    assert list(read_coverage(open_catalog(lake_config(tmp_path)), NAMESPACE)["archive:a", 0]) == list(range(60))
    assert len(table.scan(snapshot_id=snapshot.snapshot_id).to_arrow()) == 60
    assert len(plan_files(table, snapshot=snapshot)) == 6
    assert compacted(tmp_path) == []
    commit(tmp_path, range(60))
    assert offsets_in(tmp_path) == list(range(60)), "what is covered is still not taken again"


def test_the_audit_and_the_comparison_say_the_same_of_both(tmp_path: Path) -> None:
    for folder in ("this", "other"):
        fill(tmp_path / folder)
    compacted(tmp_path / "this")
    this, other = (open_catalog(lake_config(tmp_path / folder)) for folder in ("this", "other"))
    assert compare(this, other, NAMESPACE).same
    mine, theirs = audit(this, NAMESPACE), audit(other, NAMESPACE)
    assert mine.ok
    assert (mine.sources, mine.symbols, mine.problems) == (theirs.sources, theirs.symbols, theirs.problems)
    assert [finding.rows for finding in mine.tables] == [finding.rows for finding in theirs.tables]


def test_every_table_can_be_compacted(tmp_path: Path) -> None:
    lake = SmallLake(tmp_path)
    for number in range(6):
        lake.bury(number * 10, number * 10 + number)
    before = digest_rows(rows_of(lake.table("dead_letters")))
    (done,) = compacted(tmp_path, name="dead_letters")
    assert (done.partition, done.files_after) == ("failed_at_day=2023-11-14", 1)
    assert digest_rows(rows_of(lake.table("dead_letters"))) == before
    assert compacted(tmp_path, name="quotes_v2") == [], "it was never made"


@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=25), min_size=5, max_size=9), st.data())
@settings(max_examples=15)
def test_any_files_become_fewer_with_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[int]], data: st.DataObject
) -> None:
    """Rows of many sorted pieces, with equal keys and offsets that are there twice, in row groups of a few rows."""
    folder = tmp_path_factory.mktemp("lake")
    for times in files:
        symbol, partition = data.draw(st.sampled_from(SYMBOLS)), data.draw(st.integers(0, 1))
        days = [START + (time % 2) * DAY + time for time in times]
        rows = pa.Table.from_batches([_trades(len(days), days, symbol, partition)])
        opened(folder).append(rows)
    table = opened(folder)
    before, expected = paths(table), digest_rows(rows_of(table))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewrite, "ROW_GROUP_ROWS", 8)
        patch.setattr(rewrite, "_SAMPLED", data.draw(st.sampled_from([1, 2, 4])))
        patch.setattr(rewrite, "_STORED_ROWS", 3)
        patch.setattr(rewrite, "_bunches", lambda files, most: [[file] for file in files])
        patch.setattr(rewrite, "PARQUET_RATIO", data.draw(st.sampled_from([4, 1e-6])))
        done = compacted(folder)
    table = opened(folder)
    assert digest_rows(rows_of(table)) == expected
    assert len(before) - len(paths(table)) == sum(one.files - one.files_after for one in done)
    assert all(one.files_after < one.files for one in done)
    for task in plan_files(table):
        assert _is_sorted(task.file.file_path) or task.file.file_path in before


def _trades(count: int, times: Sequence[int], symbol: str, partition: int) -> pa.RecordBatch:
    return trades(range(count), times=times, symbol=symbol, partition=partition)


def _is_sorted(path: str) -> bool:
    found = pq.ParquetFile(path.removeprefix("file://")).read(["symbol", "timestamp", "_offset"]).to_pylist()
    keys = [tuple(row.values()) for row in found]
    return keys == sorted(keys)


def test_files_of_the_target_size_are_cut_where_symbols_follow_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrite, "ROW_GROUP_ROWS", 32)
    monkeypatch.setattr(rewrite, "_SAMPLED", 8)
    fill(tmp_path, files=24, rows=30)
    target = 15_000
    (done,) = compacted(tmp_path, target)
    assert 1 < done.files_after < done.files
    table = opened(tmp_path)
    sizes = sorted(task.file.file_size_in_bytes for task in plan_files(table))
    assert all(size >= target for size in sizes[1:])
    groups = [pq.read_metadata(path.removeprefix("file://")).num_row_groups for path in paths(table)]
    assert sum(groups) > done.files_after
    assert all(map(_is_sorted, paths(table)))
    assert len(list(table.scan(row_filter="symbol = 'BTC'").plan_files())) < done.files_after
    assert compacted(tmp_path, target) == []


def test_a_file_with_deletes_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, files=6)
    catalog, first = open_catalog(lake_config(tmp_path)), paths(opened(tmp_path))[0]
    real = candidates.plan_files

    def with_deletes(table: Table) -> list[Any]:
        tasks = real(table)
        for task in tasks:
            if task.file.file_path == first:
                task.delete_files.add(task.file)
        return tasks

    monkeypatch.setattr(candidates, "plan_files", with_deletes)
    ((planned, group),) = plan_compaction(catalog, NAMESPACE, NAME, TARGET, NEVER_BUSY)
    assert planned.files == 5
    assert first not in [file.file_path for file in group.files]


def loaded(folder: Path) -> Table:
    """The table as it is, whatever its columns."""
    return open_catalog(lake_config(folder)).load_table((NAMESPACE, "trades_v2"))


def test_files_from_before_a_column_was_widened_are_read_by_their_ids(tmp_path: Path) -> None:
    table = opened(tmp_path)
    with table.update_schema() as update:
        update.rename_column("trade_id", "old_id")
    for number in range(5):
        rows = pa.Table.from_batches([_trades(3, [START + number] * 3, "BTC", number)])
        names = ["old_id" if name == "trade_id" else name for name in rows.schema.names]
        loaded(tmp_path).append(rows.rename_columns(names))
    with pytest.raises(LakeError, match=r"trades_v2 has no column trade_id \(it was renamed to old_id\)"):
        compacted(tmp_path)
    with loaded(tmp_path).update_schema() as update:
        update.rename_column("old_id", "trade_id")
    before = digest_rows(rows_of(opened(tmp_path)))
    assert [done.files_after for done in compacted(tmp_path)] == [1]
    assert digest_rows(rows_of(opened(tmp_path))) == before


def run(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    with pytest.raises(SystemExit) as ended:
        main(["maintain", "compact", "--warehouse", str(folder), "--output", "json", *options])
    assert not ended.value.code
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def test_the_command_tells_what_it_would_do_and_does_it_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path)
    (told,) = run(tmp_path, capsys)
    assert (told["table"], told["result"], told["files"], told["files_after"]) == (NAME, "planned", 6, 1)
    assert len(opened(tmp_path).snapshots()) == 6
    (done,) = run(tmp_path, capsys, "--apply", "--table", NAME)
    assert (done["result"], done["files_after"], done["rows"]) == ("compacted", 1, 60)
    assert len(paths(opened(tmp_path))) == 1
    assert run(tmp_path, capsys, "--apply") == []


def test_the_command_leaves_a_partition_alone_that_is_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path)
    (told,) = run(tmp_path, capsys, "--apply", "--quiet-hours", "1000000")
    assert told["result"] == "busy"
    assert len(paths(opened(tmp_path))) == 6


def test_the_command_refuses_a_table_that_there_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, files=1)
    with pytest.raises(SystemExit) as ended:
        main(["maintain", "compact", "--warehouse", str(tmp_path), "--table", "trades"])
    assert ended.value.code == 2
    assert "there is no table trades; the tables are trades_v2" in capsys.readouterr().err
