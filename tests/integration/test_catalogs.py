"""The same suite over catalogs and stores: SQLite, PostgreSQL and a REST catalog, tables on disk and in S3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from k2beam.simulate.truth import Truth
from k2beam.stack.s3 import s3_properties
from k2beam.stack.stack import LocalStack
from tests.integration.servers import servers_up
from tests.replay_helpers import ingest, simulated

pytestmark = pytest.mark.integration

CATALOGS = (
    *(pytest.param(name, marks=pytest.mark.full) for name in ("sqlite-disk", "postgres-disk")),
    "postgres-s3",
    "rest-s3",
)
AWAY_SECONDS = 12


@dataclass(frozen=True)
class Place:
    """A catalog by its name, with pyiceberg's configuration and the archives in a folder."""

    name: str
    home: Path

    @property
    def archives(self) -> str:
        return str(self.home / "in")

    def popen(self, *words: str, program: tuple[str, ...] = ("k2beam.cli.main",)) -> subprocess.Popen[str]:
        """``k2beam WORDS`` on this catalog, or another program that takes these words."""
        command = [sys.executable, "-m", *program, *words, "--catalog", self.name]
        env = os.environ | {"PYICEBERG_HOME": str(self.home)}
        return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *words: str) -> str:
        """Its standard output; it must end well."""
        return ended(self.popen(*words))[0]

    def ask(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--output", "json"))


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it wrote to its standard output and its standard error; it must end well."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-4000:]
    return out, err


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    stack = LocalStack(tmp_path_factory.mktemp("stores"), services=("postgres", "s3", "rest-catalog"))
    with servers_up(stack, "PostgreSQL, object store or REST catalog"):
        yield stack


def configured(name: str, stack: LocalStack, home: Path) -> Place:
    """A catalog whose tables no other test has, but for REST, where each test has a namespace of its own."""
    s3 = s3_properties(stack.s3_endpoint)
    sql = {"type": "sql", "init_catalog_tables": "true"}
    settings: Mapping[str, str] = {
        "sqlite-disk": {**sql, "uri": f"sqlite:///{home}/catalog.db", "warehouse": f"file://{home}/sqlite"},
        "postgres-disk": {**sql, "uri": stack.postgres_url, "warehouse": f"file://{home}/postgres"},
        "postgres-s3": {**sql, "uri": stack.postgres_url, "warehouse": f"s3://lake/{home.name}", **s3},
        "rest-s3": {"type": "rest", "uri": stack.rest_catalog_url, **s3},
    }[name]
    unlike = f"{name}-{home.name}"  # the SQL catalogs of one database are told apart by their names
    (home / ".pyiceberg.yaml").write_text(yaml.safe_dump({"catalog": {unlike: dict(settings)}}), "utf-8")
    return Place(unlike, home)


@pytest.fixture(scope="module", params=CATALOGS)
def place(request: pytest.FixtureRequest, stores: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return configured(request.param, stores, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def truth(place: Place) -> Truth:
    """What is in the tables: two commands at once have written it, after three that were killed at a commit."""
    made = simulated(place.home / "in")
    for when in ("after", "before", "after"):
        killed = place.popen(
            "ingest", "archive", place.archives, program=("tests.integration.killed_command", when, "0")
        )
        killed.communicate(timeout=120)
        assert killed.returncode == -signal.SIGKILL
    both = [place.popen("ingest", "archive", place.archives) for _ in range(2)]
    for process in both:
        ended(process)
    return made


def test_each_message_is_there_once(place: Place, truth: Truth) -> None:
    again = place.ask("ingest", "archive", place.archives)
    assert again["already_covered"] == again["consumed"] > 0
    place.run("audit", "--source", place.archives)


def test_gaps_and_rows_are_what_was_made(place: Place, truth: Truth) -> None:
    found = {(gap["symbol"], gap["kind"], gap["first_missing"], gap["last_missing"]) for gap in place.ask("gaps")}
    assert found == {(gap.symbol, gap.kind, gap.first_missing, gap.last_missing) for gap in truth.gaps}
    stats = {table["table"]: table["rows"] for table in place.ask("query", "stats")}
    assert stats["trades_v2"] == truth.rows["trades"]
    assert len(place.ask("query", "trades", "--limit", "5")) == 5


def test_the_rows_are_those_of_a_warehouse_folder(place: Place, truth: Truth, tmp_path: Path) -> None:
    ingest([Path(place.archives)], tmp_path / "other")
    place.run("audit", "--compare", str(tmp_path / "other"))


def test_maintenance_keeps_what_is_there(place: Place, truth: Truth) -> None:
    place.run("maintain", "run", "--apply", "--quiet-hours", "0", "--keep-snapshots", "1")
    place.run("audit", "--source", place.archives, "--no-mend")
    shown = place.run("exporter", "--once").splitlines()
    (trades,) = (line for line in shown if line.startswith("k2_table_rows{") and 'table="trades_v2"' in line)
    assert float(trades.rpartition(" ")[2]) == truth.rows["trades"]


@contextmanager
def away(stack: LocalStack, name: str) -> Iterator[None]:
    """A server that is killed, and comes back with its data; the REST catalog, which has them in memory, is held."""
    if name == "rest-catalog":
        (pid,) = (status.pid for status in stack.status() if status.name == name)
        assert pid is not None
        os.killpg(pid, signal.SIGSTOP)
    else:
        stack.kill(name)
    try:
        yield
    finally:
        if name == "rest-catalog":
            os.killpg(pid, signal.SIGCONT)
        else:
            stack.start(name)


@pytest.mark.parametrize(
    ("name", "server"), [("postgres-s3", "s3"), ("postgres-s3", "postgres"), ("rest-s3", "rest-catalog")]
)
def test_a_job_waits_for_a_catalog_and_a_store_that_are_away(
    stores: LocalStack, tmp_path: Path, name: str, server: str
) -> None:
    place = configured(name, stores, tmp_path)
    truth = simulated(tmp_path / "in", rows=60_000, files=12)
    job = place.popen("ingest", "archive", place.archives, "--commit-rows", "2000", "--output", "json")
    assert job.stderr is not None
    for line in job.stderr:
        if "commit " in line:
            break
    with away(stores, server):
        time.sleep(AWAY_SECONDS)
        assert job.poll() is None
    out, _ = ended(job)
    assert json.loads(out)["written"]["trades_v2"] == truth.rows["trades"]
    place.run("audit", "--source", place.archives)
