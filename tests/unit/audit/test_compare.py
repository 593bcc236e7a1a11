"""The comparison of two lakes: what counts, what does not, and what is shown of a difference."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from k2beam.audit.compare import CompareReport, TableComparison, compare, row_hashes
from k2beam.cli.audit import register
from k2beam.config import NAMESPACE
from k2beam.jsonable import jsonable
from k2beam.lake.ledger import current_gaps
from k2beam.lake.tables import DEAD_LETTER_SCHEMA, DEAD_LETTERS, GAP_SCHEMA, SEQUENCE_GAPS
from k2beam.model import TIMESTAMP, Gap
from tests.audit_helpers import SOURCE, START, Row, SmallLake
from tests.lake_helpers import trades


@pytest.fixture
def lakes(tmp_path: Path) -> tuple[SmallLake, SmallLake]:
    return SmallLake(tmp_path / "this"), SmallLake(tmp_path / "other")


def compared(lakes: tuple[SmallLake, SmallLake]) -> CompareReport:
    return compare(lakes[0].catalog, lakes[1].catalog, NAMESPACE)


def table(report: CompareReport, name: str = "trades_v2") -> TableComparison:
    return next(found for found in report.tables if found.table == name)


def numbered(*offsets: int) -> list[Row]:
    return [Row(offset, 100 + offset) for offset in offsets]


def bury(lake: SmallLake, offset: int, **changes: Any) -> None:
    """Append one dead letter; its offset is covered."""
    values = {
        "_source": SOURCE,
        "_partition": 0,
        "_offset": offset,
        "_offset_last": offset,
        "headers": [{"key": "a", "value": b"b"}],
        "stage": "decode",
        "error_class": "truncated",
        "error_message": "too short",
        "payload": b"\x00\xff",
        "failed_at": START,
        **changes,
    }
    arrays = [pa.array([values.get(field.name)], type=field.type) for field in DEAD_LETTER_SCHEMA]
    lake.table(DEAD_LETTERS).append(pa.table(arrays, schema=DEAD_LETTER_SCHEMA))
    lake.cover(DEAD_LETTERS, [offset])


def log_gap(lake: SmallLake, gap: Gap) -> None:
    """Append one revision to the ledger."""
    row = {name: getattr(gap, name) for name in GAP_SCHEMA.names}
    arrays = [pa.array([row[field.name]], type=field.type) for field in GAP_SCHEMA]
    lake.table(SEQUENCE_GAPS).append(pa.table(arrays, schema=GAP_SCHEMA))


GAP = Gap("BINANCE", "BTC", "trades", 0, 5, 9, "OPEN", START, "g1", 0, START)


def test_order_files_and_the_time_of_writing_do_not_count(lakes: tuple[SmallLake, SmallLake]) -> None:
    this, other = lakes
    this.add(numbered(0, 1, 2))
    other.add(numbered(2))
    other.add(numbered(1, 0))
    bury(this, 7)
    bury(other, 7, failed_at=START + 1)
    report = compared(lakes)
    assert report.same
    assert [(found.table, found.rows, found.other_rows) for found in report.tables] == [
        ("trades_v2", 3, 3),
        ("quotes_v2", 0, 0),
        ("reference_data_v2", 0, 0),
        ("dead_letters", 1, 1),
        ("sequence_gaps", 0, 0),
    ]
    assert all(found.digest == found.other_digest and not found.examples for found in report.tables)


def test_a_row_in_one_only_is_shown_with_its_side(lakes: tuple[SmallLake, SmallLake]) -> None:
    this, other = lakes
    this.add(numbered(0, 1))
    other.add(numbered(0, 2))
    report = compared(lakes)
    found = table(report)
    assert not report.same
    assert (found.rows, found.other_rows) == (2, 2)
    assert [(row.only_in, row.count, row.row["_offset"]) for row in found.examples] == [("this", 1, 1), ("other", 1, 2)]
    assert "_ingested_at" not in found.examples[0].row


def test_a_row_that_is_there_twice_counts_twice(lakes: tuple[SmallLake, SmallLake]) -> None:
    this, other = lakes
    this.add(numbered(0, 1))
    other.add(numbered(0, 1, 1, 1))
    (example,) = table(compared(lakes)).examples
    assert (example.only_in, example.count, example.row["_offset"]) == ("other", 2, 1)


def test_a_changed_value_is_a_difference(lakes: tuple[SmallLake, SmallLake]) -> None:
    this, other = lakes
    this.add([Row(0, 1)])
    other.add([Row(0, 2)])
    assert len(table(compared(lakes)).examples) == 2


def test_of_many_differences_ten_are_shown(lakes: tuple[SmallLake, SmallLake]) -> None:
    this, other = lakes
    this.add(numbered(*range(60)))
    other.add(numbered(0))
    found = table(compared(lakes))
    assert len(found.examples) == 10
    assert len({example.row["_offset"] for example in found.examples} - {0}) == 10


def test_a_dead_letter_differs_by_its_payload(lakes: tuple[SmallLake, SmallLake]) -> None:
    bury(lakes[0], 7)
    bury(lakes[1], 7, payload=b"\x00")
    found = compared(lakes)
    assert {row.row["payload"] for row in table(found, DEAD_LETTERS).examples} == {"AP8=", "AA=="}
    (printed,) = [one for one in jsonable(found.to_dict())["tables"] if one["table"] == DEAD_LETTERS]
    assert {one["row"]["payload"] for one in printed["examples"]} == {"AP8=", "AA=="}


def test_where_an_unknown_schema_was_looked_for_does_not_count(lakes: tuple[SmallLake, SmallLake]) -> None:
    bury(lakes[0], 7, error_class="unknown_schema_id", error_message="not in the registry")
    bury(lakes[1], 7, error_class="unknown_schema_id", error_message="not in the archive")
    assert compared(lakes).same
    bury(lakes[0], 8, error_message="one")
    bury(lakes[1], 8, error_message="another")
    assert not compared(lakes).same


def test_a_dead_letter_whose_offset_is_an_event_does_not_count(lakes: tuple[SmallLake, SmallLake]) -> None:
    this, other = lakes
    this.add(numbered(7))
    other.add(numbered(7))
    bury(this, 7)
    report = compared(lakes)
    assert report.same
    assert table(report, DEAD_LETTERS).rows == 0


def test_gaps_count_by_what_is_missing_now(lakes: tuple[SmallLake, SmallLake]) -> None:
    this, other = lakes
    log_gap(this, replace(GAP, last_missing=20))
    log_gap(this, replace(GAP, revision=1, status="PARTIAL", detected_at=START + 5))
    log_gap(this, replace(GAP, gap_id="g2", first_missing=30, last_missing=31, status="FILLED"))
    log_gap(other, GAP)
    assert len(current_gaps(this.catalog, NAMESPACE)) == 1
    assert compared(lakes).same
    log_gap(other, replace(GAP, gap_id="g3", first_missing=40, last_missing=41))
    (example,) = table(compared(lakes), SEQUENCE_GAPS).examples
    assert (example.only_in, example.row["first_missing"]) == ("other", 40)


TEXT = st.none() | st.text(alphabet="a1:-\x00é", max_size=4)
ROW = st.tuples(TEXT, TEXT, st.none() | st.integers(0, 11))


def batch(rows: list[tuple[str | None, str | None, int | None]]) -> pa.RecordBatch:
    types = (pa.string(), pa.string(), pa.int64())
    columns = [pa.array([row[index] for row in rows], type=kind) for index, kind in enumerate(types)]
    return pa.RecordBatch.from_arrays(columns, names=["a", "b", "c"])


@settings(max_examples=200)
@given(st.lists(ROW, max_size=8))
def test_rows_have_one_hash_exactly_when_they_are_equal(rows: list[tuple[str | None, str | None, int | None]]) -> None:
    hashes = row_hashes(batch(rows))
    assert len(hashes) == len(rows)
    assert len(set(hashes)) == len(set(rows))
    assert hashes == [row_hashes(batch([row]))[0] for row in rows]


@pytest.mark.parametrize(
    ("left", "right", "kind", "equal"),
    [
        ([("a", "1"), ("b", "2")], [("b", "2"), ("a", "1")], pa.map_(pa.string(), pa.string()), True),
        ([("a", "1")], [("a", "2")], pa.map_(pa.string(), pa.string()), False),
        (["a", "b"], ["b", "a"], pa.list_(pa.string()), False),
        ([], None, pa.list_(pa.string()), False),
        (b"", None, pa.binary(), False),
        (Decimal("1.50000000"), Decimal("1.50000001"), pa.decimal128(18, 8), False),
        (1, 2, TIMESTAMP, False),
    ],
)
def test_what_makes_values_equal(left: object, right: object, kind: pa.DataType, equal: bool) -> None:
    one, two = (
        row_hashes(pa.RecordBatch.from_arrays([pa.array([value], type=kind)], names=["a"])) for value in (left, right)
    )
    assert (one == two) is equal


def test_a_slice_of_rows_with_lists_and_maps_has_their_hashes() -> None:
    rows = trades(range(5))
    maps = [[("b", "1"), ("a", "2")], None, [], [("c", None)], [("a", "2"), ("b", "1")]]
    batch = pa.RecordBatch.from_arrays(
        [rows.column("trade_conditions"), pa.array(maps, pa.map_(pa.string(), pa.string()))], names=["a", "b"]
    )
    hashes = row_hashes(batch)
    assert hashes == [row_hashes(batch.slice(row, 1))[0] for row in range(5)]
    assert (hashes[0], len(set(hashes))) == (hashes[4], 4)


def audit_command(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    done = CliRunner().invoke(app, ["audit", *arguments])
    return done.exit_code, done.stdout


def test_the_audit_compares_and_exits_with_1_on_a_difference(lakes: tuple[SmallLake, SmallLake]) -> None:
    this, other = lakes
    for lake in lakes:
        lake.add([Row(0, 1), Row(1, 2)])
    options = ["--warehouse", str(this.config.warehouse), "--compare", str(other.config.warehouse)]
    code, text = audit_command(*options)
    assert (code, "SAME: 2 rows" in text) == (0, True)
    other.add([Row(2, 3)])
    code, text = audit_command(*options, "--output", "json")
    report = json.loads(text)
    assert (code, report["ok"], report["compare"]["same"]) == (1, True, False)
    trades = report["compare"]["tables"][0]
    assert (trades["same"], trades["rows"], trades["other_rows"]) == (False, 2, 3)
    assert (trades["examples"][0]["only_in"], trades["examples"][0]["row"]["_offset"]) == ("other", 2)
    code, text = audit_command(*options)
    assert (code, "DIFFERENT: trades_v2." in text, "Only in other" in text) == (1, True, True)


def test_another_warehouse_that_is_not_there_is_wrong_usage(lakes: tuple[SmallLake, SmallLake], tmp_path: Path) -> None:
    code, _ = audit_command("--warehouse", str(lakes[0].config.warehouse), "--compare", str(tmp_path / "none"))
    assert code == 2
