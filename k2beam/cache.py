"""Where what was downloaded or built is kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """The folder for what is built or fetched: ``K2BEAM_CACHE``, or ``~/.cache/k2beam``."""
    configured = os.environ.get("K2BEAM_CACHE")
    return Path(configured).expanduser().absolute() if configured else Path.home() / ".cache" / "k2beam"


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A file to write in the place of ``target``: it is moved there when it is written, and is gone if that fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        partial = Path(folder) / target.name
        yield partial
        partial.replace(target)


def place(made: Path, target: Path) -> None:
    """Moves a folder to its name; a folder that another process placed meanwhile is as good."""
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():
            raise
