"""Quix Streams' environment, which is its own: it wants other versions of the libraries that k2beam has too.

``quix.txt`` is made from ``quix.in`` by the command at its head.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa

from bench.peers.peer import Unavailable
from k2beam.cache import cache_dir

PROGRAM = Path(__file__).with_name("quix_sink.py")
_PACKAGES = Path(__file__).with_name("quix.txt")
_DONE = "complete"


def pinned(package: str) -> str:
    """The version of a package."""
    found = re.search(rf"(?m)^{re.escape(package)}(?:\[.*\])?==(\S+)", _PACKAGES.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{_PACKAGES} has no {package}")
    return found.group(1)


def ensure_python() -> Path:
    """The Python of the environment in the cache, which is made where it's not there.

    Raises :class:`Unavailable` where it can't be.
    """
    digest = hashlib.sha256(_PACKAGES.read_bytes()).hexdigest()[:12]
    folder = cache_dir() / "peers" / f"quix-{digest}"
    python = folder / "bin" / "python"
    if not (folder / _DONE).exists():
        _call(sys.executable, "-m", "venv", "--clear", str(folder))
        install = ("-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:", "-r", str(_PACKAGES))
        _call(str(python), *install)
        (folder / _DONE).touch()
    return python


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"its packages can't be installed: {(done.stderr or done.stdout).strip()}")


def flat_schema(schema: pa.Schema) -> pa.Schema:
    """What the sink can write: its own two columns first, nothing nested, nothing required."""
    fields = [field.with_type(pa.string()) if pa.types.is_nested(field.type) else field for field in schema]
    own = [pa.field("_timestamp", pa.timestamp("us")), pa.field("_key", pa.string())]
    return pa.schema([*own, *(field.with_nullable(True) for field in fields)])
