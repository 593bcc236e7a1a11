"""Copies of a message are found, and taken out by id and by the number of the exchange."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.query import copies, duck
from k2beam.query.copies import may_have_copies
from k2beam.query.events import answer, in_order
from k2beam.query.lake import Lake
from k2beam.schemas import event_arrow_schema
from k2beam.sequence import SequenceRules
from k2beam.sequence.rules import NO_RULES
from tests.query_fixtures import DAY, SECOND, append_events, each_once, make_catalog, rows_of, stored_in_memory, trade

HOUR = 3_600
DAILY = SequenceRules.parse('[[rule]]\nexchange = "BINANCE"\nrestart = "daily"', "here")
UNSEQUENCED = SequenceRules.parse('[[rule]]\nexchange = "BINANCE"\nunsequenced = true', "here")


def found(rows: list[dict[str, Any]], rules: SequenceRules = NO_RULES) -> bool:
    with duck.session() as session:
        session.register_table("events", rows_of("trades", rows))
        return may_have_copies(session, "events", event_arrow_schema("trades"), len(rows), "trades", rules)


def offsets(rows: list[dict[str, Any]], rules: SequenceRules = NO_RULES) -> list[int]:
    """The offsets of the rows that are left, in order."""
    stored = stored_in_memory("trades", rows, rules)
    sql = f"SELECT _offset FROM events ORDER BY {in_order('trades')}"
    batches = answer({"events": stored}, lambda session: session.stream(sql))
    return [offset for batch in batches for offset in batch.column("_offset").to_pylist()]


def test_rows_that_differ_in_id_and_number_are_no_copies() -> None:
    assert not found([])
    assert not found([trade(number, number) for number in range(100)])
    assert not found([trade(1, 1), trade(2, 2, symbol="ETHUSDT", source_sequence=1)])
    assert not found([trade(1, 1), trade(2, 2, exchange="ASX", source_sequence=1)])
    assert not found([trade(number, 1, source_sequence=None, message_id="") for number in range(3)])
    assert not found([trade(number, 1, source_sequence=-4) for number in range(3)])


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 16, 35, 36, 300])
def test_ids_of_any_length_are_told_apart(length: int) -> None:
    ids = ["a" * length, "b" + "a" * (length - 1), "a" * (length - 1) + "b", "ü" + "a" * length]
    rows = [trade(number, number, message_id=name) for number, name in enumerate(dict.fromkeys(ids))]
    assert not found(rows)
    assert found([*rows, trade(9, 9, message_id=ids[2])])


def test_one_number_twice_is_found_unless_a_rule_tells_the_rows_apart() -> None:
    rows = [trade(1, 1), trade(2, 2), trade(3, 24 * HOUR, source_sequence=1)]
    assert found(rows)
    assert not found(rows, DAILY)
    assert not found(rows, UNSEQUENCED)
    assert found([*rows, trade(4, 24 * HOUR + 1, source_sequence=1)], DAILY)


def test_more_rows_than_are_held_are_looked_at_in_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "MOST_HASHED_ROWS", 4)
    rows = [trade(number, number) for number in range(15)]
    assert not found(rows)
    for place in range(15):
        assert found([*rows, trade(99, 99, message_id=f"m{place}")])
        assert found([*rows, trade(99, 99, source_sequence=place)])


def test_of_one_number_the_row_that_was_ingested_first_stays() -> None:
    live, filler = trade(7, 1.2, "100.5"), trade(0, 1, "100", message_id="vendor-7", source_sequence=7, _source="csv:a")
    later = {"_ingested_at": DAY + 9 * SECOND}
    assert offsets([live, {**filler, **later}]) == [7]
    assert offsets([{**live, **later}, filler]) == [0]
    assert offsets([live, {**filler, **later}], UNSEQUENCED) == [0, 7]


def test_one_number_in_two_epochs_is_two_events() -> None:
    before = [trade(number, number) for number in range(1, 11)]
    after = [trade(100 + number, 2 * HOUR + number, source_sequence=number) for number in range(1, 11)]
    assert offsets([*before, *after]) == [*range(1, 11), *range(101, 111)]
    twins = [trade(500, 3.5, source_sequence=3), trade(501, 2 * HOUR + 7.5, source_sequence=7)]
    assert offsets([*before, *after, *twins]) == [*range(1, 11), *range(101, 111)]
    assert offsets([trade(1, 1), trade(3, 24 * HOUR, source_sequence=1)], DAILY) == [1, 3]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.integers(0, 5),
            st.none() | st.integers(-1, 4),
            st.sampled_from(["", "x", "y", "z"]),
        ),
        max_size=14,
    )
)
def test_each_event_is_there_once(given_rows: list[tuple[str, int, int | None, str]]) -> None:
    rows = [
        trade(offset, second, symbol=symbol, source_sequence=number, message_id=name, _ingested_at=DAY + offset)
        for offset, (symbol, second, number, name) in enumerate(given_rows)
    ]
    assert sorted(offsets(rows)) == sorted(row["_offset"] for row in each_once(rows))


def test_a_backfill_that_repeats_rows_changes_no_answer(tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path)
    append_events(catalog, "trades", [trade(number, number) for number in range(10) if number != 4])
    vendor = [
        trade(number, number + 0.001, message_id=f"v{number}", _source="csv:dump", _ingested_at=DAY + HOUR * SECOND)
        for number in range(3, 7)
    ]
    append_events(catalog, "trades", vendor)
    rows = Lake(str(tmp_path)).trades(columns=["source_sequence", "_source"]).to_pylist()
    assert [row["source_sequence"] for row in rows] == list(range(10))
    assert [row["source_sequence"] for row in rows if row["_source"] == "csv:dump"] == [4]
    assert Lake(str(tmp_path)).trades(with_duplicates=True).num_rows == 13
