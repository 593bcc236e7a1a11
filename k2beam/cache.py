"""Where what was downloaded or built is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """The folder for what is built or fetched: ``K2BEAM_CACHE``, or ``~/.cache/k2beam``."""
    configured = os.environ.get("K2BEAM_CACHE")
    return Path(configured).expanduser().absolute() if configured else Path.home() / ".cache" / "k2beam"


def place(made: Path, target: Path) -> None:
    """Moves a folder to its name; a folder that another process placed meanwhile is as good."""
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():
            raise
