"""The shape of what commands print to standard output, where data goes and nothing else.

Values have the forms of :mod:`k2beam.jsonable`, in every format.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, TextIO

import typer

from k2beam.jsonable import jsonable

_PAGE = 1_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class OutputFormat(StrEnum):
    """How a command prints its data."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


OutputOption = Annotated[OutputFormat, typer.Option("--output", "-o", help="How the data is printed.")]

Row = Mapping[str, Any] | Sequence[Any]


def emit_rows(columns: Sequence[str], rows: Iterable[Row], fmt: OutputFormat, stream: TextIO | None = None) -> None:
    """Print rows (mappings by column, or sequences in the order of ``columns``) to standard output.

    Rows are streamed, but for a table on a terminal. CSV has a header, and lists and maps as JSON text;
    null is an empty cell. Raises TypeError for a value that has no form.
    """
    out = sys.stdout if stream is None else stream
    cells = (_cells(columns, row) for row in rows)
    {
        OutputFormat.JSON: _json_array,
        OutputFormat.JSONL: _json_lines,
        OutputFormat.CSV: _csv,
        OutputFormat.TABLE: _table,
    }[fmt](columns, cells, out)
    out.flush()


def emit_object(obj: Any, fmt: OutputFormat, title: str = "", stream: TextIO | None = None) -> None:
    """Print one mapping or dataclass to standard output; as a table, one line a value, nested names dotted."""
    out = sys.stdout if stream is None else stream
    data = jsonable(obj)
    if fmt is OutputFormat.JSON:
        out.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    elif fmt is OutputFormat.TABLE:
        if title:
            out.write(printable(title) + "\n")
        lines = list(_flat(data))
        width = max((len(name) for name, _ in lines), default=0)
        out.writelines(f"{name:<{width}}  {text}".rstrip() + "\n" for name, text in lines)
    else:
        emit_rows(list(data), [data], fmt, out)
    out.flush()


def _cells(columns: Sequence[str], row: Row) -> list[Any]:
    if isinstance(row, Mapping):
        return [jsonable(row.get(column)) for column in columns]
    return [jsonable(value) for value in row]


def _json_array(columns: Sequence[str], rows: Iterator[list[Any]], out: TextIO) -> None:
    separator = "["
    for row in rows:
        out.write(f"{separator}\n  {_json_line(columns, row)}")
        separator = ","
    out.write("[]\n" if separator == "[" else "\n]\n")


def _json_lines(columns: Sequence[str], rows: Iterator[list[Any]], out: TextIO) -> None:
    out.writelines(_json_line(columns, row) + "\n" for row in rows)


def _json_line(columns: Sequence[str], row: list[Any]) -> str:
    return json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False, allow_nan=False)


def _csv(columns: Sequence[str], rows: Iterator[list[Any]], out: TextIO) -> None:
    sparing = csv.writer(out, lineterminator="\n")
    # With a bare line feed as terminator the writer leaves a carriage return unquoted, which ends the row for readers.
    quoting = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    sparing.writerow(columns)
    for row in rows:
        texts = [_text(value) for value in row]
        (quoting if any("\r" in text for text in texts) else sparing).writerow(texts)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def printable(text: str) -> str:
    """Control and direction characters escaped: data must not drive the terminal or break a line."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _table(columns: Sequence[str], rows: Iterator[list[Any]], out: TextIO) -> None:
    if out.isatty():
        _rich_table(columns, rows, out)
    else:
        _aligned(columns, rows, out)


def _aligned(columns: Sequence[str], rows: Iterator[list[Any]], out: TextIO) -> None:
    """Columns two spaces apart, whole values; widths follow the widest value of the page and those before."""
    texts = ([printable(_text(value)) for value in row] for row in rows)
    widths = [0] * len(columns)
    lines = [list(columns), *itertools.islice(texts, _PAGE)]
    while lines:
        widths = [max(width, *(len(line[index]) for line in lines)) for index, width in enumerate(widths)]
        for line in lines:
            out.write("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() + "\n")
        lines = list(itertools.islice(texts, _PAGE))


def _rich_table(columns: Sequence[str], rows: Iterator[list[Any]], out: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        # Text objects: a value with square brackets is no markup.
        table.add_row(*(Text(printable(_text(value))) for value in row))
    Console(file=out).print(table)


def _flat(data: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(data, dict) and data:
        for name, value in data.items():
            yield from _flat(value, f"{prefix}.{printable(name)}" if prefix else printable(name))
    elif isinstance(data, list) and any(isinstance(item, (dict, list)) for item in data):
        for index, item in enumerate(data):
            yield from _flat(item, f"{prefix}[{index}]")
    else:
        yield prefix, printable(_text(data))
