"""Flink's programs: a distribution from PyPI, unpacked into the cache.

The source package ``apache-flink-libraries`` carries a whole Flink without its shell scripts. pip fetches it,
so that the user's index, proxy and certificates hold; its SHA-256 is pinned, and only what a session cluster for
Beam needs is unpacked.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from k2beam.cache import cache_dir, place
from k2beam.errors import PlatformError
from k2beam.stack.versions import FLINK

_PACKAGE: Final = "apache-flink-libraries"
_SHA256: Final = "4a58e3a1fb7d83340bc96b6c080624c6d792d69fae5d294b96224775204a9c60"
_WANTED: Final = ("bin/bash-java-utils.jar", "lib/", "licenses/", "plugins/metrics-prometheus/")
_LEFT_OUT: Final = ("lib/flink-scala_", "lib/flink-table-", "lib/flink-cep-")
"""Flink's SQL and Scala: a third of the size, and nothing that Beam uses."""
_HELP: Final = "Is PyPI reachable? pip takes PIP_INDEX_URL, HTTPS_PROXY and PIP_CERT"


def ensure_flink() -> Path:
    """The folder of Flink in the cache, with ``lib``, ``bin`` and ``plugins``; fetched (230 MB) where it is missing.

    Raises:
        PlatformError: the package can't be fetched or unpacked, or is not the pinned one.
    """
    target = cache_dir() / "unpacked" / f"flink-{FLINK}-{_SHA256[:12]}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="flink-") as scratch:
            archive = download(Path(scratch))
            unpack(archive, Path(scratch) / "deps")
            place(Path(scratch) / "deps", target)
    return target


def libraries(flink: Path) -> str:
    """Java's ``-cp`` for Flink's own processes: all of its ``lib``."""
    return f"{flink}/lib/*"


def unpack(archive: Path, target: Path) -> None:
    """Unpack what is wanted of the package's ``deps``. Raises PlatformError where that is not in it."""
    try:
        with tarfile.open(archive) as opened:
            opened.extractall(target, members=_wanted(opened), filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise PlatformError(f"could not unpack {archive.name} to {target}: {error}") from error
    if not list(target.glob("lib/flink-dist-*.jar")):
        raise PlatformError(f"{archive.name} has no deps/lib/flink-dist: is it {_PACKAGE} {FLINK}?")


def _wanted(opened: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in opened:
        inner = PurePosixPath(*PurePosixPath(member.name).parts[2:]).as_posix()  # PACKAGE-VERSION/deps/…
        in_deps = PurePosixPath(member.name).parts[1:2] == ("deps",)
        if in_deps and member.isfile() and inner.startswith(_WANTED) and not inner.startswith(_LEFT_OUT):
            yield member.replace(name=inner, deep=False)


def download(folder: Path) -> Path:
    """The package's archive, fetched into a folder. Raises PlatformError where it can't be had as it is pinned."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{_PACKAGE}=={FLINK} --hash=sha256:{_SHA256}\n", encoding="utf-8")
    options = ["--quiet", "--no-deps", "--require-hashes", f"--no-binary={_PACKAGE}", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, "--requirement", str(wanted)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise PlatformError(f"Flink can't be fetched: {command[0]} does not start ({error})") from error
    found = sorted(folder.glob("*.tar.gz"))
    if done.returncode != 0 or len(found) != 1:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-6:])
        raise PlatformError(f"{_PACKAGE} {FLINK} can't be fetched from PyPI. {_HELP}.\n{last}")
    return found[0]
