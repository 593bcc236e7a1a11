"""The commands report and serve: what they write and say, and their exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from k2beam.cli.main import app
from k2beam.lake.tables import EVENT_TABLES, open_table
from tests.query_fixtures import NAMESPACE, make_catalog
from tests.report_helpers import held_by, make_lake


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    return make_lake(tmp_path / "lake")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_a_page_is_written_and_replaced(warehouse: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    done = run("report", out, "--warehouse", warehouse, "--symbol", "BTCUSDT", "--every", "1m")
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert f"Wrote {out}" in done.stderr
    contents = held_by(out)
    assert contents["candles"]["of"][0]["bars"]["trades"] == [6, 6, 6, 6, 6, 6]
    assert contents["verdict"]["ok"] is True
    assert run("report", out, "--warehouse", warehouse, "--no-audit", "--last", "3m").exit_code == 0
    assert held_by(out)["verdict"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lake", "out.html"]


def test_a_failed_audit_is_on_the_page_and_in_the_exit_code(warehouse: Path, tmp_path: Path) -> None:
    table = open_table(make_catalog(warehouse), NAMESPACE, EVENT_TABLES["trades"])
    table.delete("_offset = 3")
    done = run("report", tmp_path / "out.html", "--warehouse", warehouse)
    assert done.exit_code == 1
    assert "The audit FAILED" in done.stderr
    verdict = held_by(tmp_path / "out.html")["verdict"]
    assert verdict["ok"] is False
    assert verdict["problems"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "gone/out.html"], "OUT.html gone/out.html: name a file in a folder that is there"),
        (["report", "out.html", "--last", "1d", "--from", "2026-01-05"], "--last and --from both say"),
        (["report", "out.html", "--last", "never"], "--last takes a duration"),
        (["report", "out.html", "--symbol", "NONE"], "no trades of symbol NONE"),
        (["report", "out.html", "--topic", "a"], "give --bootstrap HOSTS"),
        (["report", "out.html", "--bootstrap", "localhost:1"], "give --topic NAME"),
        (["serve", "--listen", "9309"], "--listen takes HOST:PORT"),
        (["serve", "--interval", "0s"], "--interval must be above 0"),
        (["serve", "--audit-interval", "x"], "--audit-interval takes a duration"),
        (["serve", "--every", "7m"], "does not divide a day"),
    ],
)
def test_what_can_not_be_is_said_and_nothing_is_written(
    warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments, "--warehouse", warehouse)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["lake"]
