"""PostgreSQL, the object store and the REST catalog: how they are found and started, without starting them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from k2beam.errors import NotReady, PlatformError
from k2beam.stack import postgres, rest_catalog
from k2beam.stack.postgres import PROGRAMS, Postgres
from k2beam.stack.rest_catalog import Nessie
from k2beam.stack.s3 import BUCKETS, SECRET_KEY, VersityGateway, ensure_gateway
from k2beam.stack.server import Launch, free_ports, start, stop


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and nothing named."""
    monkeypatch.setenv("K2BEAM_CACHE", str(tmp_path / "cache"))
    for name in ("K2BEAM_POSTGRES", "K2BEAM_VERSITYGW"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with PostgreSQL's programs, of which initdb makes a folder and notes its options."""
    folder = tmp_path / "postgres programs"
    for name in PROGRAMS:
        program(folder / name)
    program(folder / "initdb", '#!/bin/sh\nmkdir "$2" && echo "$@" > "$2/options"\n')
    monkeypatch.setenv("K2BEAM_POSTGRES", str(folder))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return folder


def test_postgres_listens_here_only_and_is_made_once(programs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    folder.mkdir()
    launch = Postgres().launch(folder, {"sql": 12345})
    assert launch.command[:1] == (str(programs / "postgres"),)
    assert launch.command[launch.command.index("-h") + 1] == "127.0.0.1"
    assert launch.command[launch.command.index("-p") + 1] == "12345"
    assert launch.end_signal == signal.SIGINT, "SIGTERM waits for every client"
    assert "--auth=trust" in (folder / "data" / "options").read_text()
    (folder / "data" / "options").write_text("kept")
    Postgres().launch(folder, {"sql": 12345})
    assert (folder / "data" / "options").read_text() == "kept"
    assert [path.name for path in folder.iterdir()] == ["data"]


def test_a_database_that_could_not_be_made_leaves_nothing(programs: Path, tmp_path: Path) -> None:
    program(programs / "initdb", '#!/bin/sh\nmkdir "$2"; echo no room >&2; exit 1\n')
    folder = tmp_path / "postgres"
    folder.mkdir()
    with pytest.raises(PlatformError, match=r"(?s)could not make a PostgreSQL database.*no room"):
        Postgres().launch(folder, {"sql": 12345})
    assert not any(folder.iterdir())


def test_as_root_it_is_somebody_else_in_a_namespace(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "postgres"
    (folder / "data").mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "--user" in Postgres().launch(folder, {"sql": 12345}).command
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlatformError, match="refuses to run as root, and `unshare` is not there"):
        Postgres().launch(folder, {"sql": 12345})


def test_a_folder_that_lacks_a_program_is_refused(programs: Path, tmp_path: Path) -> None:
    (programs / "pg_isready").unlink()
    with pytest.raises(PlatformError, match="postgres programs has no program pg_isready"):
        Postgres().launch(tmp_path, {"sql": 12345})


def test_postgres_is_not_ready_before_it_takes_logins(programs: Path) -> None:
    with pytest.raises(NotReady, match="nothing listens on"):
        Postgres().probe(free_ports(("sql",)))


def test_the_wheel_has_a_hash_for_each_platform() -> None:
    assert len(set(postgres._HASHES)) == 4
    assert all(len(digest) == 64 for digest in postgres._HASHES)


def test_a_server_is_asked_to_end_by_its_own_signal(tmp_path: Path) -> None:
    script = "import signal, sys, time; signal.signal(signal.SIGINT, lambda *_: sys.exit(0)); print('up', flush=True)"
    waiting = f"{script}; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    running = start(tmp_path, Launch(("python3", "-c", waiting), {}, signal.SIGINT), {})
    while "up" not in (tmp_path / "server.log").read_text():
        time.sleep(0.01)
    assert stop(running, grace_s=20.0), "SIGTERM would not have ended it"


def test_the_store_listens_here_only_and_has_its_buckets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = program(tmp_path / "versitygw")
    monkeypatch.setenv("K2BEAM_VERSITYGW", str(named))
    launch = VersityGateway().launch(tmp_path / "s3", {"http": 12345})
    assert launch.command[0] == str(named)
    assert "127.0.0.1:12345" in launch.command
    assert {path.name for path in (tmp_path / "s3" / "data").iterdir()} == set(BUCKETS)
    assert SECRET_KEY not in " ".join(launch.command)


def test_a_store_that_is_no_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2BEAM_VERSITYGW", str(tmp_path / "nothing"))
    with pytest.raises(PlatformError, match="nothing is not an executable file"):
        ensure_gateway()


def test_the_rest_catalog_needs_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "rest-catalog"
    folder.mkdir()
    with pytest.raises(PlatformError, match="rest-catalog needs s3, which was not started under"):
        Nessie().launch(folder, {"http": 12345, "management": 12346})
    monkeypatch.setattr(rest_catalog, "ports_beside", lambda folder, name: {"http": 7070})
    monkeypatch.setattr(rest_catalog, "ensure_jars", lambda group: (tmp_path / "nessie.jar",))
    monkeypatch.setattr(rest_catalog, "ensure_java", lambda *versions: tmp_path / "java")
    launch = Nessie().launch(folder, {"http": 12345, "management": 12346})
    assert "-Dquarkus.http.host=127.0.0.1" in launch.command
    assert "-Dquarkus.management.host=127.0.0.1" in launch.command
    assert "-Dnessie.catalog.service.s3.default-options.endpoint=http://127.0.0.1:7070" in launch.command
