"""Flink's programs, its configuration, and its jobs over a REST API that is a small server here."""

from __future__ import annotations

import io
import stat
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from k2beam.errors import PlatformError
from k2beam.stack import flink, flink_dist, stack
from k2beam.stack.jars import locked_artifacts
from k2beam.stack.server import Launch
from k2beam.stack.stack import SERVICES, LocalStack

PACKAGE = "apache-flink-libraries-1.19.3"
WANTED = {
    "lib/flink-dist-1.19.3.jar": b"dist",
    "lib/log4j-core-2.17.1.jar": b"log",
    "bin/bash-java-utils.jar": b"tool",
    "plugins/metrics-prometheus/flink-metrics-prometheus-1.19.3.jar": b"metrics",
}
UNWANTED = {"lib/flink-table-runtime-1.19.3.jar": b"sql", "opt/flink-python-1.19.3.jar": b"python"}
JOB_MANAGER = {"rest": 8082, "rpc": 6123, "blob": 6124}
TASK_MANAGER = {"rpc": 6122, "data": 6121, "metrics": 9249}


def archive(path: Path, files: dict[str, bytes], inside: str = "deps") -> Path:
    with tarfile.open(path, "w:gz") as opened:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{PACKAGE}/{inside}/{name}")
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return path


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("K2BEAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_only_what_a_session_cluster_needs_is_unpacked(tmp_path: Path) -> None:
    flink_dist.unpack(archive(tmp_path / "a.tar.gz", WANTED | UNWANTED), tmp_path / "out")
    assert files(tmp_path / "out") == WANTED


def test_another_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"a\.tar\.gz has no deps/lib/flink-dist"):
        flink_dist.unpack(archive(tmp_path / "a.tar.gz", WANTED, inside="other"), tmp_path / "out")


def test_a_damaged_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(PlatformError, match="could not unpack"):
        flink_dist.unpack(tmp_path / "a.tar.gz", tmp_path / "out")


def test_a_member_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="could not unpack"):
        flink_dist.unpack(archive(tmp_path / "a.tar.gz", WANTED | {"lib/../../out.jar": b""}), tmp_path / "out")
    assert not (tmp_path / "out.jar").exists()


def test_pip_fetches_it_once_with_its_hash(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = archive(tmp_path / f"{PACKAGE}.tar.gz", WANTED)
    pip = program(
        tmp_path / "python",
        f'echo "$@" >> {tmp_path}/calls\nwhile [ "$1" != --dest ]; do shift; done\n'
        f"cp {made} $2/\ncat $2/requirements.txt >> {tmp_path}/calls",
    )
    monkeypatch.setattr(sys, "executable", str(pip))
    found = flink_dist.ensure_flink()
    assert files(found) == WANTED
    assert [path.name for path in (cache / "unpacked").iterdir()] == [found.name], "nothing else is left behind"
    assert flink_dist.ensure_flink() == found
    called, required = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert "--require-hashes" in called
    assert "--no-deps" in called
    assert required.startswith("apache-flink-libraries==1.19.3 --hash=sha256:4a58e3a1")


@pytest.mark.usefixtures("cache")
def test_a_failed_download_says_why_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(program(tmp_path / "python", "echo no such package >&2; exit 1")))
    with pytest.raises(PlatformError, match=r"PIP_INDEX_URL(.|\n)*no such package"):
        flink_dist.ensure_flink()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(PlatformError, match="none does not start"):
        flink_dist.ensure_flink()


def test_the_archives_of_the_job_server_are_locked() -> None:
    names = {artifact.name for artifact in locked_artifacts(flink.JOB_SERVER)}
    assert {"beam-runners-flink-1.19-2.70.0.jar", "beam-sdks-java-io-kafka-2.70.0.jar", "jamm-0.4.0.jar"} <= names
    assert not [artifact.path for artifact in locked_artifacts(flink.JOB_SERVER) if "confluent" in artifact.path]


def test_flink_listens_on_this_machine_and_both_sides_agree(tmp_path: Path) -> None:
    manager = flink.job_manager_settings(tmp_path / flink.JOB_MANAGER, JOB_MANAGER)
    worker = flink.task_manager_settings(tmp_path / flink.TASK_MANAGER, TASK_MANAGER, JOB_MANAGER)
    bound = {name: value for name, value in (manager | worker).items() if "bind-" in name and "port" not in name}
    assert set(bound) == {"jobmanager.bind-host", "rest.bind-address", "taskmanager.bind-host"}
    assert set(bound.values()) == {"127.0.0.1"}
    shared = ("jobmanager.rpc.port", "state.checkpoints.dir", "heartbeat.timeout")
    assert [manager[name] for name in shared] == [worker[name] for name in shared]
    assert worker["taskmanager.numberOfTaskSlots"] == flink.SLOTS
    assert manager["restart-strategy.type"] == "failure-rate"


def test_default_ports_are_different() -> None:
    ports = [port for service in SERVICES.values() for port in service.default_ports.values()]
    assert len(ports) == len(set(ports))


def test_the_job_manager_is_started_first() -> None:
    order = [name for name in SERVICES if name in flink.FLINK_SERVICES]
    assert order == list(flink.FLINK_SERVICES)


@dataclass(frozen=True)
class Recorder:
    """A service that notes its start, and does not come up if it is the last."""

    name: str
    started: list[str]
    default_ports: Mapping[str, int] = field(default_factory=dict)
    patience_s: float = 30.0

    def launch(self, folder: Path, ports: Mapping[str, int]) -> Launch:
        self.started.append(self.name)
        if self.name == "last":
            raise PlatformError("not today")
        return Launch((sys.executable, "-c", "import time; time.sleep(600)"), {})

    def probe(self, ports: Mapping[str, int]) -> None: ...

    def addresses(self, ports: Mapping[str, int]) -> dict[str, str]:
        return {}


def test_servers_start_in_their_own_order_however_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(stack, "SERVICES", {name: Recorder(name, started) for name in ("first", "last")})
    with pytest.raises(PlatformError, match="not today"):
        LocalStack(tmp_path / "s", ("last", "first")).up()
    assert started == ["first", "last"]


@pytest.mark.parametrize("name", [flink.TASK_MANAGER, flink.JOB_SERVER])
def test_without_a_job_manager_it_says_what_is_missing(
    name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flink, "ensure_flink", lambda: cache)
    monkeypatch.setattr(flink, "ensure_java", lambda *_: Path("java"))
    with pytest.raises(PlatformError, match=f"{name} needs flink-jobmanager, which was not started under"):
        LocalStack(tmp_path / "s", (name,)).up()


def test_memory_is_what_flinks_tool_says(tmp_path: Path) -> None:
    java = program(
        tmp_path / "java",
        "echo a warning\necho BASH_JAVA_UTILS_EXEC_RESULT:-Xmx1 -Xms1\necho BASH_JAVA_UTILS_EXEC_RESULT:-D a=b -D c=d",
    )
    assert flink.memory(str(java), tmp_path, tmp_path) == (("-Xmx1", "-Xms1"), ("-D", "a=b", "-D", "c=d"))


@pytest.mark.parametrize("code", [0, 1])
def test_a_tool_that_says_no_memory_is_an_error(tmp_path: Path, code: int) -> None:
    broken = program(tmp_path / "broken", f"echo sizes do not add up >&2; exit {code}")
    with pytest.raises(PlatformError, match=r"memory from (.|\n)*sizes do not add up"):
        flink.memory(str(broken), tmp_path, tmp_path)
