"""Environments of Python for what can't be installed beside k2beam; they are made once and kept in the cache."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

from k2beam.cache import cache_dir, whole


def python_with(*requirements: str) -> Path:
    """The Python of an environment with these packages, each ``name==version``."""
    target = cache_dir() / "-".join(one.replace("==", "-") for one in requirements)
    if not target.exists():
        with whole(target) as made:
            venv.create(made, with_pip=True)
            install = [made / "bin/python", "-m", "pip", "install", "--quiet", *requirements]
            subprocess.run(install, check=True, capture_output=True)
    return target / "bin/python"
