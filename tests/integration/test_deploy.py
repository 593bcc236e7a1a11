"""deploy/ as its own tools read it, and the steps of the Dockerfile as far as they go without Docker."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from k2beam.errors import PlatformError
from tests.deploy_tools import compose, hadolint, kubeconform, schemas
from tests.documents import ROOT

pytestmark = pytest.mark.integration

DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"


def ran(*command: str | Path, code: int = 0, cwd: Path = Path("/"), **env: str) -> str:
    """What a program writes to both streams."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **env},
    )
    assert done.returncode == code, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def conform(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    """kubeconform with what it compares with, refusing fields that nobody knows."""
    try:
        return [str(kubeconform()), "-strict", "-summary", *schemas(tmp_path_factory.mktemp("schemas"))]
    except PlatformError as error:
        pytest.skip(f"no kubeconform or no schemas: {error}")


def test_manifests_are_what_kubernetes_and_its_operators_take(conform: Sequence[str]) -> None:
    said = ran(*conform, *MANIFESTS)
    documents = [one for path in MANIFESTS for one in yaml.safe_load_all(path.read_text("utf-8")) if one]
    assert f"Summary: {len(documents)} resources found in {len(MANIFESTS)} files - Valid: {len(documents)}," in said
    assert "Skipped: 0" in said


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("flink.yaml", "flinkVersion: v1_19", "flinkVersion: v0_1"),
        ("flink.yaml", "taskManager:", "taskManagers:"),
        ("pod-monitor.yaml", "podMetricsEndpoints:", "podMetricEndpoints:"),
        ("beam.yaml", "readinessProbe:", "readynessProbe:"),
        ("network-policy.yaml", "podSelector:", "podSelektor:"),
    ],
)
def test_a_mistake_in_a_manifest_is_seen(
    conform: Sequence[str], tmp_path: Path, name: str, right: str, wrong: str
) -> None:
    text = (DEPLOY / "kubernetes" / name).read_text("utf-8")
    assert right in text
    (tmp_path / name).write_text(text.replace(right, wrong), "utf-8")
    assert "is invalid" in ran(*conform, tmp_path / name, code=1)


def test_the_dockerfile_passes_its_linter(tmp_path: Path) -> None:
    try:
        linter = hadolint()
    except PlatformError as error:
        pytest.skip(f"no hadolint: {error}")
    assert ran(linter, DOCKERFILE) == ""
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN cd /tmp && sudo true\n", "utf-8")
    assert "DL3004" in ran(linter, tmp_path / "Dockerfile", code=1)


def test_compose_reads_its_file() -> None:
    try:
        program = compose()
    except PlatformError as error:
        pytest.skip(f"no docker-compose: {error}")
    file = DEPLOY / "compose" / "docker-compose.yml"
    passwords = {"POSTGRES_PASSWORD": "p", "S3_ACCESS_KEY": "a", "S3_SECRET_KEY": "s"}
    read = json.loads(ran(program, "-f", file, "config", "--format", "json", **passwords))
    assert read["services"]["ingest"]["environment"]["PYICEBERG_CATALOG__LAKE__S3__SECRET_ACCESS_KEY"] == "s"
    assert "--topic-pattern=market[.].*" in read["services"]["ingest"]["command"]
    refused = ran(program, "-f", file, "config", code=1, **{**passwords, "S3_SECRET_KEY": ""})
    assert "S3_SECRET_KEY" in refused


def steps(stage: str) -> list[str]:
    """The commands of a stage's RUN instructions."""
    [body] = re.findall(rf"^FROM \S+ AS {stage}\n(.*?)(?=^FROM|\Z)", DOCKERFILE.read_text("utf-8"), re.M | re.S)
    return [found.replace("\\\n", " ") for found in re.findall(r"^RUN (.*?)(?<!\\)$", body, re.M | re.S)]


def test_the_steps_of_the_images_make_programs_that_run(tmp_path: Path) -> None:
    """In folders of this machine; what only an image has (users, other bases) is left out."""
    source = tmp_path / "src"
    tracked = ran("git", "-C", ROOT, "ls-files", "-z").split("\0")
    for name in filter(None, tracked):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    for command in (*steps("wheel"), *steps("jars")):
        there = command.replace("python -m venv", f"{shlex.quote(sys.executable)} -m venv").replace(
            "/opt/", f"{tmp_path}/opt/"
        )
        done = subprocess.run(["sh", "-ec", there], cwd=source, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{there}\n{done.stderr[-3000:]}"
    program = tmp_path / "opt" / "k2beam" / "bin" / "k2beam"
    assert "worker pool" in ran(program, "worker", "pool", "--help", PYTHONPATH="")
    boot = ran(program.with_name("python"), "-c", "import k2beam; print(k2beam.__file__)", PYTHONPATH="")
    assert str(tmp_path / "opt") in boot, "it is installed, and not a link to the source"
    jars = {jar.name for jar in (tmp_path / "opt" / "beam").glob("*.jar")}
    beside = {jar.name for jar in (tmp_path / "opt" / "beam-for-flink").glob("*.jar")}
    assert beside < jars
    assert any(name.startswith("beam-runners-flink") for name in beside)
    assert not any(name.startswith(("flink-", "slf4j")) for name in beside)
    assert zipfile.is_zipfile(tmp_path / "opt" / "beam" / next(iter(jars)))
    assert "--add-opens=java.base/java.lang=ALL-UNNAMED" in (tmp_path / "opt" / "beam" / "java.args").read_text()
    assert os.access(program.with_name("k2beam-boot"), os.X_OK)
    ran(program.with_name("python"), "-c", "import psycopg2", PYTHONPATH="")
