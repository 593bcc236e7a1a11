"""What the first lines of a file become, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from k2beam.cli.main import main

LINE = "03/10/2014,10:13:34.553,0.67,{},0,,\n"


def test_the_first_lines_are_shown_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(LINE.format(1) + LINE.format("many") + LINE.format(3) * 20)
    command = ["ingest", "csv", "t.csv", "--mapping", "asx-trades", "--symbol", "DVN", "--company", "1", "--explain"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--output", "json"])
    assert not ended.value.code
    shown = json.loads(capsys.readouterr().out)
    assert [(one["line"], one["error_class"]) for one in shown] == [
        (1, None),
        (2, "bad_number"),
        (3, None),
        (4, None),
        (5, None),
    ]
    assert (shown[0]["event"]["symbol"], shown[0]["event"]["quantity"]) == ("DVN", "1")
    assert "line 2: quantity 'many' is not a number" in shown[1]["error_message"]
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
    with pytest.raises(SystemExit):
        main(command)
    assert "t.csv, line 2: a dead letter" in capsys.readouterr().out
