"""Programs that the local servers are made of, and what builds or fetches them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from k2beam.cache import cache_dir, place
from k2beam.errors import PlatformError


def is_executable(path: Path) -> bool:
    """Whether a path is a program that may be run."""
    return path.is_file() and os.access(path, os.X_OK)


def run_tool(
    command: Sequence[str], aim: str, advice: str, *, folder: Path | None = None, env: Mapping[str, str] | None = None
) -> None:
    """Run a command to its end; ``env`` is its environment (None: the caller's).

    Raises:
        PlatformError: it does not start or fails; says what it was for, its last lines and ``advice``.
    """
    try:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    except OSError as error:
        raise PlatformError(f"could not {aim}: {command[0]} does not start ({error}). {advice}") from error
    if done.returncode != 0:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise PlatformError(f"could not {aim}: exit code {done.returncode} of {command[0]}. {advice}.\n{last}")


def unpacked_wheel(distribution: str, version: str, hashes: Sequence[str], advice: str) -> Path:
    """The folder of the cache that has a wheel's files, without what it depends on; fetched from PyPI where missing.

    ``hashes``: the SHA-256 (hex) of every wheel of that version that will do.

    Raises:
        PlatformError: it can't be had, or has another hash; ends with ``advice``.
    """
    root = cache_dir() / f"{distribution}-{version}"
    if root.is_dir():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f"{distribution}-") as scratch:
        wanted = Path(scratch) / "requirements.txt"
        given = " ".join(f"--hash=sha256:{digest}" for digest in hashes)
        wanted.write_text(f"{distribution}=={version} {given}\n", encoding="utf-8")
        installed = Path(scratch) / "installed"
        options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--target", str(installed)]
        command = [sys.executable, "-m", "pip", "install", *options, "--requirement", str(wanted)]
        run_tool(command, f"install {distribution} {version} from PyPI", advice)
        place(installed, root)
    return root
