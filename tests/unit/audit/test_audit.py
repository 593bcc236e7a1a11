"""The audit finds what is lost, what is there twice and which coverage lies, and passes what is right."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.expressions import EqualTo
from pyroaring import BitMap64
from typer.testing import CliRunner

from k2beam.archive.count import count_archive
from k2beam.archive.write import write_raw_archive
from k2beam.audit.audit import audit
from k2beam.audit.report import AuditReport, DaysFinding, SourceFinding
from k2beam.cli.audit import register
from k2beam.config import NAMESPACE, LakeConfig
from k2beam.coverage import SourcePartition, runs
from k2beam.errors import UsageError
from k2beam.lake import recount as recount_module
from k2beam.lake.ledger import read_ledger
from k2beam.lake.offsets import OffsetCount
from k2beam.lake.reconcile import reconcile
from k2beam.lake.tables import CERTIFIED_DAYS, SEQUENCE_GAPS, find_table
from k2beam.model import RawRecord
from k2beam.schemas import avro_schema
from tests.audit_helpers import SOURCE, START, Row, SmallLake, event_table

KEY = SourcePartition(SOURCE, 0)


@pytest.fixture
def lake(tmp_path: Path) -> SmallLake:
    return SmallLake(tmp_path / "warehouse")


def numbered(offsets: Iterable[int]) -> list[Row]:
    return [Row(offset, 100 + offset) for offset in offsets]


def run(lake: SmallLake, *sources: Path, mend: bool = True) -> AuditReport:
    return audit(lake.catalog, NAMESPACE, [str(path) for path in sources], mend=mend)


def only_source(report: AuditReport) -> SourceFinding:
    (row,) = report.sources
    return row


def archive(path: Path, offsets: Iterable[int], *, source: str = SOURCE) -> Path:
    """A container in the raw_record envelope that holds these offsets."""
    records = (RawRecord(source, 0, offset, START, None, b"\0\0\0\0\1x") for offset in offsets)
    write_raw_archive(str(path), records, {1: avro_schema("trade_v2")}, codec="null")
    return path


def test_a_whole_lake_passes_against_its_source(lake: SmallLake, tmp_path: Path) -> None:
    lake.add(numbered(range(6)))
    lake.add([Row(6, 1, symbol="ETH")], "quotes")
    lake.add([Row(7)], "reference_data")
    lake.bury(8)
    lake.bury(9, 19)
    lake.expect(20)
    report = run(lake, archive(tmp_path / "a.avro", range(20)))
    assert report.problems == ()
    assert only_source(report) == SourceFinding(SOURCE, 0, 0, 19, "source", 20, 8, 12, 0, 0)
    assert [(row.table, row.rows, row.files) for row in report.tables] == [
        ("trades_v2", 6, 1),
        ("quotes_v2", 1, 1),
        ("reference_data_v2", 1, 1),
        ("dead_letters", 2, 2),
    ]


def test_the_report_is_json(lake: SmallLake) -> None:
    lake.add(numbered([0, 2]))
    data = json.loads(json.dumps(run(lake).to_dict()))
    assert list(data) == ["ok", "sources", "symbols", "tables", "ledger", "days", "problems", "notes"]
    assert data["ok"] is False
    assert data["sources"] == [
        {
            "source": SOURCE,
            "partition": 0,
            "first": 0,
            "last": 2,
            "end": "unverified",
            "expected": 3,
            "received": 2,
            "dead": 0,
            "missing": 1,
            "duplicate": 0,
            "missing_ranges": [[1, 1]],
        }
    ]
    (table,) = data["tables"]
    assert (table["snapshot_id"], table["bytes"] > 0) == (lake.table("trades_v2").metadata.current_snapshot_id, True)


def test_an_injected_loss_is_a_hole(lake: SmallLake) -> None:
    lake.add(numbered(range(10)))
    lake.table("trades_v2").delete(EqualTo("_offset", 4))
    report = run(lake)
    row = only_source(report)
    assert (row.end, row.expected, row.received, row.missing, row.missing_ranges) == ("unverified", 10, 9, 1, ((4, 4),))
    assert report.tables[0].coverage_without_rows == 1
    assert any("1 of 10 offsets are missing: 4" in problem for problem in report.problems)


def test_a_lost_tail_is_seen_by_the_recorded_end_only(lake: SmallLake) -> None:
    lake.add(numbered(range(8)))
    assert run(lake).ok
    lake.expect(10)
    row = only_source(run(lake))
    assert (row.end, row.expected, row.missing_ranges) == ("recorded", 10, ((8, 9),))


def test_a_lost_tail_and_head_are_seen_by_the_source(lake: SmallLake, tmp_path: Path) -> None:
    lake.add(numbered(range(2, 8)))
    row = only_source(run(lake, archive(tmp_path / "a.avro", range(10))))
    assert (row.end, row.missing, row.missing_ranges) == ("source", 4, ((0, 1), (8, 9)))


def test_source_and_recorded_end_are_both_checked(lake: SmallLake, tmp_path: Path) -> None:
    lake.add(numbered(range(10)))
    lake.expect(12)
    row = only_source(run(lake, archive(tmp_path / "a.avro", range(10))))
    assert (row.end, row.missing_ranges) == ("source", ((10, 11),))


def test_holes_of_the_source_are_legal_inside_a_file_and_only_there(lake: SmallLake, tmp_path: Path) -> None:
    lake.add(numbered([0, 1, 3, 4, 6, 8, 9]))
    files = archive(tmp_path / "a.avro", [0, 1, 3, 4]), archive(tmp_path / "b.avro", [8, 9])
    row = only_source(run(lake, *files))
    assert (row.expected, row.missing_ranges) == (9, ((5, 5), (7, 7)))


def test_a_source_partition_without_any_row_is_missing(lake: SmallLake) -> None:
    lake.add(numbered(range(3)))
    lake.expect(5, partition=1)
    lost = run(lake).sources[1]
    assert (lost.partition, lost.first, lost.last, lost.missing, lost.missing_ranges) == (1, None, None, 5, ((0, 4),))


def test_a_lost_file_is_named(lake: SmallLake, tmp_path: Path) -> None:
    lake.add(numbered(range(5)))
    here, lost = (
        archive(tmp_path / "here.avro", range(5)),
        archive(tmp_path / "lost.avro", range(3), source="archive:b"),
    )
    report = run(lake, tmp_path / "*.avro")
    assert [problem for problem in report.problems if str(lost) in problem] == [
        f"source file {lost} is lost: none of its 3 offsets is in the tables; ingest it"
    ]
    assert not any(str(here) in problem for problem in report.problems)


def test_an_unusable_source_file_is_a_problem_and_a_wrong_path_an_error(lake: SmallLake, tmp_path: Path) -> None:
    lake.add(numbered(range(5)))
    (tmp_path / "bad.avro").write_bytes(b"not Avro at all")
    report = run(lake, tmp_path / "bad.avro", archive(tmp_path / "good.avro", range(5)))
    assert [str(tmp_path / "bad.avro") in problem for problem in report.problems] == [True]
    with pytest.raises(UsageError):
        run(lake, tmp_path / "nowhere.avro")


def test_an_incomplete_tail_of_the_source_is_noted_not_failed(lake: SmallLake, tmp_path: Path) -> None:
    lake.add(numbered(range(10)))
    whole = archive(tmp_path / "a.avro", range(10))
    count = count_archive(str(whole))
    with whole.open("ab") as file:
        file.write(b"\x04\x80\x02half a block")
    assert count_archive(str(whole)).coverage == count.coverage
    report = run(lake, whole)
    assert report.ok
    assert [str(whole) in note for note in report.notes] == [True]


def test_a_lost_data_file_is_named_and_the_rest_is_audited(lake: SmallLake) -> None:
    lake.add(numbered([0, 1]))
    lake.add(numbered([2, 3]))
    lake.add([Row(4, 1, symbol="ETH")], "quotes")
    victim = lake.data_files()[0]
    victim.unlink()
    report = run(lake)
    assert [problem for problem in report.problems if victim.name in problem] == [
        f"table market_data.trades_v2: file {victim} is gone"
    ]
    row = only_source(report)
    assert (row.received, [(found.symbol, found.received) for found in report.symbols]) == (3, [("BTC", 2), ("ETH", 1)])
    assert (report.ledger.checked, report.ledger.mended) == (False, 0)
    assert find_table(lake.catalog, NAMESPACE, SEQUENCE_GAPS) is None


def test_a_damaged_data_file_is_named(lake: SmallLake) -> None:
    lake.add(numbered([0, 1]))
    victim = lake.data_files()[0]
    victim.write_bytes(b"PAR1 but not really")
    assert any(victim.name in problem and "can't be read" in problem for problem in run(lake).problems)


def test_a_data_file_with_fewer_rows_than_promised_is_named(lake: SmallLake) -> None:
    lake.add(numbered([0, 1]))
    lake.add(numbered([2]))
    two, one = sorted(lake.data_files(), key=lambda path: -path.stat().st_size)
    two.write_bytes(one.read_bytes())
    report = run(lake)
    assert any(two.name in problem and "has 1 rows, but the snapshot says 2" in problem for problem in report.problems)


@pytest.mark.parametrize("suffix", ["m0.avro", "snap-*.avro", "*.metadata.json"])
def test_lost_metadata_is_a_problem(lake: SmallLake, suffix: str) -> None:
    lake.add(numbered([0, 1]))
    lake.add([Row(2, 1)], "quotes")
    pattern = suffix if "*" in suffix else f"*{suffix}"
    for path in Path(str(lake.config.warehouse)).rglob(f"trades_v2/metadata/{pattern}"):
        path.unlink()
    report = run(lake)
    assert any("market_data.trades_v2" in problem for problem in report.problems)
    assert [row.symbol for row in report.symbols if row.kind == "quotes"] == ["BTC"]


def test_rows_appended_again_are_duplicates(lake: SmallLake) -> None:
    lake.add(numbered(range(5)))
    lake.add(numbered([1, 2]))
    report = run(lake)
    row = only_source(report)
    assert (row.received, row.duplicate, row.missing) == (5, 2, 0)
    assert report.problems == (f"source {SOURCE} partition 0: 2 extra rows: in trades_v2 2 offsets (1-2)",)


def test_an_offset_twice_in_one_file_is_a_duplicate(lake: SmallLake) -> None:
    lake.add(numbered([0, 1, 1, 1, 2]))
    assert only_source(run(lake)).duplicate == 2


def test_an_offset_in_two_event_tables_is_a_duplicate(lake: SmallLake) -> None:
    lake.add(numbered([0, 1]))
    lake.add([Row(1, 1)], "quotes")
    report = run(lake)
    assert only_source(report).duplicate == 1
    assert any("in more than one event table 1 offset (1)" in problem for problem in report.problems)


def test_an_event_outranks_a_dead_letter(lake: SmallLake) -> None:
    lake.add(numbered([0, 1, 2]))
    lake.bury(1)
    lake.bury(2, 4)
    report = run(lake)
    row = only_source(report)
    assert report.ok
    assert (row.received, row.dead, row.duplicate, row.last) == (3, 2, 0, 4)


def test_a_dead_letter_twice_is_a_duplicate(lake: SmallLake) -> None:
    lake.add(numbered([0]))
    lake.bury(1)
    lake.bury(1, 3)
    report = run(lake)
    assert (only_source(report).dead, only_source(report).duplicate) == (3, 1)
    assert any("in dead_letters 1 offset (1)" in problem for problem in report.problems)


def test_coverage_that_claims_too_much_fails(lake: SmallLake) -> None:
    lake.add(numbered([0, 1]))
    lake.cover("trades_v2", [2, 3])
    report = run(lake)
    assert (report.tables[0].coverage_without_rows, report.tables[0].rows_without_coverage) == (2, 0)
    assert any("2 offsets (2-3)" in problem and "covered but have no row" in problem for problem in report.problems)


def test_coverage_that_claims_too_little_fails(lake: SmallLake) -> None:
    lake.add(numbered([0]))
    lake.add(numbered([1, 2]), cover=False)
    report = run(lake)
    assert (report.tables[0].coverage_without_rows, report.tables[0].rows_without_coverage) == (0, 2)
    assert any("2 offsets (1-2)" in problem and "not covered" in problem for problem in report.problems)


@pytest.mark.parametrize("name", [f"k2.coverage.0.{SOURCE}", f"k2.expected.0.{SOURCE}"])
def test_a_damaged_property_is_a_problem(lake: SmallLake, name: str) -> None:
    lake.add(numbered([0]))
    lake.set_property("trades_v2", {name: "x"})
    assert any(name in problem for problem in run(lake).problems)


def test_nothing_at_all_does_not_pass(lake: SmallLake) -> None:
    report = run(lake)
    assert [NAMESPACE in problem for problem in report.problems] == [True]


def test_symbols_count_epochs_and_gaps_of_the_exchange_are_no_failure(lake: SmallLake) -> None:
    later = START + 7_200_000_000
    rows = [Row(0, 100), Row(1, 103), Row(2, 103), Row(3, 1, time=later), Row(4, 2, time=later + 1), Row(5, None)]
    lake.add(rows)
    report = run(lake)
    (row,) = report.symbols
    assert (row.expected, row.received, row.missing, row.duplicate, row.unsequenced) == (6, 4, 2, 1, 1)
    assert report.ok
    assert [(gap.first_missing, gap.last_missing) for gap in read_ledger(lake.table(SEQUENCE_GAPS))] == [(101, 102)]


def test_a_stale_ledger_is_mended_or_fails(lake: SmallLake) -> None:
    lake.add([Row(0, 10), Row(1, 12)])
    refused = run(lake, mend=False)
    assert (refused.ok, refused.ledger.stale, refused.ledger.mended) == (False, 1, 0)
    assert ["sequence_gaps" in problem for problem in refused.problems] == [True]
    assert find_table(lake.catalog, NAMESPACE, SEQUENCE_GAPS) is None
    mended = run(lake)
    assert (mended.ok, mended.ledger.stale, mended.ledger.mended) == (True, 1, 1)
    clean = run(lake, mend=False)
    assert (clean.ok, clean.ledger.unfilled, clean.ledger.recounted, clean.ledger.stale) == (True, 1, 1, 0)


def full(lake: SmallLake, *, mend: bool = True) -> AuditReport:
    return audit(lake.catalog, NAMESPACE, mend=mend, full=True)


def test_remembered_days_are_believed_unless_the_audit_is_full(lake: SmallLake) -> None:
    lake.add([Row(0, 10), Row(1, 12)])
    assert run(lake).days == DaysFinding(remembered=0, read=1, wrong=0)
    assert find_table(lake.catalog, NAMESPACE, CERTIFIED_DAYS) is None, "an audit remembers nothing"
    reconcile(lake.catalog, NAMESPACE)
    lake.add([Row(2, 12, exchange="ASX")])
    plain, whole = run(lake), full(lake, mend=False)
    assert (plain.days, whole.days) == (DaysFinding(1, 1, 0), DaysFinding(0, 2, 0))
    assert replace(plain, days=whole.days) == whole
    assert (plain.ok, len(plain.symbols)) == (True, 2)


def remember_wrongly(lake: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of the one day misses its last message."""
    with monkeypatch.context() as patched:
        real = recount_module.read_ahead

        def short(*args: Any) -> Iterator[tuple[Any, Any]]:
            for task, rows in real(*args):
                batches = [batch.slice(0, batch.num_rows - 1) for batch in rows()]
                yield task, lambda kept=batches: kept

        patched.setattr(recount_module, "read_ahead", short)
        reconcile(lake.catalog, NAMESPACE)


def test_a_day_that_is_remembered_wrongly_is_found_by_the_full_audit(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.add([Row(0, 10), Row(1, 12), Row(2, 14)])
    remember_wrongly(lake, monkeypatch)
    assert (run(lake).ok, run(lake).ledger.unfilled) == (True, 1), "what it believes is wrong"
    told = "certified_days: what was remembered of the trades of BINANCE on 2023-11-14 is not what its rows say"
    refused = full(lake, mend=False)
    assert [problem for problem in refused.problems if told in problem] != []
    assert (refused.days.wrong, refused.ledger.recounted) == (1, 2)
    mended = full(lake)
    assert (mended.ok, mended.days.wrong, mended.notes) == (True, 1, (f"{told}; it is put right",))
    assert (full(lake).days.wrong, run(lake).ledger.unfilled) == (0, 2)


def test_an_audit_that_may_write_nothing_passes(lake: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.add([Row(0, 10), Row(1, 12)])
    reconcile(lake.catalog, NAMESPACE)
    lake.add([Row(2, 13)])

    def commit_table(*_: object, **__: object) -> None:
        pytest.fail("nothing may be written")

    monkeypatch.setattr(type(lake.catalog), "commit_table", commit_table)
    files = sorted(Path(str(lake.config.warehouse)).rglob("*"))
    assert (run(lake, mend=False).days, full(lake, mend=False).days) == (DaysFinding(0, 1, 0), DaysFinding(0, 1, 0))
    assert run(lake).ok
    assert sorted(Path(str(lake.config.warehouse)).rglob("*")) == files


def test_days_that_cannot_be_looked_up_are_a_note_and_are_read(lake: SmallLake) -> None:
    lake.add([Row(0, 10), Row(1, 12)])
    reconcile(lake.catalog, NAMESPACE)
    (victim,) = lake.data_files(CERTIFIED_DAYS)
    victim.unlink()
    report = run(lake)
    assert (report.ok, report.days, [victim.name in note for note in report.notes]) == (
        True,
        DaysFinding(0, 1, 0),
        [True],
    )


def test_a_lost_data_file_is_found_though_its_day_is_remembered(lake: SmallLake) -> None:
    lake.add(numbered([0, 1]))
    reconcile(lake.catalog, NAMESPACE)
    victim = lake.data_files()[0]
    victim.unlink()
    report = run(lake)
    assert (report.days, [victim.name in problem for problem in report.problems].count(True)) == (
        DaysFinding(1, 0, 0),
        1,
    )
    assert not report.ledger.checked


def test_deleted_rows_are_not_there(lake: SmallLake) -> None:
    lake.add(numbered(range(3)))
    lake.table("trades_v2").append(event_table("trades", numbered([3])))
    lake.table("trades_v2").delete(EqualTo("_offset", 3))
    assert run(lake).ok


OFFSETS = st.lists(st.integers(0, 300) | st.integers(1 << 40, (1 << 40) + 50), max_size=80)


@settings(max_examples=100, deadline=None)
@given(st.lists(OFFSETS, max_size=4), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 40)), max_size=4))
def test_offsets_are_counted_as_a_naive_count_does(files: list[list[int]], dead_letters: list[tuple[int, int]]) -> None:
    count, naive = OffsetCount(), []
    for offsets in files:
        count.add(KEY, np.array(offsets, dtype=np.int64))
        naive += offsets
    for first, length in dead_letters:
        count.add_range(KEY, first, first + length)
        naive += range(first, first + length + 1)
    assert set(count.offsets[KEY]) == set(naive)
    assert count.surplus[KEY] == len(naive) - len(set(naive))
    assert set(count.doubled[KEY]) == {offset for offset in naive if naive.count(offset) > 1}


@settings(max_examples=200, deadline=None)
@given(st.sets(st.integers(0, 60) | st.integers((1 << 33) - 5, (1 << 33) + 5)), st.integers(1, 6))
def test_ranges_are_the_maximal_runs(offsets: set[int], limit: int) -> None:
    firsts = sorted(offset for offset in offsets if offset - 1 not in offsets)
    lasts = sorted(offset for offset in offsets if offset + 1 not in offsets)
    assert list(itertools.islice(runs(BitMap64(offsets)), limit)) == list(zip(firsts, lasts, strict=True))[:limit]


def command(lake: SmallLake, *arguments: str) -> Result:
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)
    return CliRunner().invoke(app, ["audit", "--warehouse", str(lake.config.warehouse), *arguments])


def test_the_command_prints_a_report_and_exits_by_the_verdict(lake: SmallLake, tmp_path: Path) -> None:
    lake.add([Row(0, 10), Row(1, 13)])
    good = command(lake)
    assert good.exit_code == 0
    assert "PASSED: all 2 expected offsets" in good.stdout
    assert "with an unverified end: 1;" in good.stdout
    bad = command(lake, "--source", str(archive(tmp_path / "a.avro", range(3))))
    assert bad.exit_code == 1
    assert f"Problem: source {SOURCE} partition 0: 1 of 3 offsets are missing: 2\n" in bad.stdout
    assert "FAILED: 1 problem.\n" in bad.stdout


def test_the_command_gives_json_jsonl_and_csv(lake: SmallLake) -> None:
    lake.add(numbered([0, 2]))
    for form in ("json", "jsonl"):
        result = command(lake, "--output", form)
        assert (result.exit_code, json.loads(result.stdout)["sources"][0]["missing_ranges"]) == (1, [[1, 1]])
    header, row = command(lake, "--output", "csv").stdout.splitlines()
    assert header.startswith("source,partition,first,last,end,")
    assert row.startswith(f"{SOURCE},0,0,2,unverified,3,2,0,1,0,")


def test_the_command_without_mending_fails_on_a_stale_ledger(lake: SmallLake) -> None:
    lake.add([Row(0, 10), Row(1, 12)])
    assert [command(lake, *options).exit_code for options in (["--no-mend"], [], ["--no-mend"])] == [1, 0, 0]


def test_the_command_says_how_many_days_it_believed(lake: SmallLake) -> None:
    lake.add([Row(0, 10), Row(1, 12)])
    reconcile(lake.catalog, NAMESPACE)
    assert "Days recounted: 1 as they are remembered, 0 from their rows\n" in command(lake).stdout
    assert "Days recounted: 0 as they are remembered, 1 from their rows\n" in command(lake, "--full").stdout
    days = json.loads(command(lake, "--full", "--output", "json").stdout)["days"]
    assert days == {"remembered": 0, "read": 1, "wrong": 0}


def test_the_command_refuses_wrong_usage(lake: SmallLake, tmp_path: Path) -> None:
    lake.add(numbered([0]))
    assert command(lake, "--source", str(tmp_path / "nowhere")).exit_code == 2
    assert command(SmallLake(tmp_path / "other"), "--catalog", "x").exit_code == 2
    absent = SmallLake.__new__(SmallLake)
    absent.config = LakeConfig(warehouse=str(tmp_path / "absent"))
    assert command(absent).exit_code == 2
    assert not (tmp_path / "absent").exists()


def test_the_command_says_how_many_rows_are_copies_by_their_number(lake: SmallLake) -> None:
    lake.add([Row(0, 10), Row(1, 11), Row(2, 11)])
    assert "Copies: 1 rows have a number that another row of their symbol has;" in command(lake).stdout
