"""What every command shares: the shape of its output, its errors and where the lake is."""

from __future__ import annotations

import base64
import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from k2beam.cli.guard import guarded, run_guarded
from k2beam.cli.lake_options import lake_config
from k2beam.cli.output import OutputFormat, OutputOption, emit_object, emit_rows
from k2beam.cli.progress import progress, step_progress
from k2beam.errors import LakeError, UsageError
from k2beam.jsonable import jsonable
from k2beam.model import CommitReceipt

ROW = {
    "symbol": "BTC,USD\n",
    "price": Decimal("61000.10000000"),
    "at": datetime(2026, 1, 5, 9, 30, 0, 7, tzinfo=timezone(timedelta(hours=11))),
    "tags": ["a", "b"],
    "more": None,
    "payload": b"\x00\xff",
}
EXPECTED = {
    "symbol": "BTC,USD\n",
    "price": "61000.1",
    "at": "2026-01-04T22:30:00.000007Z",
    "tags": ["a", "b"],
    "more": None,
    "payload": {"base64": "AP8="},
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def emitted(rows: list[Any], fmt: OutputFormat, columns: list[str] | None = None) -> str:
    out = io.StringIO()
    emit_rows(columns or list(ROW), iter(rows), fmt, out)
    return out.getvalue()


def test_json_is_one_array() -> None:
    assert json.loads(emitted([ROW, list(ROW.values())], OutputFormat.JSON)) == [EXPECTED, EXPECTED]
    assert json.loads(emitted([], OutputFormat.JSON)) == []


def test_json_lines_are_one_object_a_line() -> None:
    assert [json.loads(line) for line in emitted([ROW, ROW], OutputFormat.JSONL).splitlines()] == [EXPECTED] * 2
    assert emitted([], OutputFormat.JSONL) == ""


def test_csv_has_a_header_and_quotes_what_needs_it() -> None:
    header, row = csv.reader(io.StringIO(emitted([ROW], OutputFormat.CSV)))
    assert header == list(ROW)
    assert row[:3] == ["BTC,USD\n", "61000.1", "2026-01-04T22:30:00.000007Z"]
    assert row[3:] == ['["a","b"]', "", '{"base64":"AP8="}']


def test_a_table_in_a_pipe_is_aligned_and_never_cut() -> None:
    long = "x" * 500
    text = emitted(
        [{"a": "1", "b": long, "c": "3"}, {"a": "22", "b": "y", "c": "4"}], OutputFormat.TABLE, ["a", "b", "c"]
    )
    header, first, second = text.splitlines()
    assert long in first
    assert header.index("c") == first.index("3") == second.index("4") == 506
    assert header.index("b") == second.index("y") == 4


def test_a_long_table_is_streamed_in_pages() -> None:
    seen: list[int] = []

    def rows() -> Iterator[dict[str, int]]:
        for number in range(2_500):
            seen.append(number)
            yield {"n": number}

    class Watcher(io.StringIO):
        def write(self, text: str) -> int:
            if text == "999\n":
                assert len(seen) <= 1_001
            return super().write(text)

    out = Watcher()
    emit_rows(["n"], rows(), OutputFormat.TABLE, out)
    assert [line.strip() for line in out.getvalue().splitlines()] == ["n", *map(str, range(2_500))]


@pytest.mark.parametrize("out", [io.StringIO, Terminal], ids=["pipe", "terminal"])
def test_data_can_not_drive_the_terminal(out: type[io.StringIO]) -> None:
    stream = out()
    emit_rows(["symbol"], [{"symbol": "\x1b[31m[bold]\u202eX\nY"}], OutputFormat.TABLE, stream)
    assert "\\u001b[31m[bold]\\u202eX\\u000aY" in stream.getvalue()
    assert "\x1b[31m" not in stream.getvalue()


def test_an_object_in_each_format() -> None:
    receipt = CommitReceipt("trades_v2", None, 2, 10, 1, 99, 5, 1, 0, "ab")
    texts = {}
    for fmt in OutputFormat:
        out = io.StringIO()
        emit_object({"ok": True, "receipt": receipt, "many": [{"n": Decimal("1.10")}]}, fmt, "Report", out)
        texts[fmt] = out.getvalue()
    parsed = json.loads(texts[OutputFormat.JSON])
    assert parsed == json.loads(texts[OutputFormat.JSONL])
    assert parsed["receipt"]["snapshot_before"] is None
    assert parsed["many"] == [{"n": "1.1"}]
    assert len(texts[OutputFormat.JSONL].splitlines()) == 1
    lines = texts[OutputFormat.TABLE].splitlines()
    assert lines[0] == "Report"
    assert lines[1].split() == ["ok", "true"]
    assert lines[-1].split() == ["many[0].n", "1.1"]
    header, row = csv.reader(io.StringIO(texts[OutputFormat.CSV]))
    assert header == ["ok", "receipt", "many"]
    assert json.loads(row[1])["table"] == "trades_v2"


@settings(max_examples=100, deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_keeps_its_digits(value: Decimal) -> None:
    text = jsonable(value)
    assert "E" not in text
    assert Decimal(text) == value


@settings(max_examples=100, deadline=None)
@given(st.datetimes(timezones=st.just(UTC)))
def test_an_instant_reads_back(value: datetime) -> None:
    assert datetime.fromisoformat(jsonable(value)) == value
    assert jsonable(value.replace(tzinfo=None)) == jsonable(value)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text(), st.text(), st.integers()), max_size=4))
def test_any_text_survives_json_lines_and_csv(rows: list[tuple[str, str, int]]) -> None:
    columns = ["a", "b", "n"]
    lines = emitted(rows, OutputFormat.JSONL, columns).split("\n")[:-1]
    assert [tuple(json.loads(line).values()) for line in lines] == rows
    text = emitted(rows, OutputFormat.CSV, columns)
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert [(a, b, int(n)) for a, b, n in read[1:]] == rows


def test_other_values() -> None:
    @dataclass
    class Point:
        x: float

    assert jsonable([date(2026, 1, 5), float("nan"), 1.5, OutputFormat.CSV, Point(float("inf")), bytearray(b"a")]) == [
        "2026-01-05",
        "NaN",
        1.5,
        "csv",
        {"x": "Infinity"},
        {"base64": base64.b64encode(b"a").decode()},
    ]
    with pytest.raises(TypeError, match="complex"):
        jsonable(1j)


def test_a_row_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        emitted([[1, 2]], OutputFormat.JSONL, ["a"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no such option"), 2),
        (LakeError("broken table"), 1),
        (BrokenPipeError(), 141),
        (OSError(28, "No space"), 1),
    ],
)
def test_an_error_becomes_a_message_and_an_exit_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as exit_:
        run_guarded(fail)
    assert exit_.value.code == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (f"Error: {error}\n" if str(error) else "")


def test_an_interrupt_is_told_in_one_sentence() -> None:
    program = (
        "from k2beam.cli.main import app, main\n"
        "@app.command('wait')\n"
        "def wait() -> None:\n"
        "    raise KeyboardInterrupt\n"
        "main(['wait'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "Interrupted: what was committed stays, and running it again takes the rest.\n"


def test_a_defect_keeps_its_traceback_and_a_result_is_passed_on() -> None:
    assert run_guarded(int, "7") == 7
    with pytest.raises(ValueError, match="seven"):
        run_guarded(int, "seven")


def test_a_guarded_command_keeps_its_options() -> None:
    app = typer.Typer()

    @app.command()
    @guarded
    def show(name: str, output: OutputOption = OutputFormat.TABLE) -> None:
        if name == "bad":
            raise UsageError("bad name")
        emit_object({"name": name}, output)

    runner = CliRunner()
    assert json.loads(runner.invoke(app, ["x", "--output", "json"]).stdout) == {"name": "x"}
    refused = runner.invoke(app, ["bad"])
    assert (refused.exit_code, refused.stdout, refused.stderr) == (2, "", "Error: bad name\n")
    assert runner.invoke(app, ["x", "--output", "xml"]).exit_code == 2


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    program = (
        "from k2beam.cli.guard import *\nfrom k2beam.cli.output import *\n"
        "run_guarded(emit_rows, ['n'], ([n] for n in range(1_000_000)), OutputFormat.JSONL)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b'{"n": 0}\n'
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_progress_is_silent_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("replay", 10) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


def test_progress_is_drawn_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("replay", 10) as advance:
        advance(10)
    assert "replay" in terminal.getvalue()
    assert "100%" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_the_step_of_a_work_is_shown_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with step_progress("auditing") as tell:
        tell("counting trades_v2")
    assert capsys.readouterr() == ("", "")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with step_progress("auditing") as tell:
        tell("counting [a]\x1b[2J.avro")
    assert "auditing: counting [a]\\u001b[2J.avro" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_where_the_lake_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("K2BEAM_WAREHOUSE", raising=False)
    assert lake_config().warehouse == "warehouse"
    monkeypatch.setenv("K2BEAM_WAREHOUSE", "/data/lake")
    assert lake_config().warehouse == "/data/lake"
    assert lake_config(warehouse="here").warehouse == "here"
    named = lake_config(catalog="prod")
    assert (named.warehouse, named.catalog) == (None, "prod")
    with pytest.raises(UsageError, match="not both"):
        lake_config("here", "prod")
