"""The ledger of gaps and the dead letters, as they are read."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.catalog import Catalog

from k2beam.config import NAMESPACE
from k2beam.coverage import Coverage
from k2beam.errors import LakeError, UsageError
from k2beam.lake import ledger
from k2beam.lake.ledger import current_gaps, read_ledger, read_revisions
from k2beam.lake.tables import GAP_SCHEMA, open_table
from k2beam.model import Gap
from k2beam.query.dead_letters import list_dead_letters, show_dead_letter
from k2beam.query.gaps import list_gaps
from k2beam.query.selections import DEAD_LETTER_COLUMNS, DeadLetterSelection, GapSelection
from tests.query_fixtures import (
    DAY,
    SECOND,
    SOURCE,
    append_dead_letters,
    append_events,
    append_gap_rows,
    dead_letter,
    gap,
    make_catalog,
    quote,
    trade,
)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    catalog = make_catalog(tmp_path_factory.mktemp("lake"))
    append_gap_rows(
        catalog,
        [gap("c", 50, 70), gap("a", 1, 9), gap("b", 20, 20), gap("e", 5, 5, symbol="ETHUSDT", kind="quotes")],
    )
    append_gap_rows(catalog, [gap("a", 1, 4, "PARTIAL", 1), gap("d", 7, 9, "PARTIAL", 0)])
    append_gap_rows(catalog, [gap("b", 20, 20, "FILLED", 1), gap("x", 1, 1, exchange="ASX")])
    append_events(catalog, "trades", [trade(3, 1), trade(30, 1), trade(31, 1)])
    append_events(catalog, "quotes", [quote(32, 1), quote(4, 1, _partition=1)])
    append_dead_letters(
        catalog, [dead_letter(9), dead_letter(3), dead_letter(4), dead_letter(2, stage="frame", error_class="BadMagic")]
    )
    append_dead_letters(
        catalog,
        [
            dead_letter(30, _offset_last=32, error_class="BrokenBlock", payload=b"\x01"),
            dead_letter(32, _offset_last=33, error_class="BrokenBlock"),
            dead_letter(40, _offset_last=42, error_class="BrokenBlock", payload=None, record_json='{"price": "1.10"}'),
            dead_letter(1, _source="archive:aa"),
        ],
    )
    return catalog


def shown(catalog: Catalog, **options: Any) -> list[tuple[str, int]]:
    return [(row["gap_id"], row["revision"]) for row in list_gaps(catalog, NAMESPACE, GapSelection(**options))]


def test_the_ledger_gives_the_highest_revision_of_each_gap(catalog: Catalog) -> None:
    ledger = read_ledger(open_table(catalog, NAMESPACE, "sequence_gaps"))
    assert [(gap.gap_id, gap.revision) for gap in ledger] == [
        ("x", 0),
        ("a", 1),
        ("d", 0),
        ("b", 1),
        ("c", 0),
        ("e", 0),
    ]
    assert ledger[1] == Gap("BINANCE", "BTCUSDT", "trades", 0, 1, 4, "PARTIAL", DAY, "a", 1, DAY + SECOND)
    assert [gap.gap_id for gap in current_gaps(catalog, NAMESPACE)] == ["x", "a", "d", "c", "e"]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=12, unique=True),
    cuts=st.lists(st.integers(0, 12), max_size=3),
)
def test_the_order_and_files_of_the_rows_do_not_matter(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[str, int]], cuts: list[int]
) -> None:
    table = pa.Table.from_pylist([gap(name, revision, 10, revision=revision) for name, revision in rows], GAP_SCHEMA)
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    files = [table.slice(first, last - first) for first, last in itertools.pairwise(edges)]
    monkeypatch.setattr(ledger, "plan_files", lambda *_: files)
    monkeypatch.setattr(ledger, "read_file", lambda _table, task, columns, _filter: task.select(columns).to_batches())
    found = read_ledger(open_table(catalog, NAMESPACE, "sequence_gaps"))
    newest = {name: max(revision for other, revision in rows if other == name) for name, _ in rows}
    assert {gap.gap_id: gap.revision for gap in found} == newest
    assert all(gap.first_missing == gap.revision for gap in found)


def test_gaps_shown_are_those_not_filled(catalog: Catalog) -> None:
    assert shown(catalog) == [("x", 0), ("a", 1), ("d", 0), ("c", 0), ("e", 0)]
    assert shown(catalog, filled=True) == [("x", 0), ("a", 1), ("d", 0), ("b", 1), ("c", 0), ("e", 0)]
    assert shown(catalog, history=True, exchange="BINANCE", kind="trades") == [
        ("a", 0),
        ("a", 1),
        ("d", 0),
        ("b", 0),
        ("b", 1),
        ("c", 0),
    ]
    assert shown(catalog, symbol="ETHUSDT") == [("e", 0)]
    assert shown(catalog, kind="quotes") == [("e", 0)]
    assert shown(catalog, exchange="ASX") == [("x", 0)]


def test_a_gap_has_all_columns_of_the_ledger(catalog: Catalog) -> None:
    (row,) = [row for row in list_gaps(catalog, NAMESPACE, GapSelection()) if row["gap_id"] == "c"]
    assert list(row) == GAP_SCHEMA.names
    assert (row["missing_count"], row["severity"], row["opened_at"].isoformat()) == (
        21,
        "LARGE",
        "2026-01-05T00:00:00+00:00",
    )


def test_without_a_ledger_there_are_no_gaps(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    assert current_gaps(catalog, NAMESPACE) == []
    assert list(list_gaps(catalog, NAMESPACE, GapSelection(history=True))) == []
    assert list(read_revisions(open_table(catalog, NAMESPACE, "sequence_gaps"))) == []


def listed(catalog: Catalog, **options: Any) -> list[tuple[str, int, int]]:
    return [tuple(row[:3]) for row in list_dead_letters(catalog, NAMESPACE, DeadLetterSelection(**options))]


def test_a_letter_whose_offsets_are_events_is_hidden(catalog: Catalog) -> None:
    # 3 is a trade, 30 to 32 are trades and a quote; of 32 to 33 one is missing; 4 is an event of another partition.
    assert listed(catalog) == [
        ("archive:aa", 0, 1),
        (SOURCE, 0, 2),
        (SOURCE, 0, 4),
        (SOURCE, 0, 9),
        (SOURCE, 0, 32),
        (SOURCE, 0, 40),
    ]


def test_letters_are_selected_and_limited_after_hiding(catalog: Catalog) -> None:
    assert listed(catalog, error_class="BadMagic") == [(SOURCE, 0, 2)]
    assert listed(catalog, stage="frame") == [(SOURCE, 0, 2)]
    assert listed(catalog, source="archive:aa") == [("archive:aa", 0, 1)]
    assert listed(catalog, source=SOURCE, limit=3) == [(SOURCE, 0, 2), (SOURCE, 0, 4), (SOURCE, 0, 9)]
    assert listed(catalog, limit=0) == []
    assert listed(catalog, source="' OR 1=1 --") == []


def test_a_listed_letter(catalog: Catalog) -> None:
    (row,) = list_dead_letters(catalog, NAMESPACE, DeadLetterSelection(source="archive:aa"))
    listed_dead_letter = dict(zip(DEAD_LETTER_COLUMNS, row, strict=True))
    assert listed_dead_letter.pop("failed_at").isoformat() == "2026-01-05T00:00:01+00:00"
    assert listed_dead_letter == {
        "source": "archive:aa",
        "partition": 0,
        "offset": 1,
        "offset_last": 1,
        "stage": "decode",
        "error_class": "Truncated",
        "message": "offset 1 ends early",
    }


def test_a_letter_is_shown_whole(catalog: Catalog) -> None:
    dead_letter_ = show_dead_letter(catalog, NAMESPACE, SOURCE, 0, 9)
    assert dead_letter_["payload"] == {"hex": "0000000007ff", "base64": "AAAAAAf/"}
    assert dead_letter_["payload_bytes"] == 6
    assert dead_letter_["key"] == {"hex": b"BTCUSDT".hex(), "base64": "QlRDVVNEVA=="}
    assert dead_letter_["headers"] == [
        {"key": "k2.path", "value": {"hex": b"a.avro".hex(), "base64": "YS5hdnJv"}},
        {"key": "empty", "value": None},
    ]
    assert (dead_letter_["schema_id"], dead_letter_["stage"], dead_letter_["resolved"]) == (7, "decode", False)
    assert dead_letter_["timestamp"].isoformat() == "2026-01-05T00:00:00+00:00"
    assert dead_letter_["record_json"] is None


def test_a_letter_of_several_offsets_is_found_by_each(catalog: Catalog) -> None:
    for offset in (40, 41, 42):
        found = show_dead_letter(catalog, NAMESPACE, SOURCE, 0, offset)
        assert (found["offset"], found["offset_last"], found["payload"]) == (40, 42, None)
        assert found["record_json"] == '{"price": "1.10"}'
    assert show_dead_letter(catalog, NAMESPACE, SOURCE, 0, 31)["resolved"] is True


def test_a_letter_that_is_not_there_is_a_usage_error(catalog: Catalog, tmp_path: Path) -> None:
    for partition, offset in ((0, 43), (1, 9)):
        with pytest.raises(UsageError, match=f"no dead letter at offset {offset} of partition {partition}"):
            show_dead_letter(catalog, NAMESPACE, SOURCE, partition, offset)
    empty = make_catalog(tmp_path)
    assert list_dead_letters(empty, NAMESPACE, DeadLetterSelection()) == []
    with pytest.raises(UsageError, match="dlq list"):
        show_dead_letter(empty, NAMESPACE, SOURCE, 0, 9)


def test_a_damaged_coverage_is_an_error(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    append_dead_letters(catalog, [dead_letter(9)])
    table = append_events(catalog, "trades", [trade(3, 1)])
    name = next(iter(Coverage.from_properties(table.properties).to_properties()))
    with table.transaction() as transaction:
        transaction.set_properties({name: "broken"})
    with pytest.raises(LakeError, match="is damaged"):
        list_dead_letters(catalog, NAMESPACE, DeadLetterSelection())
