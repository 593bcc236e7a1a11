"""``k2beam ingest csv`` over the sample files, into the tables and into an archive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from k2beam.cli.csv import register_csv
from k2beam.cli.guard import run_guarded
from k2beam.config import NAMESPACE
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import DEAD_LETTERS, EVENT_TABLES, find_table
from tests.lake_helpers import lake_config
from tests.replay_helpers import assert_audit, dead_letter_classes, ingest

pytestmark = pytest.mark.integration

CSV = Path(__file__).resolve().parents[2] / "samples" / "asx" / "csv"
PROVENANCE = {"_source", "_partition", "_offset", "_ingested_at", "message_id", "ingestion_timestamp"}


def k2beam(*arguments: object, code: int = 0) -> Any:
    app = typer.Typer()
    group = typer.Typer()
    register_csv(group)
    group.command("nothing")(lambda: None)  # a group of one command would lose its name
    app.add_typer(group, name="ingest")
    result = CliRunner().invoke(app, ["ingest", "csv", *map(str, arguments), "--output", "json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        with pytest.raises(SystemExit) as ended:
            run_guarded(_raise, result.exception)
        assert ended.value.code == code, result.exception
        return str(result.exception)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def _raise(error: BaseException) -> None:
    raise error


def rows(warehouse: Path, table: str) -> list[dict[str, Any]]:
    found = find_table(open_catalog(lake_config(warehouse)), NAMESPACE, table)
    return [] if found is None else found.scan().to_arrow().to_pylist()


def facts(found: list[dict[str, Any]]) -> list[str]:
    return sorted(repr([(key, row[key]) for key in sorted(row) if key not in PROVENANCE]) for row in found)


def test_the_tables_have_the_rows_of_the_sample_archives_and_a_repeat_adds_none(tmp_path: Path) -> None:
    warehouse, reference = tmp_path / "csv", tmp_path / "avro"
    ingest([CSV.parent], reference)
    for _ in range(2):
        for name in ("trades", "quotes"):
            files = sorted(CSV.glob(f"asx_{name}_*.csv"))
            companies = ("--companies", CSV / "asx_company_info.csv")
            stats = k2beam(*files, "--mapping", f"asx-{name}", *companies, "--warehouse", warehouse)
        stats = k2beam(CSV / "asx_company_info.csv", "--mapping", "asx-reference", "--warehouse", warehouse)
    assert (stats["consumed"], stats["already_covered"], sum(stats["written"].values())) == (4, 4, 0)

    for table in EVENT_TABLES.values():
        found, wanted = (rows(place, table) for place in (warehouse, reference))
        if table == EVENT_TABLES["reference_data"]:  # by now they are delisted
            found, wanted = ([{**row, "is_active": None} for row in some] for some in (found, wanted))
        assert len(found) == len({row["message_id"] for row in found})
        assert facts(found) == facts(wanted)
    assert_audit(warehouse)


def test_bad_lines_are_dead_letters_and_a_file_that_grows_adds_its_new_lines(tmp_path: Path) -> None:
    path, warehouse = tmp_path / "asx_trades_7181.csv", tmp_path / "warehouse"
    lines = (CSV / path.name).read_bytes().splitlines(keepends=True)
    options = ("--mapping", "asx-trades", "--symbol", "DVN", "--warehouse", warehouse)
    path.write_bytes(b"".join([*lines[:100], b"\xff,broken\n", b"03/10/2014,10:13:34.553,-1,1,0,,\n", lines[100][:20]]))
    first = k2beam(path, *options)
    assert (first["written"][EVENT_TABLES["trades"]], first["dead_letters"], first["errors"]) == (100, 2, 1)

    path.write_bytes(path.read_bytes() + lines[100][20:] + b"".join(lines[101:]))
    second = k2beam(path, *options)

    assert (second["written"][EVENT_TABLES["trades"]], second["dead_letters"], second["errors"]) == (132, 0, 0)
    assert dead_letter_classes(warehouse) == {"bad_encoding": 1, "negative_price": 1}
    (dead_letter,) = (one for one in rows(warehouse, DEAD_LETTERS) if one["error_class"] == "bad_encoding")
    assert (dead_letter["_offset"], dead_letter["payload"]) == (100, b"\xff,broken")
    assert f"{path}, line 101: " in dead_letter["error_message"]
    assert_audit(warehouse)


def test_an_archive_ingests_as_the_files_do(tmp_path: Path) -> None:
    out, direct, replayed = tmp_path / "t.avro", tmp_path / "direct", tmp_path / "replayed"
    source = (CSV / "asx_trades_7181.csv", "--mapping", "asx-trades", "--symbol", "DVN")
    counts = k2beam(*source, "--to", f"archive:{out}")
    k2beam(*source, "--warehouse", direct)
    ingest([out], replayed)

    assert (counts["consumed"], counts["written"], counts["dead_letters"]) == (232, 232, 0)
    found, wanted = (rows(place, EVENT_TABLES["trades"]) for place in (replayed, direct))
    assert {row["message_id"] for row in found} == {row["message_id"] for row in wanted}
    assert facts(found) == facts(wanted)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--mapping", "nyse"), "asx-trades"),
        (("--mapping", "asx-trades"), "--symbol"),
        (("--mapping", "asx-trades", "--symbol", "DVN", "--to", "paper"), "--to takes"),
        (("--mapping", "asx-trades", "--symbol", "DVN", "--to", "topic"), "--bootstrap"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_to_do(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    message = k2beam(CSV / "asx_trades_7181.csv", *arguments, "--warehouse", tmp_path, code=2)
    assert said in message
