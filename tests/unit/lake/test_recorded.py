"""The recorded first offsets, of which the lowest stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from k2beam.audit.audit import audit
from k2beam.config import NAMESPACE
from k2beam.coverage import SourcePartition
from k2beam.errors import LakeError
from k2beam.lake import recorded
from k2beam.lake.catalog import open_catalog
from k2beam.lake.recorded import read_first_offsets, record_first_offsets
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
