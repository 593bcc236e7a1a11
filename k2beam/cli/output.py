"""What the commands share: the shape of their output, progress, errors and the options of the lake.

Data goes to standard output and nothing else does; progress and errors go to standard error. Values
keep their digits: a Decimal is never a float, a time is ISO 8601 in UTC with a Z, bytes are base64.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import functools
import itertools
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Annotated, Any, ParamSpec, TextIO, TypeVar

import typer

from k2beam.errors import K2BeamError, UsageError

BROKEN_PIPE = 141
"""What a shell reports for a program that SIGPIPE ended."""

_PAGE = 1_000
_AS_IT_IS = frozenset({type(None), bool, int, str})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class OutputFormat(StrEnum):
    """How a command prints its data."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


OutputOption = Annotated[OutputFormat, typer.Option("--output", "-o", help="How the data is printed.")]

P = ParamSpec("P")
_T = TypeVar("_T")
Row = Mapping[str, Any] | Sequence[Any]


def plain(value: Any) -> Any:
    """The value as JSON has it: Decimals, times and bytes as text; NaN and infinities as null."""
    if type(value) in _AS_IT_IS:
        return value
    if isinstance(value, datetime):
        return _instant(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    return _plain_structure(value)


def _plain_structure(value: Any) -> Any:
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, (str, int)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no form in the output; convert it before it is emitted")


def _instant(value: datetime) -> str:
    text = value.isoformat(timespec="microseconds")
    if value.tzinfo is not None and not text.endswith("+00:00"):
        text = value.astimezone(UTC).isoformat(timespec="microseconds")
    return text.removesuffix("+00:00") + "Z"


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
    data = plain(obj)
    if fmt is OutputFormat.JSON:
        out.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    elif fmt is OutputFormat.TABLE:
        if title:
            out.write(_printable(title) + "\n")
        lines = list(_flat(data))
        width = max((len(name) for name, _ in lines), default=0)
        out.writelines(f"{name:<{width}}  {text}".rstrip() + "\n" for name, text in lines)
    else:
        emit_rows(list(data), [data], fmt, out)
    out.flush()


def _cells(columns: Sequence[str], row: Row) -> list[Any]:
    if isinstance(row, Mapping):
        return [plain(row.get(column)) for column in columns]
    return [plain(value) for value in row]


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


def _printable(text: str) -> str:
    """Control and direction characters escaped: data must not drive the terminal or break a line."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _table(columns: Sequence[str], rows: Iterator[list[Any]], out: TextIO) -> None:
    if out.isatty():
        _rich_table(columns, rows, out)
    else:
        _aligned(columns, rows, out)


def _aligned(columns: Sequence[str], rows: Iterator[list[Any]], out: TextIO) -> None:
    """Columns two spaces apart, whole values; widths follow the widest value of the page and those before."""
    texts = ([_printable(_text(value)) for value in row] for row in rows)
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
        table.add_row(*(Text(_printable(_text(value))) for value in row))
    Console(file=out).print(table)


def _flat(data: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(data, dict) and data:
        for name, value in data.items():
            yield from _flat(value, f"{prefix}.{_printable(name)}" if prefix else _printable(name))
    elif isinstance(data, list) and any(isinstance(item, (dict, list)) for item in data):
        for index, item in enumerate(data):
            yield from _flat(item, f"{prefix}[{index}]")
    else:
        yield prefix, _printable(_text(data))


@contextmanager
def progress(description: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
    """A progress line on standard error, gone at the end; silent when that is no terminal.

    Gives a function that advances it: ``with progress("replay", 1000) as advance: advance(10)``.
    """
    if not sys.stderr.isatty():
        yield lambda _step: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda step: bar.advance(task, step)


@contextmanager
def step_progress(description: str) -> Iterator[Callable[[str], None]]:
    """The same for work of which only the steps are known; gives a function that is told the step that begins."""
    if not sys.stderr.isatty():
        yield lambda _step: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(description), total=None)
        yield lambda step: bar.update(task, description=escape(_printable(f"{description}: {step}")))


def run_guarded(function: Callable[P, _T], /, *args: P.args, **kwargs: P.kwargs) -> _T:
    """Call ``function``; what k2beam raises on purpose becomes one line on standard error and an exit code.

    UsageError exits with 2, any other K2BeamError with 1, a reader of the pipe that went away with
    141. Everything else is a defect and keeps its traceback.
    """
    try:
        return function(*args, **kwargs)
    except K2BeamError as error:
        sys.stderr.write(f"Error: {_printable(str(error))}\n")
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from error
    except BrokenPipeError:
        raise SystemExit(BROKEN_PIPE) from None


def guarded(command: Callable[P, _T]) -> Callable[P, _T]:
    """:func:`run_guarded` as a decorator for a typer command."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> _T:
        return run_guarded(command, *args, **kwargs)

    return run
