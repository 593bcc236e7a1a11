"""Recorded legal holes: they add up, and an event table covers them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from pyroaring import BitMap64

from k2beam.audit import audit as audit_module
from k2beam.audit.audit import audit
from k2beam.config import NAMESPACE, Retention
from k2beam.coverage import Coverage, SourcePartition, run_bounds
from k2beam.errors import UnreadableFile
from k2beam.lake import holes as holes_module
from k2beam.lake.commit import commit_files, read_coverage
from k2beam.lake.holes import cover_holes, read_holes, record_holes
from k2beam.lake.lean import LeanSqlCatalog
from k2beam.lake.tables import DEAD_LETTERS, EVENT_TABLES, LEGAL_HOLES
from k2beam.maintain.coverage import rebuild_coverage
from tests.audit_helpers import SOURCE, Row, SmallLake
from tests.lake_helpers import QUICK, offsets_in, stage

A, B = SourcePartition("kafka:c/t.with.dots/1", 0), SourcePartition("kafka:c/t/1", 12)
KEY = SourcePartition(SOURCE, 0)
TRADES, QUOTES = EVENT_TABLES["trades"], EVENT_TABLES["quotes"]


def holes_of(*offsets: int, key: SourcePartition = A) -> Coverage:
    return Coverage({key: BitMap64(offsets)})


@pytest.fixture
def lake(tmp_path: Path) -> SmallLake:
    return SmallLake(tmp_path)


def record(lake: SmallLake, holes: Coverage, *, log_compacted: bool = False, **how: Any) -> None:
    record_holes(lake.catalog, NAMESPACE, holes, log_compacted=log_compacted, **how)


def record_and_cover(lake: SmallLake, holes: Coverage, **how: Any) -> None:
    record(lake, holes, **how)
    cover_holes(lake.catalog, NAMESPACE, holes, **how)


def covered(lake: SmallLake, name: str) -> list[int]:
    return list(read_coverage(lake.catalog, NAMESPACE, [name])[KEY])


@given(st.sets(st.integers(0, 70_000) | st.integers(2**40, 2**40 + 99)))
def test_runs_and_their_bounds_are_the_bitmap(offsets: set[int]) -> None:
    firsts, lasts = run_bounds(BitMap64(offsets))
    assert firsts.tolist() == sorted(offset for offset in offsets if offset - 1 not in offsets)
    assert lasts.tolist() == sorted(offset for offset in offsets if offset + 1 not in offsets)
    again = Coverage()
    again.add_ranges(*A, firsts, lasts)
    assert again[A] == BitMap64(offsets)


def test_holes_add_up_and_are_not_written_twice(lake: SmallLake) -> None:
    record(lake, Coverage())
    assert read_holes(lake.catalog, NAMESPACE) == Coverage()
    for holes in (holes_of(3, 4), holes_of(4, 9), holes_of(7, key=B)):
        record(lake, holes)
    assert read_holes(lake.catalog, NAMESPACE) == holes_of(3, 4, 9) | holes_of(7, key=B)
    before = lake.table(LEGAL_HOLES).metadata_location
    record(lake, holes_of(4))
    assert lake.table(LEGAL_HOLES).metadata_location == before
    columns = ("_source", "_partition", "_offset", "_offset_last")
    rows = [tuple(row[name] for name in columns) for row in lake.table(LEGAL_HOLES).scan().to_arrow().to_pylist()]
    assert sorted(rows) == [(*A, 3, 4), (*A, 9, 9), (*B, 7, 7)]


def test_only_what_is_asked_for_is_given(lake: SmallLake) -> None:
    record(lake, holes_of(*range(3, 9), 20) | holes_of(5, key=B))
    assert read_holes(lake.catalog, NAMESPACE, holes_of(1, 5, 6, 30)) == holes_of(5, 6)
    assert read_holes(lake.catalog, NAMESPACE, holes_of(20) | holes_of(1, key=B)) == holes_of(20)
    assert read_holes(lake.catalog, NAMESPACE, Coverage()) == Coverage()


def test_a_file_of_other_offsets_is_not_read(lake: SmallLake) -> None:
    record(lake, holes_of(3))
    (far,) = lake.data_files(LEGAL_HOLES)
    record(lake, holes_of(2_000))
    record(lake, holes_of(2_000, key=B))
    far.unlink()
    assert read_holes(lake.catalog, NAMESPACE, holes_of(1_999, 2_000)) == holes_of(2_000)


def test_those_of_compacted_logs_are_not_final(lake: SmallLake) -> None:
    record(lake, holes_of(3), log_compacted=True)
    record(lake, holes_of(3, 4))
    assert read_holes(lake.catalog, NAMESPACE) == holes_of(3, 4)
    assert read_holes(lake.catalog, NAMESPACE, log_compacted=False) == holes_of(4)
    assert read_holes(lake.catalog, NAMESPACE, holes_of(3), log_compacted=False) == Coverage()
    assert read_holes(lake.catalog, NAMESPACE, log_compacted=True) == holes_of(3)


def test_many_are_written_as_several_files_in_one_commit(lake: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holes_module, "FILE_ROWS", 3)
    holes = holes_of(*range(0, 14, 2)) | holes_of(*range(0, 4, 2), key=B)
    record(lake, holes)
    assert read_holes(lake.catalog, NAMESPACE) == holes
    assert sorted(pq.read_metadata(file).num_rows for file in lake.data_files(LEGAL_HOLES)) == [3, 3, 3]
    assert len(lake.table(LEGAL_HOLES).snapshots()) == 1


@pytest.mark.parametrize("error", [CommitFailedException, CommitStateUnknownException])
def test_a_commit_whose_answer_is_lost_writes_them_once(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    record(lake, holes_of(1))
    commit, lost = LeanSqlCatalog.commit_table, iter([True])

    def losing(*arguments: object) -> object:
        done = commit(*arguments)  # type: ignore[arg-type]
        if next(lost, False):
            raise error("the answer is lost")
        return done

    monkeypatch.setattr(LeanSqlCatalog, "commit_table", losing)
    record(lake, holes_of(1, 5), policy=QUICK)
    assert read_holes(lake.catalog, NAMESPACE) == holes_of(1, 5)
    assert lake.table(LEGAL_HOLES).scan().to_arrow().num_rows == 2
    assert next(lost, None) is None


def test_an_event_table_covers_them_and_few_ranges_are_left(lake: SmallLake) -> None:
    markers = holes_of(*random.Random(7).sample(range(1, 99_999), 9_000), key=KEY)
    events = BitMap64(range(100_000)) - markers[KEY]
    lake.add([Row(0, 0)], cover=False)
    lake.cover(TRADES, events)
    before = largest_property(lake)
    record(lake, markers)
    cover_holes(lake.catalog, NAMESPACE, markers)
    assert covered(lake, TRADES) == list(range(100_000))
    assert largest_property(lake) < 200
    assert before > 5_000
    location = lake.table(TRADES).metadata_location
    cover_holes(lake.catalog, NAMESPACE, markers)
    assert lake.table(TRADES).metadata_location == location


def largest_property(lake: SmallLake) -> int:
    return max(map(len, lake.table(TRADES).properties.values()))


def test_the_table_that_covers_most_takes_them_and_one_that_covers_nothing_does_not(lake: SmallLake) -> None:
    lake.add([Row(0, 0), Row(1, 1)])
    lake.add([Row(n, n) for n in (2, 4, 5)], kind="quotes")
    cover_holes(lake.catalog, NAMESPACE, holes_of(3, key=KEY) | holes_of(8, key=B))
    assert covered(lake, TRADES) == [0, 1]
    assert covered(lake, QUOTES) == [2, 3, 4, 5]
    assert not read_coverage(lake.catalog, NAMESPACE)[B]


def test_what_is_covered_stays_right_for_the_audit_and_a_rebuild(lake: SmallLake) -> None:
    lake.add([Row(n, n) for n in (0, 1, 4, 6)])
    holes = holes_of(2, 3, 5, key=KEY)
    assert audit(lake.catalog, NAMESPACE).problems, "a loss, as far as it knows"
    cover_holes(lake.catalog, NAMESPACE, holes)
    assert any("3 offsets (2-3, 5)" in problem and "no row" in problem for problem in audit_problems(lake))
    record(lake, holes)
    assert audit_problems(lake) == ()
    assert rebuild_coverage(lake.catalog, NAMESPACE, [TRADES], apply=True) == []
    lake.cover(TRADES, range(9, 10))
    (change,) = rebuild_coverage(lake.catalog, NAMESPACE, [TRADES], apply=True)
    assert (change.without_rows, change.without_coverage) == (1, 0)
    assert covered(lake, TRADES) == list(range(7))


def audit_problems(lake: SmallLake) -> tuple[str, ...]:
    return audit(lake.catalog, NAMESPACE).problems


def test_dead_letters_may_not_cover_them(lake: SmallLake) -> None:
    lake.add([Row(n, n) for n in (0, 1)])
    record(lake, holes_of(2, key=KEY))
    lake.cover(DEAD_LETTERS, range(2, 3))
    assert any(DEAD_LETTERS in problem and "no row" in problem for problem in audit_problems(lake))


def test_a_message_at_a_hole_that_is_not_covered_is_taken(lake: SmallLake, tmp_path: Path) -> None:
    """A compacted log has lost it; an archive has it."""
    (key,) = stage(tmp_path, range(1)).coverage
    record(lake, holes_of(1, key=SourcePartition(*key)), log_compacted=True)
    commit_files(lake.catalog, NAMESPACE, TRADES, [stage(tmp_path, range(3))], run_id="r", policy=QUICK)
    assert offsets_in(tmp_path) == [0, 1, 2]
    assert audit_problems(lake) == ()


def test_old_snapshots_go_by_the_retention(lake: SmallLake) -> None:
    lake.add([Row(0, 0), Row(90, 90)])
    for number in range(1, 9):
        record_and_cover(lake, holes_of(number, key=KEY), retention=Retention(3))
    assert len(lake.table(LEGAL_HOLES).snapshots()) == 3
    assert len(lake.table(TRADES).snapshots()) == 3
    assert list(read_holes(lake.catalog, NAMESPACE)[KEY]) == list(range(1, 9))


def test_what_is_recorded_and_covered_while_the_audit_counts_is_known_to_it(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.add([Row(n, n) for n in (0, 1, 4)])
    holes = holes_of(2, 3, key=KEY)
    count = audit_module.count_offsets

    def meanwhile(*arguments: Any) -> Any:
        record_and_cover(lake, holes)
        lake.add([Row(5, 5)])
        return count(*arguments)

    monkeypatch.setattr(audit_module, "count_offsets", meanwhile)
    assert audit_problems(lake) == ()


def test_what_is_covered_before_the_audit_reads_the_holes_is_among_them(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.add([Row(n, n) for n in (0, 1, 4)])
    holes = holes_of(2, 3, key=KEY)
    claimed = audit_module._claimed

    def just_before(*arguments: Any) -> Any:
        record_and_cover(lake, holes)
        return claimed(lake.table(TRADES), *arguments[1:])

    monkeypatch.setattr(audit_module, "_claimed", just_before)
    assert audit_problems(lake) == ()


def test_a_lost_file_is_told_by_reader_audit_and_rebuild_and_the_others_are_read(lake: SmallLake) -> None:
    lake.add([Row(0, 0), Row(2, 2), Row(4, 4)])
    record(lake, holes_of(1, key=KEY))
    (file,) = lake.data_files(LEGAL_HOLES)
    record(lake, holes_of(3, key=KEY))
    cover_holes(lake.catalog, NAMESPACE, holes_of(1, 3, key=KEY))
    file.unlink()
    with pytest.raises(UnreadableFile, match=LEGAL_HOLES):
        read_holes(lake.catalog, NAMESPACE)
    with pytest.raises(UnreadableFile, match=LEGAL_HOLES):
        rebuild_coverage(lake.catalog, NAMESPACE, [TRADES], apply=True)
    problems = audit_problems(lake)
    assert any(LEGAL_HOLES in problem and "is gone" in problem for problem in problems)
    (rowless,) = (problem for problem in problems if "no row" in problem)
    assert "1 offset (1) of" in rowless
    assert rowless.endswith("bring the files back that can't be read, and audit again")


def test_a_million_holes_are_written_and_read_in_one_piece(lake: SmallLake) -> None:
    many = Coverage({A: BitMap64(np.arange(0, 20_000_000, 20, dtype=np.uint64))})
    record(lake, many)
    assert read_holes(lake.catalog, NAMESPACE) == many
