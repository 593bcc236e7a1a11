"""The commands that keep states of the tables under a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from k2beam.cli.main import main
from tests.maintain_helpers import TABLE, KeptLake


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int | str | None, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    shown = capsys.readouterr()
    return ended.value.code, shown.out, shown.err


def test_tag_list_audit_read_and_untag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake = KeptLake(tmp_path)
    lake.commit(2)
    where = ("--warehouse", str(tmp_path))
    code, out, _ = run(capsys, "snapshots", "tag", "close", *where, "--output", "json")
    (row,) = json.loads(out)
    assert (code, row["name"], row["table"], row["rows"], len(row["digest"])) == (0, "close", TABLE, 2, 32)
    assert json.loads(run(capsys, "snapshots", "tags", *where, "--output", "json")[1]) == [row]
    lake.commit(4, keep=1)
    trades = run(capsys, "query", "trades", "--as-of", "close", *where, "--output", "jsonl")[1]
    assert len(trades.splitlines()) == 2
    code, out, said = run(capsys, "audit", "--pin", "close", *where, "--output", "json")
    assert (code, json.loads(out)[0]["problem"], said.strip()) == (0, None, "PASSED: close is what it was.")
    next(iter(sorted(tmp_path.rglob("*.parquet"), key=lambda path: path.stat().st_mtime))).unlink()
    code, _, said = run(capsys, "audit", "--pin", "close", *where)
    assert (code, "is gone" in said) == (1, True)
    assert run(capsys, "snapshots", "untag", "close", *where)[0] == 0
    assert json.loads(run(capsys, "snapshots", "tags", *where, "--output", "json")[1]) == []


@pytest.mark.parametrize("option", [("--source", "x"), ("--compare", "x"), ("--topic", "x")])
def test_a_pin_is_audited_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, str]) -> None:
    KeptLake(tmp_path).commit()
    code, _, said = run(capsys, "audit", "--pin", "close", *option, "--warehouse", str(tmp_path))
    assert (code, "--pin goes alone" in said) == (2, True)
    code, _, said = run(capsys, "audit", "--pin", "close", "--warehouse", str(tmp_path))
    assert (code, "there is no tag close; the tags are none yet" in said) == (2, True)
