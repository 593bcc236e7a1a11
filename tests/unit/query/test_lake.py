"""A lake as of one moment, its events in batches, and the rest of what Python asks of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.errors import UsageError
from k2beam.query import slices
from k2beam.query.lake import Lake
from tests.query_fixtures import (
    append_dead_letters,
    append_events,
    append_gap_rows,
    dead_letter,
    gap,
    make_catalog,
    quote,
    trade,
)


def answers(lake: Lake) -> list[Any]:
    counted, _ = [list(part) for part in lake.sql("SELECT count(*) AS n FROM trades")]
    return [
        lake.trades().num_rows,
        lake.quotes().num_rows,
        sum(batch.num_rows for batch in lake.batches("trades")),
        lake.bars("1d")["trades"].to_pylist(),
        lake.asof().num_rows,
        lake.summary("BTCUSDT", "2026-01-05").trades,
        [one.gap_id for one in lake.gaps()],
        len(counted),
    ]


def test_a_lake_of_one_moment_stays_as_it_was(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    append_events(catalog, "trades", [trade(0, 1), trade(1, 2)])
    append_events(catalog, "quotes", [quote(0, 1)])
    append_gap_rows(catalog, [gap("a", 5, 6)])
    lake = Lake(str(tmp_path))
    pinned = lake.at()
    was = answers(lake)
    assert was[:7] == [2, 1, 2, [2], 2, 2, ["a"]]
    append_events(catalog, "trades", [trade(2, 3)])
    append_events(catalog, "quotes", [quote(2, 3)])
    append_gap_rows(catalog, [gap("a", 5, 6, "FILLED", 1), gap("b", 8, 8)])
    assert answers(pinned) == was
    assert answers(lake)[:7] == [3, 2, 3, [3], 3, 3, ["b"]]
    assert lake.at(pinned.snapshots().ids["trades_v2"]).trades().num_rows == 2
    assert pinned.trades(as_of="2020-01-01").num_rows == 0
    assert lake.at("2020-01-01").gaps() == []


def test_gaps_dead_letters_and_paths(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    lake = Lake(str(tmp_path))
    with pytest.raises(UsageError, match="there is no table sequence_gaps; the tables are trades_v2, "):
        lake.path("sequence_gaps")
    append_gap_rows(catalog, [gap("a", 5, 6), gap("b", 1, 2, symbol="X"), gap("c", 1, 2, kind="quotes")])
    append_dead_letters(catalog, [dead_letter(9), dead_letter(3, error_class="tombstone")])
    assert [one.gap_id for one in lake.gaps(["X", "Y"])] == ["b"]
    assert [one.gap_id for one in lake.gaps("BTCUSDT", kind="quotes")] == ["c"]
    assert [letter["offset"] for letter in lake.dead_letters()] == [3, 9]
    assert [letter["offset"] for letter in lake.dead_letters("tombstone")] == [3]
    assert Path(lake.path("sequence_gaps").removeprefix("file://")).is_file()


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(-50, 200), st.integers(0, 60)), min_size=1, max_size=8), max_size=6),
    st.booleans(),
)
def test_batches_are_the_events_in_their_order(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[tuple[int, int]]], with_duplicates: bool
) -> None:
    folder = tmp_path_factory.mktemp("lake")
    catalog, offset = make_catalog(folder), 0
    for rows in files:
        append_events(
            catalog,
            "trades",
            [trade(offset + n, second, source_sequence=number) for n, (second, number) in enumerate(rows)],
        )
        offset += len(rows)
    lake = Lake(str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "ROWS_OF_A_SLICE", 3)
        batches = list(lake.batches("trades", columns=["timestamp", "_offset"], with_duplicates=with_duplicates))
    whole = lake.trades(columns=["timestamp", "_offset"], with_duplicates=with_duplicates)
    assert pa.Table.from_batches(batches, whole.schema).equals(whole.combine_chunks())


def test_slices_hold_about_as_many_rows_as_they_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = make_catalog(tmp_path)
    for place in range(10):
        append_events(catalog, "trades", [trade(place * 10 + n, place * 100 + n * 12) for n in range(10)])
    monkeypatch.setattr(slices, "ROWS_OF_A_SLICE", 20)
    sizes = [batch.num_rows for batch in Lake(str(tmp_path)).batches("trades")]
    assert len(sizes) == 5
    assert max(sizes) <= 24
