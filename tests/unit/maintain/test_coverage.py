"""The coverage made anew from the rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyiceberg.exceptions import CommitStateUnknownException
from pyiceberg.table import Table

from k2beam.config import NAMESPACE
from k2beam.coverage import PROPERTY_PREFIX, Coverage
from k2beam.errors import LakeError, UnreadableFile
from k2beam.lake.commit import read_coverage
from k2beam.lake.lean import LeanSqlCatalog
from k2beam.maintain import coverage as module
from k2beam.maintain.coverage import CoverageChange, rebuild_coverage
from tests.audit_helpers import SOURCE, Row, SmallLake
from tests.lake_helpers import QUICK
from tests.maintain_helpers import TABLE, KeptLake


def numbered(offsets: range) -> list[Row]:
    return [Row(offset, offset) for offset in offsets]


@pytest.fixture
def lake(tmp_path: Path) -> SmallLake:
    lake = SmallLake(tmp_path)
    lake.add(numbered(range(10)))
    return lake


def run(lake: SmallLake | KeptLake, *, apply: bool = False, name: str = TABLE) -> list[CoverageChange]:
    return rebuild_coverage(lake.catalog, NAMESPACE, [name], apply=apply, policy=QUICK)


def covered(lake: SmallLake) -> list[int]:
    return list(read_coverage(lake.catalog, NAMESPACE, [TABLE])[SOURCE, 0])


def test_a_right_coverage_is_left_as_it_is(lake: SmallLake) -> None:
    location = lake.table(TABLE).metadata_location
    assert run(lake, apply=True) == []
    assert lake.table(TABLE).metadata_location == location


def test_what_differs_is_said_and_mended_when_told_to(lake: SmallLake) -> None:
    lake.cover(TABLE, range(100, 105))
    lake.add(numbered(range(20, 22)), cover=False)
    change = CoverageChange(TABLE, SOURCE, 0, without_rows=5, without_coverage=2, damaged=False)
    assert run(lake) == [change]
    assert covered(lake) == [*range(10), *range(100, 105)]
    assert run(lake, apply=True) == [change]
    assert covered(lake) == [*range(10), 20, 21]
    assert run(lake) == []


def test_a_damaged_property_is_replaced(lake: SmallLake) -> None:
    lake.set_property(TABLE, {f"{PROPERTY_PREFIX}0.{SOURCE}": "!", f"{PROPERTY_PREFIX}0.nowhere": "!"})
    lake.set_property(TABLE, {f"{PROPERTY_PREFIX}x.y": "!"})
    found = run(lake, apply=True)
    assert [(change.source, change.partition, change.without_coverage, change.damaged) for change in found] == [
        (SOURCE, 0, 10, True),
        (f"{PROPERTY_PREFIX}x.y", -1, 0, True),
        ("nowhere", 0, 0, True),
    ]
    assert covered(lake) == list(range(10))
    assert [name for name in lake.table(TABLE).properties if name.startswith(PROPERTY_PREFIX)] == [
        f"{PROPERTY_PREFIX}0.{SOURCE}"
    ]


def test_a_source_without_rows_is_no_longer_covered(lake: SmallLake) -> None:
    lake.cover(TABLE, [1, 2], source="archive:gone")
    run(lake, apply=True)
    assert list(read_coverage(lake.catalog, NAMESPACE, [TABLE])) == [(SOURCE, 0)]


def test_ranges_of_dead_letters_count(lake: SmallLake) -> None:
    lake.bury(50, 60)
    assert run(lake, name="dead_letters") == []
    lake.cover("dead_letters", [70])
    assert [change.without_rows for change in run(lake, name="dead_letters", apply=True)] == [1]
    assert list(read_coverage(lake.catalog, NAMESPACE, ["dead_letters"])[SOURCE, 0]) == list(range(50, 61))


def test_what_is_committed_in_between_stays_covered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = KeptLake(tmp_path)
    lake.commit(3)
    with lake.table().transaction() as transaction:
        transaction.set_properties(Coverage.from_bytes({("archive:a", 0): _bytes(range(1, 9))}).to_properties())
    real = module.count_offsets

    def counted(*args: object) -> object:
        count = real(*args)  # type: ignore[arg-type]
        lake.rows = 20
        lake.commit(2)
        return count

    monkeypatch.setattr(module, "count_offsets", counted)
    (change,) = run(lake, apply=True)
    assert (change.without_rows, change.without_coverage) == (6, 1)
    assert list(read_coverage(lake.catalog, NAMESPACE, [TABLE])["archive:a", 0]) == [0, 1, 2, 20, 21]


def _bytes(offsets: range) -> bytes:
    coverage = Coverage()
    coverage.add_many("archive:a", 0, offsets)
    return coverage.to_bytes()["archive:a", 0]


def test_a_lost_file_stops_it(lake: SmallLake) -> None:
    lake.cover(TABLE, [99])
    lake.data_files()[0].unlink()
    with pytest.raises(UnreadableFile, match="is gone"):
        run(lake, apply=True)
    assert 99 in covered(lake)


def test_event_tables_share_coverage_and_are_rebuilt_together(lake: SmallLake) -> None:
    lake.add(numbered(range(30, 33)), "quotes")
    lake.cover(TABLE, range(30, 33))
    assert run(lake) == []
    lake.table("quotes_v2").delete("_offset = 31")
    gone = [CoverageChange(name, SOURCE, 0, 1, 0, damaged=False) for name in (TABLE, "quotes_v2")]
    assert run(lake, apply=True) == gone
    assert covered(lake) == [*range(10), 30, 32]
    assert list(read_coverage(lake.catalog, NAMESPACE)[SOURCE, 0]) == [*range(10), 30, 32]


def test_dead_letters_share_nothing(lake: SmallLake) -> None:
    lake.bury(50)
    lake.cover("dead_letters", range(5))
    lake.cover(TABLE, [50])
    assert run(lake) == [CoverageChange(TABLE, SOURCE, 0, 1, 0, damaged=False)]
    assert run(lake, name="dead_letters") == [CoverageChange("dead_letters", SOURCE, 0, 5, 0, damaged=False)]


def test_a_rebuild_whose_answer_was_lost_does_not_drop_what_was_taken_again(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.cover(TABLE, [77])
    real, lost = LeanSqlCatalog.commit_table, [True]

    def unanswered(self: LeanSqlCatalog, *arguments: object) -> object:
        response = real(self, *arguments)  # type: ignore[arg-type]
        if lost and lost.pop():
            lake.add([Row(77, 77)])
            raise CommitStateUnknownException("504")
        return response

    monkeypatch.setattr(LeanSqlCatalog, "commit_table", unanswered)
    assert [change.without_rows for change in run(lake, apply=True)] == [1]
    assert covered(lake) == [*range(10), 77]


def test_of_two_rebuilds_at_once_one_gives_up(lake: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.cover(TABLE, [77])
    real, calls = module.count_offsets, []

    def counted(*arguments: object) -> object:
        count = real(*arguments)  # type: ignore[arg-type]
        calls.append(arguments)
        if len(calls) == 1:
            run(lake, apply=True)
            lake.add([Row(77, 77)])
        return count

    monkeypatch.setattr(module, "count_offsets", counted)
    with pytest.raises(LakeError, match="was rebuilt by another process meanwhile"):
        run(lake, apply=True)
    assert covered(lake) == [*range(10), 77]


def test_what_another_table_covers_wrongly_is_not_taken_over_meanwhile(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.add(numbered(range(30, 33)), "quotes")
    lake.cover("quotes_v2", [77])
    real = module.count_offsets

    def counted(table: Table, name: str, stop: object) -> object:
        count = real(table, name, stop)  # type: ignore[arg-type]
        lake.cover(TABLE, [77])
        return count

    monkeypatch.setattr(module, "count_offsets", counted)
    run(lake, apply=True)
    assert covered(lake) == list(range(10))
    assert 77 not in read_coverage(lake.catalog, NAMESPACE)[SOURCE, 0]
