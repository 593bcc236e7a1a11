"""The commands ``k2beam warehouse …``: what they print, how they end, and that they verify what they made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from k2beam.cli.main import app, main
from k2beam.config import NAMESPACE
from k2beam.errors import UsageError
from k2beam.lake.catalog import open_catalog
from k2beam.lake.place import UNFINISHED
from k2beam.lake.tables import open_table
from k2beam.maintain import transfer, warehouse
from tests.lake_helpers import lake_config, offsets_in
from tests.warehouse_helpers import ODD_NAMES, assert_holds, committed, copied, made

VERBS = ("copy", "move", "backup", "restore")


def run(*words: object, code: int = 0) -> dict[str, Any]:
    """What the command prints as JSON."""
    result = CliRunner().invoke(app, ["warehouse", *map(str, words), "--output", "json"])
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return made(tmp_path / "old")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_warehouse_gets_to_its_new_folder_and_is_verified(tmp_path: Path, verb: str, name: str, old: Path) -> None:
    new = tmp_path / name
    found = run(verb, old, new)
    assert found["ok"]
    assert (found["old"], found["new"]) == (str(old), str(new))
    assert (found["tables"], found["files"]) == (1, 2)
    assert found["files_copied"] == (0 if verb == "move" else 2)
    assert found["same"] is (None if verb == "move" else True)
    assert (found["problems"], found["notes"]) == ([], [])
    assert not (new / UNFINISHED).exists()
    assert_holds(new, 2)


def test_what_cp_made_is_completed_and_refuses_to_be_written_to_before(
    tmp_path: Path, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = copied(old, tmp_path / "new")
    for command in (["maintain", "orphans"], ["query", "stats"], ["gaps"], ["audit"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--warehouse", str(new)])
        assert ended.value.code == 2
        assert f"k2beam warehouse copy {old} {new}" in capsys.readouterr().err
    assert run("copy", old, new)["same"] is True
    assert_holds(new, 2)


@pytest.mark.parametrize("verb", VERBS)
def test_a_named_catalog_is_refused_with_what_to_do_instead(
    tmp_path: Path, old: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["warehouse", verb, str(old), str(tmp_path / "new"), "--catalog", "prod"])
    assert ended.value.code == 2
    assert "catalog prod is no folder: move and copy its tables by the means of the catalog" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("verb", ["copy", "backup", "restore"])
def test_a_copy_that_is_not_the_same_is_said_and_refused(
    tmp_path: Path, old: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(source: Path, target: Path) -> None:
        target.write_bytes(b"x" * source.stat().st_size)

    with monkeypatch.context() as patch:
        patch.setattr(transfer.shutil, "copyfile", damaged)
        found = run(verb, old, tmp_path / "new", code=1)
    assert (found["ok"], found["same"]) == (False, False)
    assert any("can't be read" in problem for problem in found["problems"])
    with pytest.raises(UsageError, match=f"run it again: k2beam warehouse {verb} "):
        open_catalog(lake_config(tmp_path / "new"))
    assert_holds(old, 2)


def test_a_copy_that_lacks_rows_is_said(tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = transfer.relocated_metadata

    def short(*args: Any) -> dict[str, Any]:
        found = whole(*args)
        first = found["snapshots"][0]
        return {
            **found,
            "snapshots": [first],
            "current-snapshot-id": first["snapshot-id"],
            "refs": {},
            "snapshot-log": [],
        }

    monkeypatch.setattr(transfer, "relocated_metadata", short)
    found = run("copy", old, tmp_path / "new", code=1)
    assert (found["ok"], found["same"]) == (False, False)
    assert "table market_data.trades_v2 differs from that of the old folder" in found["problems"]
    assert any("are covered but have no row" in problem for problem in found["problems"])
    assert (tmp_path / "new" / UNFINISHED).exists()


def test_a_move_that_finds_a_file_damaged_says_so_and_can_be_repeated(tmp_path: Path, old: Path) -> None:
    path = next(old.rglob("*.parquet"))
    content = path.read_bytes()
    path.write_bytes(b"x" * len(content))
    found = run("move", old, tmp_path / "new", code=1)
    assert any(path.name in problem for problem in found["problems"])
    (tmp_path / "new" / path.relative_to(old)).write_bytes(content)
    assert run("move", old, tmp_path / "new")["notes"] == ["nothing was left to do but to verify it"]


def test_a_problem_that_the_old_folder_has_too_is_no_failure_of_the_copy(tmp_path: Path, old: Path) -> None:
    table = open_table(open_catalog(lake_config(old)), NAMESPACE, "trades_v2")
    table.delete("_offset >= 15")
    found = run("copy", old, tmp_path / "new")
    assert found["ok"]
    assert found["problems"] == []
    assert all(note.startswith("the old folder has this problem too: ") for note in found["notes"])
    assert any("are covered but have no row" in note for note in found["notes"])
    assert offsets_in(tmp_path / "new") == list(range(15))


def test_a_backup_is_made_again_and_again(tmp_path: Path, old: Path) -> None:
    run("backup", old, tmp_path / "backup")
    committed(old, range(20, 30))
    found = run("backup", old, tmp_path / "backup")
    assert (found["files"], found["files_copied"], found["same"]) == (3, 1, True)
    assert_holds(tmp_path / "backup", 3)


def test_a_copy_that_was_killed_before_it_was_verified_is_verified_when_it_is_repeated(
    tmp_path: Path, old: Path
) -> None:
    warehouse.copy_warehouse(old, tmp_path / "new", lambda _: None)
    found = run("copy", old, tmp_path / "new")
    assert (found["ok"], found["same"], found["files_copied"]) == (True, True, 0)
    warehouse.copy_warehouse(old, tmp_path / "newer", lambda _: None)
    committed(old, range(20, 30))
    assert run("copy", old, tmp_path / "newer")["same"] is None
    assert_holds(tmp_path / "newer", 2)


def test_a_folder_that_can_not_be_written_is_said_without_a_traceback(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_only(self: Path, *args: Any, **options: Any) -> int:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "write_text", read_only)
    with pytest.raises(SystemExit) as ended:
        main(["warehouse", "copy", str(old), str(tmp_path / "new")])
    assert ended.value.code == 1
    assert "new/unfinished-copy: Read-only file system; mend that, and run this again" in capsys.readouterr().err


def test_people_get_lines(tmp_path: Path, old: Path) -> None:
    result = CliRunner().invoke(app, ["warehouse", "copy", str(old), str(tmp_path / "new")])
    assert result.exit_code == 0
    assert result.stdout.startswith("warehouse copy\nok            true\n")
