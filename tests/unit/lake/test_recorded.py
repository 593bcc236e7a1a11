"""The recorded first offsets, of which the lowest stays, and legal holes, which add up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from k2beam.audit.audit import audit
from k2beam.config import NAMESPACE
from k2beam.coverage import Coverage, SourcePartition
from k2beam.errors import LakeError
from k2beam.lake import recorded
from k2beam.lake.catalog import open_catalog
from k2beam.lake.recorded import HOLES_PREFIX, read_first_offsets, read_holes, record_first_offsets, record_holes
from k2beam.lake.tables import DEAD_LETTERS, open_table
from tests.lake_helpers import QUICK, lake_config

A, B = SourcePartition("kafka:c/t.with.dots/1", 0), SourcePartition("kafka:c/t/1", 12)


def test_the_first_writer_wins_and_a_lower_offset_over_it(tmp_path: Path) -> None:
    catalog = open_catalog(lake_config(tmp_path))
    assert read_first_offsets(catalog, NAMESPACE) == {}
    record_first_offsets(catalog, NAMESPACE, {A: 5, B: 0})
    record_first_offsets(catalog, NAMESPACE, {A: 7, B: 3})
    assert read_first_offsets(catalog, NAMESPACE) == {A: 5, B: 0}
    record_first_offsets(catalog, NAMESPACE, {A: 4})
    assert read_first_offsets(catalog, NAMESPACE) == {A: 4, B: 0}
    assert audit(catalog, NAMESPACE).ok


def test_what_is_recorded_already_makes_no_snapshot(tmp_path: Path) -> None:
    catalog = open_catalog(lake_config(tmp_path))
    record_first_offsets(catalog, NAMESPACE, {A: 5})
    before = open_table(catalog, NAMESPACE, DEAD_LETTERS).metadata_location
    record_first_offsets(catalog, NAMESPACE, {A: 5})
    record_first_offsets(catalog, NAMESPACE, {A: 6})
    record_first_offsets(catalog, NAMESPACE, {})
    assert open_table(catalog, NAMESPACE, DEAD_LETTERS).metadata_location == before


def test_of_two_jobs_at_once_the_lower_offset_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = open_catalog(lake_config(tmp_path))
    opened: list[Table] = []

    def overtaken(*place: Any) -> Table:
        """The table as it was before another job recorded its offsets."""
        opened.append(open_table(*place))
        if len(opened) == 1:
            monkeypatch.setattr(recorded, "open_table", open_table)
            record_first_offsets(catalog, NAMESPACE, {A: 3, B: 3})
            monkeypatch.setattr(recorded, "open_table", overtaken)
        return opened[-1]

    monkeypatch.setattr(recorded, "open_table", overtaken)
    record_first_offsets(catalog, NAMESPACE, {A: 5, B: 1}, QUICK)
    assert read_first_offsets(catalog, NAMESPACE) == {A: 3, B: 1}
    assert len(opened) == 2


def test_a_damaged_offset_is_an_error(tmp_path: Path) -> None:
    catalog: Catalog = open_catalog(lake_config(tmp_path))
    record_first_offsets(catalog, NAMESPACE, {A: 5})
    with open_table(catalog, NAMESPACE, DEAD_LETTERS).transaction() as change:
        change.set_properties({f"k2.first.0.{A.source}": "five"})
    with pytest.raises(LakeError, match=r"k2\.first\.0\.kafka:c/t\.with\.dots/1='five' is damaged: a first offset"):
        read_first_offsets(catalog, NAMESPACE)


def holes_of(*offsets: int, key: SourcePartition = A) -> Coverage:
    coverage = Coverage()
    coverage.add_many(*key, offsets)
    return coverage


def test_holes_add_up_and_are_no_snapshot_twice(tmp_path: Path) -> None:
    catalog = open_catalog(lake_config(tmp_path))
    record_holes(catalog, NAMESPACE, Coverage())
    assert read_holes(catalog, NAMESPACE) == Coverage()
    for holes in (holes_of(3, 4), holes_of(4, 9), holes_of(7, key=B)):
        record_holes(catalog, NAMESPACE, holes)
    assert read_holes(catalog, NAMESPACE) == holes_of(3, 4, 9) | holes_of(7, key=B)
    before = open_table(catalog, NAMESPACE, DEAD_LETTERS).metadata_location
    record_holes(catalog, NAMESPACE, holes_of(4))
    assert open_table(catalog, NAMESPACE, DEAD_LETTERS).metadata_location == before
    assert audit(catalog, NAMESPACE).ok


def test_holes_without_end_are_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "MOST_HOLES", 60)
    catalog = open_catalog(lake_config(tmp_path))
    record_holes(catalog, NAMESPACE, holes_of(1) | holes_of(*(n * n for n in range(1, 99)), key=B))
    assert read_holes(catalog, NAMESPACE) == holes_of(1)


def test_damaged_holes_are_told_by_reader_and_audit(tmp_path: Path) -> None:
    catalog = open_catalog(lake_config(tmp_path))
    record_holes(catalog, NAMESPACE, holes_of(1))
    with open_table(catalog, NAMESPACE, DEAD_LETTERS).transaction() as transaction:
        transaction.set_properties({f"{HOLES_PREFIX}0.x": "!"})
    with pytest.raises(LakeError, match=r"k2\.holes\.0\.x"):
        read_holes(catalog, NAMESPACE)
    assert any("k2.holes.0.x" in problem for problem in audit(catalog, NAMESPACE).problems)
