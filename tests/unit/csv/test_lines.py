"""Lines to columns: quotes, encodings, and which lines are refused."""

from __future__ import annotations

import csv
import io

from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.csv.lines import read_columns, split_lines

CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(CELL, CELL, CELL), max_size=12), st.sampled_from(["\n", "\r\n"]), st.sampled_from([",", "\t"])
)
def test_what_the_csv_module_writes_is_read_back(rows: list[tuple[str, str, str]], end: str, delimiter: str) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=end, delimiter=delimiter).writerows(rows)

    found = read_columns(split_lines(out.getvalue().encode()), 3, delimiter, "utf-8")

    texts = list(zip(*(column.to_pylist() for column in found.texts), strict=True))
    blank = [row for row, cells in enumerate(rows) if not delimiter.join(cells).strip()]
    assert [fault.row for fault in found.faults if fault.error_class == "blank_line"] == [
        row for row in blank if row not in found.rows.tolist()
    ]
    assert texts == [tuple(cell.strip() for cell in rows[row]) for row in found.rows.tolist()]
    assert sorted([*found.rows.tolist(), *(fault.row for fault in found.faults)]) == list(range(len(rows)))


def test_each_bad_line_is_told_apart_and_the_others_stay_in_order() -> None:
    lines = [
        b"1,2",
        b"\xff,2",
        b'"3","4 ""x"""',
        b"",
        b'"5,6',
        b"7",
        b'"a"b,c',
        b"8, 9 \r",
        b'x"y,z',
        b"x,z",
        b'"1","2","3"',
    ]

    found = read_columns(lines, 2, ",", "utf-8")

    assert [column.to_pylist() for column in found.texts] == [["1", "3", "8", "x"], ["2", '4 "x"', "9", "z"]]
    assert found.rows.tolist() == [0, 2, 7, 9]
    assert sorted((fault.row, fault.error_class) for fault in found.faults) == [
        (1, "bad_encoding"),
        (3, "blank_line"),
        (4, "bad_quoting"),
        (5, "column_count"),
        (6, "bad_quoting"),
        (8, "bad_quoting"),
        (10, "column_count"),
    ]


def test_a_quoted_line_end_refuses_both_halves_and_nothing_else() -> None:
    found = read_columns(split_lines(b'1,2\n"a\nb",3\n4,5\n'), 2, ",", "utf-8")

    assert found.rows.tolist() == [0, 3]
    assert {fault.row for fault in found.faults} == {1, 2}


def test_another_encoding() -> None:
    found = read_columns(["é,1".encode("iso-8859-1")], 2, ",", "iso-8859-1")
    assert found.texts[0].to_pylist() == ["é"]


def test_empty_columns_at_the_end_of_a_line_with_tabs_are_kept() -> None:
    found = read_columns([b"1\t\t\r", b"\t2\t"], 3, "\t", "utf-8")
    assert [column.to_pylist() for column in found.texts] == [["1", ""], ["", "2"], ["", ""]]


def test_quotes_before_a_carriage_return() -> None:
    found = read_columns([b'"1","2"\r'], 2, ",", "utf-8")
    assert [column.to_pylist() for column in found.texts] == [["1"], ["2"]]


def test_no_lines() -> None:
    assert split_lines(b"") == []
    assert read_columns([], 2, ",", "utf-8").rows.tolist() == []
