"""What the doctor says of this machine and of servers that are there, away, or refuse."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from k2beam import doctor
from k2beam.cli.main import app
from k2beam.config import NAMESPACE, LakeConfig
from k2beam.doctor import Diagnosis, Health, Patient, examine
from k2beam.errors import PlatformError
from k2beam.kafka.config import KafkaConfig
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import DEAD_LETTERS, open_table
from k2beam.registry.config import RegistryConfig
from tests.audit_helpers import Row, SmallLake
from tests.flink_rest import flink_rest
from tests.http_servers import QuietHandler, closed_port, serving
from tests.registry_server import registry_server


def looked(patient: Patient) -> dict[str, Diagnosis]:
    """The diagnoses by what was looked at; what is to be mended has what mends it."""
    found = {one.check: one for one in examine(patient)}
    assert all(bool(one.mend) == (one.status in (Health.WARNING, Health.FAILED)) for one in found.values())
    return found


def test_what_is_not_asked_for_is_left_out_and_a_new_warehouse_is_no_failure(tmp_path: Path) -> None:
    found = looked(Patient(LakeConfig(str(tmp_path / "new"))))
    skipped = {name for name, one in found.items() if one.status is Health.SKIPPED}
    assert skipped == {
        *("catalog", "store", "kafka", "registry", "flink", "job server", "expansion", "workers", "clock"),
    }
    assert found["python"].status is Health.OK
    assert found["warehouse folder"].found.startswith(f"{tmp_path / 'new'}, which is not there yet: ")
    assert not (tmp_path / "new").exists()


def test_tables_are_opened_and_their_store_is_tried(tmp_path: Path) -> None:
    lake = SmallLake(tmp_path)
    lake.add([Row(0, 1)])
    open_table(open_catalog(lake.config), NAMESPACE, DEAD_LETTERS)
    before = sorted(tmp_path.rglob("*"))
    found = looked(Patient(lake.config))
    assert (found["catalog"].status, found["store"].status) == (Health.OK, Health.OK)
    assert "written, read and deleted" in found["store"].found
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left behind"


def test_a_store_that_takes_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = SmallLake(tmp_path)
    open_table(open_catalog(lake.config), NAMESPACE, DEAD_LETTERS)
    monkeypatch.setattr("k2beam.lake.storage.store_of", refusing)
    found = looked(Patient(lake.config))["store"]
    assert (found.status, found.found) == (
        Health.FAILED,
        "PermissionError: [Errno 13] no right to write",
    )


def refusing(*_: object, **__: object) -> None:
    raise PermissionError(13, "no right to write")


def test_a_folder_without_rights_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refusing)
    found = looked(Patient(LakeConfig(str(tmp_path))))["warehouse folder"]
    assert (found.status, found.found) == (Health.FAILED, "PermissionError: [Errno 13] no right to write")


@pytest.mark.parametrize(
    ("free", "status"), [(100 << 20, Health.FAILED), (1 << 30, Health.WARNING), (10 << 30, Health.OK)]
)
def test_space_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: Health) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    found = looked(Patient(LakeConfig(str(tmp_path))))["warehouse folder"]
    assert found.status is status
    assert f"{free / (1 << 30):.1f} GiB free" in found.found


def test_programs_that_are_not_there_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2BEAM_CACHE", str(tmp_path))
    monkeypatch.delenv("K2BEAM_PRISM", raising=False)
    monkeypatch.setattr(doctor, "find_java", lambda *_: None)
    monkeypatch.setattr(doctor, "PACKAGES", ("k2beam", "no-such-package"))
    found = looked(Patient(LakeConfig(str(tmp_path))))
    status = {name: found[name].status for name in ("java", "prism", "jars", "packages")}
    warned = dict.fromkeys(("java", "prism", "jars"), Health.WARNING)
    assert status == {**warned, "packages": Health.FAILED}
    assert "not fetched yet: " in found["jars"].found


def test_a_variable_that_names_no_program_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_prism", lambda: (_ for _ in ()).throw(PlatformError("K2BEAM_PRISM=/x is not")))
    found = looked(Patient(LakeConfig(str(tmp_path))))["prism"]
    assert (found.status, found.found) == (Health.FAILED, "K2BEAM_PRISM=/x is not")


def test_servers_that_are_away_are_told(tmp_path: Path) -> None:
    away = f"127.0.0.1:{closed_port()}"
    found = looked(
        Patient(
            LakeConfig(str(tmp_path)),
            KafkaConfig(away),
            RegistryConfig(f"http://{away}", wait_s=0, timeout_s=1),
            *(away, away, away, away),
        )
    )
    names = ("kafka", "registry", "flink", "job server", "expansion", "workers", "clock")
    assert {name: found[name].status for name in names} == dict.fromkeys(names, Health.FAILED)


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


class Pool(QuietHandler):
    """The health of a worker pool."""

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        self.answer(200, b'{"workers": 3}')


@pytest.mark.parametrize(("free", "status"), [(1, Health.OK), (0, Health.WARNING)])
def test_servers_that_are_there_are_told(tmp_path: Path, listening: str, free: int, status: Health) -> None:
    overview = {"flink-version": "1.19.3", "taskmanagers": 2, "slots-total": 4, "jobs-running": 1}
    with (
        flink_rest() as (made, jobs),
        serving(Pool) as pool,
        registry_server(lambda *_: (200, ["trade", "quote"])) as (registry, _),
    ):
        made.answers["/overview"] = {**overview, "slots-available": free}
        found = looked(
            Patient(
                LakeConfig(str(tmp_path)),
                registry=RegistryConfig(registry),
                flink_master=jobs.url.removeprefix("http://"),
                job_endpoint=listening,
                worker_health=pool.removeprefix("http://"),
            )
        )
    assert found["flink"].status is status
    assert found["flink"].found == f"Flink 1.19.3: 2 TaskManagers, {free} of 4 slots free, 1 jobs run"
    assert found["workers"].found.endswith(": 3 workers")
    assert found["registry"].found.endswith(": 2 subjects")
    told = {name: found[name].status for name in ("job server", "registry", "workers", "clock")}
    assert told == dict.fromkeys(told, Health.OK)


@pytest.mark.parametrize(("off", "status"), [(0, Health.OK), (-60, Health.WARNING), (3_600, Health.WARNING)])
def test_the_clock_is_compared_with_a_server(tmp_path: Path, off: int, status: Health) -> None:
    class Late(QuietHandler):
        def date_time_string(self, timestamp: float | None = None) -> str:
            del timestamp
            return formatdate(time.time() - off, usegmt=True)

        def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
            self.answer(404)

    with serving(Late) as url:
        found = looked(Patient(LakeConfig(str(tmp_path)), flink_master=url))["clock"]
    assert found.status is status
    assert abs(int(found.found.partition(" s from that of ")[0]) - off) <= 1


def test_an_address_that_is_none_is_told(tmp_path: Path) -> None:
    found = looked(Patient(LakeConfig(str(tmp_path)), job_endpoint="here"))["job server"]
    assert (found.status, found.found) == (Health.FAILED, "here is no HOST:PORT")


@pytest.mark.parametrize(("free", "code", "said"), [(10 << 30, 0, ""), (0, 1, "FAILED: cache folder, temporary files")])
def test_the_command_exits_with_1_where_something_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, code: int, said: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    result = CliRunner().invoke(app, ["doctor", "--warehouse", str(tmp_path), "--output", "json"])
    assert result.exit_code == code
    rows = json.loads(result.stdout)
    assert {"check", "status", "found", "mend"} == set(rows[0])
    assert said in result.stderr
