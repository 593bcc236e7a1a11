"""What deploy/ says: commands that exist, settings and versions that are those of the stack that is tested."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from k2beam.stack import versions
from k2beam.stack.beam_jars import java_flags
from k2beam.stack.flink import job_manager_settings, task_manager_settings
from tests.documents import ROOT, parse

DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
COMPOSE = yaml.safe_load((DEPLOY / "compose" / "docker-compose.yml").read_text("utf-8"))
DOCKERFILE = (DEPLOY / "docker" / "Dockerfile").read_text("utf-8")
PORTS = {"rest": 1, "rpc": 1, "blob": 1, "data": 1, "metrics": 1}

SAME = (
    "classloader.resolve-order",
    "taskmanager.memory.jvm-metaspace.size",
    "taskmanager.memory.managed.size",
    "taskmanager.numberOfTaskSlots",
    "state.backend.type",
    "state.checkpoint-storage",
    "restart-strategy.type",
    "restart-strategy.failure-rate.max-failures-per-interval",
    "restart-strategy.failure-rate.failure-rate-interval",
    "metrics.fetcher.update-interval",
    "metrics.reporter.prometheus.factory.class",
)
"""Settings of Flink that the tests run with, and that a deployment has too."""


def documents() -> list[dict[str, Any]]:
    """Every object of the manifests."""
    return [found for path in MANIFESTS for found in yaml.safe_load_all(path.read_text("utf-8")) if found]


def containers(found: Any) -> Iterator[dict[str, Any]]:
    """The containers below an object, wherever they are."""
    if isinstance(found, dict):
        yield from found.get("containers", ())
        for value in found.values():
            yield from containers(value)
    elif isinstance(found, list):
        for value in found:
            yield from containers(value)


def in_kubernetes(image: str) -> list[list[str]]:
    return [each["args"] for each in containers(documents()) if each.get("image") == image]


def in_compose(image: str) -> list[list[str]]:
    services = COMPOSE["services"].values()
    return [each["command"] for each in services if each.get("image") == image and "command" in each]


@pytest.mark.parametrize(
    "arguments",
    [*in_kubernetes("k2beam"), *in_compose("k2beam"), json.loads(DOCKERFILE.split("CMD ")[1].splitlines()[0])],
    ids=lambda arguments: " ".join(arguments[:3]),
)
def test_a_command_of_k2beam_is_one(arguments: list[str]) -> None:
    plain = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", argument) for argument in arguments if argument != "--log-json"]
    assert parse(shlex.join(["k2beam", *plain]), whole=True)


def test_a_client_attaches_and_workers_are_of_the_pool_beside_flink() -> None:
    clients = [each for each in (*in_kubernetes("k2beam"), *in_compose("k2beam")) if "kafka" in each]
    assert len(clients) == 2
    for client in clients:
        assert "--attach" in client
        assert {"--environment_type=EXTERNAL", "--environment_config=localhost:50000"} <= {*client}
    pools = [each for each in in_kubernetes("k2beam") if "pool" in each]
    assert pools == [["worker", "pool", "--listen=127.0.0.1:50000", "--health=0.0.0.0:50001"]]
    assert COMPOSE["services"]["pool"]["network_mode"] == "service:taskmanager"


def of_the_stack() -> dict[str, str]:
    """Flink's settings of the local stack."""
    folder = Path("/x/y")
    settings = job_manager_settings(folder, PORTS) | task_manager_settings(folder, PORTS, PORTS)
    return {name: str(value) for name, value in settings.items()}


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_flinks_settings_are_those_that_are_tested(where: str) -> None:
    if where == "compose":
        settings = yaml.safe_load((DEPLOY / "compose" / "flink.yaml").read_text("utf-8"))
    else:
        [settings] = (each["spec"]["flinkConfiguration"] for each in documents() if each["kind"] == "FlinkDeployment")
    assert {name: settings[name] for name in SAME} == {name: of_the_stack()[name] for name in SAME}
    assert settings["env.java.opts.all"].split() == list(java_flags())


def test_versions_are_those_of_one_file() -> None:
    images = {name: service["image"] for name, service in COMPOSE["services"].items()}
    assert images["kafka"].endswith(f":{versions.KAFKA}")
    assert images["registry"].endswith(f":{versions.REGISTRY}")
    assert images["s3"].endswith(f":v{versions.OBJECT_STORE}")
    assert f"FROM flink:{versions.FLINK}-java{versions.FLINK_JAVA[1]} " in DOCKERFILE
    assert f"FROM eclipse-temurin:{versions.FLINK_JAVA[1]}-jre " in DOCKERFILE
    [flink] = (each for each in documents() if each["kind"] == "FlinkDeployment")
    assert flink["spec"]["flinkVersion"] == "v" + "_".join(versions.FLINK.split(".")[:2])


@pytest.mark.parametrize(
    ("pom", "version"),
    [
        ("kafka", versions.KAFKA),
        ("apicurio", versions.REGISTRY),
        ("nessie", versions.REST_CATALOG),
        ("flink-job-server", versions.BEAM_ON_FLINK),
    ],
)
def test_poms_name_the_same(pom: str, version: str) -> None:
    root = ElementTree.parse(ROOT / "ops" / "maven" / f"{pom}.pom.xml")
    names = {node.text for node in root.iter() if node.tag.endswith(("}version", "}beam.version"))}
    assert version in names


def test_nothing_runs_as_root_and_no_secret_is_in_a_file() -> None:
    stages = re.findall(r"^FROM .*? AS (\w+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert {name for name, body in stages if re.search(r"^USER (?!root|0)", body, re.MULTILINE)} == {
        *("k2beam", "beam", "flink"),
    }
    secrets = [each for each in documents() if each["kind"] == "Secret"]
    assert all("CHANGE-ME" in value for secret in secrets for value in secret["stringData"].values())
    example = (DEPLOY / "compose" / "env.example").read_text("utf-8")
    assert re.search(r"^POSTGRES_PASSWORD=$", example, re.MULTILINE)
    assert re.search(r"^S3_SECRET_KEY=$", example, re.MULTILINE)


def test_ports_without_a_login_are_closed() -> None:
    """Of the Beam and Flink services; in compose they are this machine's alone."""
    policies = [each for each in documents() if each["kind"] == "NetworkPolicy"]
    labels = [each["spec"]["podSelector"] for each in policies]
    assert {"matchLabels": {"app": "k2beam"}} in labels
    assert {"matchLabels": {"app.kubernetes.io/name": "k2beam-beam"}} in labels
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
