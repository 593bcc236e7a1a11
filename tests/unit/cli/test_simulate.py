"""The command ``k2beam simulate``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from k2beam.cli.simulate import register
from k2beam.errors import UsageError
from k2beam.simulate.truth import read_truth
from tests.unit.simulate.test_simulate import check_truth


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)
    return app


def test_the_command_writes_and_says_what(app: typer.Typer, tmp_path: Path) -> None:
    arguments = ["simulate", "--rows", "500", "--symbols", "3", "--seed", "5", "--faults", "gaps=2,tombstone=1"]
    result = CliRunner().invoke(app, [*arguments, "--start", "2026-02-03T04:05:06.999999", str(tmp_path / "out")])

    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "500 messages" in result.stdout
    assert "1 dead letters of class tombstone" in result.stdout
    found = check_truth(tmp_path / "out", read_truth(tmp_path / "out"))
    first = min(one.record["timestamp"] for one in found if one.record)
    assert timedelta(0) < first - datetime(2026, 2, 3, 4, 5, 6, 999_999, UTC) < timedelta(seconds=1)


def test_the_command_gives_the_truth_as_json(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["simulate", "--rows", "50", "--output", "json", str(tmp_path / "out")])

    assert result.stdout == (tmp_path / "out" / "truth.json").read_text("utf-8")


def test_the_command_does_not_write_into_a_full_folder(app: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    (tmp_path / "quotes-00001.avro").write_text("old")
    refused = CliRunner().invoke(app, ["simulate", "--rows", "50", str(tmp_path)])
    assert isinstance(refused.exception, UsageError)
    assert "is not empty" in str(refused.exception)
    assert (tmp_path / "quotes-00001.avro").exists()

    forced = CliRunner().invoke(app, ["simulate", "--rows", "50", "--force", str(tmp_path)])
    assert forced.exit_code == 0, forced.output
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", "trades-00001.avro", "truth.json"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--start", "yesterday"], "'yesterday' is not a time"),
        (["--start", "2999-01-01T00:00:00Z"], "in the future"),
        (["--output", "csv"], "--output takes table or json"),
        (["--envelope", "plain", "--faults", "malformed=9"], "can't hold payloads"),
    ],
)
def test_the_command_refuses_wrong_usage(app: typer.Typer, tmp_path: Path, options: list[str], problem: str) -> None:
    result = CliRunner().invoke(app, ["simulate", "--rows", "50", *options, str(tmp_path / "out")])

    assert isinstance(result.exception, UsageError)
    assert problem in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_the_command_refuses_a_file_for_a_folder(app: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("file")
    result = CliRunner().invoke(app, ["simulate", "--rows", "50", str(tmp_path / "out")])
    assert isinstance(result.exception, UsageError)
    assert "is a file" in str(result.exception)
