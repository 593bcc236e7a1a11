"""An object store with Amazon's S3 interface as a local server: Versity's gateway over a folder.

It is a Go program that is built without root (:mod:`k2beam.stack.go`), unless ``K2BEAM_VERSITYGW`` names one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from k2beam.cache import cache_dir
from k2beam.errors import PlatformError
from k2beam.stack.go import build_program
from k2beam.stack.programs import is_executable
from k2beam.stack.server import HOST, Launch, answers, connect
from k2beam.stack.versions import OBJECT_STORE

S3: Final = "s3"
ACCESS_KEY: Final = "k2beam"
SECRET_KEY: Final = "k2beam-local"  # noqa: S105 - the server takes connections of this machine only
REGION: Final = "us-east-1"
BUCKETS: Final = ("lake", "archive")

_MODULE: Final = "github.com/versity/versitygw/cmd/versitygw"
_HELP: Final = "Set K2BEAM_VERSITYGW to a versitygw program, or install Go 1.26 or later and try again"


def ensure_gateway() -> Path:
    """The program; built into the cache where it is missing (one to five minutes).

    Raises:
        PlatformError: ``K2BEAM_VERSITYGW`` names no executable file, or Go can't be had or fails.
    """
    named = os.environ.get("K2BEAM_VERSITYGW")
    version = OBJECT_STORE
    path = Path(named).expanduser().absolute() if named else cache_dir() / "bin" / f"versitygw-{version}"
    if is_executable(path):
        return path
    if named:
        raise PlatformError(f"K2BEAM_VERSITYGW={named} is not an executable file: name a versitygw program or unset it")
    return build_program(_MODULE, version, _HELP)


@dataclass(frozen=True)
class VersityGateway:
    """Versity's gateway with the buckets ``lake`` and ``archive``; ``s3_endpoint`` is its URL."""

    name: str = S3
    patience_s: float = 60.0

    @property
    def default_ports(self) -> Mapping[str, int]:
        return {"http": 7070}

    def launch(self, folder: Path, ports: Mapping[str, int]) -> Launch:
        program = ensure_gateway()
        # What a file system can't keep beside a file (extended attributes) goes into a folder of its own.
        data, beside = folder / "data", folder / "attributes"
        for place in (beside, *(data / bucket for bucket in BUCKETS)):
            place.mkdir(parents=True, exist_ok=True)
        options = ("--port", f"{HOST}:{ports['http']}", "--region", REGION, "--health", "/health", "--quiet")
        environment = {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
        return Launch((str(program), *options, "posix", "--sidecar", str(beside), str(data)), environment)

    def probe(self, ports: Mapping[str, int]) -> None:
        connect(ports["http"])
        answers(f"{self.addresses(ports)['s3_endpoint']}/health")

    def addresses(self, ports: Mapping[str, int]) -> dict[str, str]:
        return {"s3_endpoint": f"http://{HOST}:{ports['http']}"}


def s3_properties(endpoint: str) -> dict[str, str]:
    """What pyiceberg is to be told of the local store (its ``s3.*`` settings)."""
    return {
        "s3.endpoint": endpoint,
        "s3.access-key-id": ACCESS_KEY,
        "s3.secret-access-key": SECRET_KEY,
        "s3.region": REGION,
        "s3.force-virtual-addressing": "false",
    }
