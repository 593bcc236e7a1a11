"""The command line from end to end: contracts of output, exit codes, and secrets that stay secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from pyiceberg.expressions import EqualTo

from k2beam.config import NAMESPACE
from k2beam.lake.catalog import open_catalog
from k2beam.lake.files import write_rows
from k2beam.lake.tables import open_table
from k2beam.lake.transaction import Append, append
from tests.lake_helpers import START, lake_config
from tests.replay_helpers import simulated

pytestmark = pytest.mark.integration

CANARY = "canary-7d1f0c"


def k2beam(*arguments: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "k2beam.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, object]]:
    """A folder of archives, the warehouse that they were ingested into, and the stats object."""
    folder = tmp_path_factory.mktemp("lake")
    simulated(folder / "in", rows=2000)
    done = k2beam("ingest", "archive", folder / "in", "--warehouse", folder / "wh", "--output", "json")
    return folder / "in", folder / "wh", json.loads(done.stdout)


def test_the_stats_object_is_all_of_standard_output(ingested: tuple[Path, Path, dict[str, object]]) -> None:
    stats = ingested[2]
    assert list(stats) == [
        "consumed", "written", "errors", "dead_letters", "already_covered", "gaps", "duration_s", "throughput_per_s",
        "snapshots", "commit_ms", "pending",
    ]  # fmt: skip
    written = stats["written"]
    assert isinstance(written, dict)
    assert stats["consumed"] == 2000
    times = stats["commit_ms"]
    assert isinstance(times, dict)
    assert 0 < times["min"] <= times["max"] < 60_000
    assert sum(written.values()) + stats["dead_letters"] == 2000  # type: ignore[operator]


def test_a_second_run_says_that_nothing_is_new(ingested: tuple[Path, Path, dict[str, object]]) -> None:
    archive, warehouse, _ = ingested
    done = k2beam("ingest", "archive", archive, "--warehouse", warehouse, "--output", "json")
    assert "Nothing was added: all 2,000 offsets are in the tables already." in done.stderr
    assert json.loads(done.stdout)["already_covered"] == 2000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ingest", "archive", "/nowhere/*.avro"], "/nowhere"),
        (["ingest", "archive", "samples/crypto", "--window", "soon"], "--window"),
        (["ingest", "archive", "samples/crypto", "--warehouse", "w", "--catalog", "c"], "--catalog"),
        (["audit", "--warehouse", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_wrong_usage_exits_with_2_and_names_the_option(arguments: Sequence[str], message: str) -> None:
    done = k2beam(*arguments, code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_wrong_day_is_refused(ingested: tuple[Path, Path, dict[str, object]]) -> None:
    _, warehouse, _ = ingested
    done = k2beam("query", "summary", "--symbol", "A", "--day", "yesterday", "--warehouse", warehouse, code=2)
    assert "day" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_queries_gaps_and_dead_letters_of_the_run(ingested: tuple[Path, Path, dict[str, object]]) -> None:
    _, warehouse, stats = ingested
    rows = json.loads(k2beam("query", "trades", "--limit", 5, "--warehouse", warehouse, "--output", "json").stdout)
    assert len(rows) == 5
    dead_letters = json.loads(k2beam("dlq", "list", "--warehouse", warehouse, "--output", "json").stdout)
    assert len(dead_letters) == stats["dead_letters"]
    first = dead_letters[0]
    place = (first["source"], first["partition"], first["offset"])
    shown = json.loads(k2beam("dlq", "show", *place, "--warehouse", warehouse, "--output", "json").stdout)
    assert json.dumps(shown).count(first["error_class"])
    gaps = json.loads(k2beam("gaps", "--warehouse", warehouse, "--output", "json").stdout)
    assert len(gaps) == 12


def test_the_audit_finds_what_was_done_behind_its_back(
    ingested: tuple[Path, Path, dict[str, object]], tmp_path: Path
) -> None:
    archive, _, _ = ingested

    def damaged(name: str) -> tuple[Path, object]:
        warehouse = tmp_path / name
        k2beam("ingest", "archive", archive, "--warehouse", warehouse)
        return warehouse, open_table(open_catalog(lake_config(warehouse)), NAMESPACE, "trades_v2")

    def audited(warehouse: Path, *sources: Path, code: int) -> dict[str, object]:
        options = [part for source in sources for part in ("--source", str(source))]
        done = k2beam("audit", *options, "--warehouse", warehouse, "--output", "json", code=code)
        report: dict[str, object] = json.loads(done.stdout)
        assert report["ok"] is (code == 0)
        return report

    warehouse, table = damaged("loss")
    audited(warehouse, archive, code=0)
    offset = table.scan(limit=1).to_arrow().column("_offset")[0].as_py()  # type: ignore[attr-defined]
    table.delete(EqualTo("_offset", offset))  # type: ignore[attr-defined]
    audited(warehouse, archive, code=1)
    audited(warehouse, code=1)

    warehouse, table = damaged("duplicate")
    rows = table.scan(limit=3).to_arrow()  # type: ignore[attr-defined]
    append(table, Append([file.data_file() for file in write_rows(table, rows, START)]))  # type: ignore[arg-type]
    report = audited(warehouse, archive, code=1)
    assert sum(source["duplicate"] for source in report["sources"]) == 3  # type: ignore[attr-defined]

    warehouse, _ = damaged("lost_file")
    simulated(tmp_path / "more", rows=2000, seed=8)
    audited(warehouse, archive, tmp_path / "more", code=1)


def test_no_secret_is_shown_or_stored(tmp_path: Path) -> None:
    simulated(tmp_path / "in", rows=2000)
    secrets = {
        "PYICEBERG_CATALOG__SAFE__TYPE": "sql",
        "PYICEBERG_CATALOG__SAFE__URI": f"sqlite:///{tmp_path}/safe.db",
        "PYICEBERG_CATALOG__SAFE__WAREHOUSE": str(tmp_path / "wh"),
        "PYICEBERG_CATALOG__SAFE__S3__SECRET_ACCESS_KEY": CANARY,
        "PYICEBERG_CATALOG__SAFE__CREDENTIAL": f"user:{CANARY}",
        "PYICEBERG_CATALOG__SAFE__TOKEN": CANARY,
    }
    arguments = ("--log-level", "DEBUG", "--log-json", "ingest", "archive", tmp_path / "in", "--catalog", "SAFE")
    done = k2beam(*arguments, "--dead-letters-json", tmp_path / "copies", **secrets)
    assert CANARY not in done.stdout + done.stderr
    assert '"snapshot_after"' in done.stderr, "commits are logged"
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("copies" in path.parts for path in written)
    assert [path for path in written if CANARY.encode() in path.read_bytes()] == []
    audited = k2beam("audit", "--catalog", "SAFE", "--source", tmp_path / "in", **secrets)
    assert CANARY not in audited.stdout + audited.stderr
