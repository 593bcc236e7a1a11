"""Lines to columns of text: encoding, quotes and the number of columns. Each line is judged alone.

Lines end with a line feed, or carriage return and line feed. A quoted column can't go on over a line end: such
lines are refused one by one, since otherwise a lost quote would swallow the rest of the file. Quotes are those of RFC
4180 (doubled within quotes). The error classes of stage ``read`` that arise here: ``bad_encoding``, ``blank_line``,
``bad_quoting``, ``column_count``.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2beam.arrays import Ints, mask_of
from k2beam.model import Stage


class LineFault(NamedTuple):
    """A line (by its place among those given) that gave no event, and why."""

    row: int
    stage: Stage
    error_class: str
    message: str


class LineColumns(NamedTuple):
    """The columns of the good lines, spaces around their text removed, and the place of each line."""

    texts: tuple[pa.StringArray, ...]
    rows: Ints
    faults: tuple[LineFault, ...]


def split_lines(data: bytes) -> list[bytes]:
    """The lines of ``data`` without their line feeds; a last line need not have one."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def read_columns(lines: Sequence[bytes], number: int, delimiter: str, encoding: str) -> LineColumns:
    """Take lines (without line feeds) apart into ``number`` columns each."""
    faults: list[LineFault] = []
    texts, rows = _decode(lines, encoding, faults)
    texts, rows = _without_blank(texts, rows, faults)
    quoted = mask_of(pc.match_substring(texts, '"'))
    parts = pc.split_pattern(texts.filter(pa.array(~quoted)), delimiter)
    good, flat = _of_length(parts, rows[~quoted], number, faults)
    if quoted.any():
        some, more = _quoted(texts.filter(pa.array(quoted)), rows[quoted], number, delimiter, faults)
        flat = pa.concat_arrays([flat, pa.array(more, pa.string())])
        good = np.concatenate([good, some])
    order = np.argsort(good, kind="stable")
    columns = (flat.take(pa.array(order * number + place)) for place in range(number))
    return LineColumns(tuple(pc.utf8_trim_whitespace(column) for column in columns), good[order], tuple(faults))


def header_columns(line: bytes, delimiter: str, encoding: str) -> list[str] | None:
    """The names in a header line; None where it can't be taken apart."""
    try:
        return [name.strip() for name in _take_apart(line.decode(encoding).rstrip("\r"), delimiter)]
    except (UnicodeDecodeError, csv.Error):
        return None


def _decode(lines: Sequence[bytes], encoding: str, faults: list[LineFault]) -> tuple[pa.StringArray, Ints]:
    rows = np.arange(len(lines), dtype=np.int64)
    if encoding == "utf-8":
        try:
            return pc.utf8_rtrim(pa.array(lines, pa.binary()).cast(pa.string()), "\r"), rows
        except pa.ArrowInvalid:
            pass  # one of them is not UTF-8: below it's found out which
    texts: list[str] = []
    good: list[int] = []
    for row, line in enumerate(lines):
        try:
            texts.append(line.decode(encoding).rstrip("\r"))
            good.append(row)
        except UnicodeDecodeError as error:
            faults.append(LineFault(row, "read", "bad_encoding", f"byte {error.start} is not {encoding}"))
    return pa.array(texts, pa.string()), np.array(good, dtype=np.int64)


def _without_blank(texts: pa.StringArray, rows: Ints, faults: list[LineFault]) -> tuple[pa.StringArray, Ints]:
    blank = mask_of(pc.equal(pc.binary_length(pc.utf8_trim_whitespace(texts)), 0))
    if not blank.any():
        return texts, rows
    faults.extend(LineFault(row, "read", "blank_line", "the line is empty") for row in rows[blank].tolist())
    return texts.filter(pa.array(~blank)), rows[~blank]


def _of_length(parts: pa.ListArray, rows: Ints, number: int, faults: list[LineFault]) -> tuple[Ints, pa.StringArray]:
    """The rows that have ``number`` columns, and these, row after row."""
    lengths = np.asarray(pc.list_value_length(parts).to_numpy(zero_copy_only=False))
    right = lengths == number
    if right.all():
        return rows, parts.flatten()
    wrong = zip(rows[~right].tolist(), lengths[~right].tolist(), strict=True)
    faults.extend(_count_fault(row, int(found), number) for row, found in wrong)
    return rows[right], parts.filter(pa.array(right)).flatten()


def _quoted(
    texts: pa.StringArray, rows: Ints, number: int, delimiter: str, faults: list[LineFault]
) -> tuple[Ints, list[str]]:
    good: list[int] = []
    flat: list[str] = []
    for row, text in zip(rows.tolist(), texts.to_pylist(), strict=True):
        try:
            found = _take_apart(text, delimiter)
        except csv.Error as error:
            message = f"the quotes do not match, or a quoted column goes on over the line's end ({error})"
            faults.append(LineFault(row, "read", "bad_quoting", message))
            continue
        if len(found) != number:
            faults.append(_count_fault(row, len(found), number))
            continue
        good.append(row)
        flat.extend(found)
    return np.array(good, dtype=np.int64), flat


def _take_apart(text: str, delimiter: str) -> list[str]:
    if not _well_quoted(delimiter).fullmatch(text):
        raise csv.Error("a quote that opens or closes no column")
    return next(csv.reader([text], delimiter=delimiter, strict=True), [])


@functools.cache
def _well_quoted(delimiter: str) -> re.Pattern[str]:
    """RFC 4180: a column is in quotes as a whole, or has none. The csv module passes the second half of a torn one."""
    column = rf'(?:"[^"]*(?:""[^"]*)*"|[^"{re.escape(delimiter)}]*)'
    return re.compile(f"{column}(?:{re.escape(delimiter)}{column})*")


def _count_fault(row: int, found: int, number: int) -> LineFault:
    return LineFault(row, "read", "column_count", f"{found} columns where {number} belong")
