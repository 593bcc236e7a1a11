"""Packages of Debian and Ubuntu without root: fetched with the machine's own apt and unpacked, never installed.

It is the machine's apt with its sources, its proxy, and its check of each package against the signed index.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from k2beam.cache import place
from k2beam.errors import PlatformError

_SIGNED_ONLY: Final = (
    "-oAPT::Get::AllowUnauthenticated=false",
    "-oAcquire::AllowInsecureRepositories=false",
    "-oAcquire::AllowWeakRepositories=false",
)


def unpack_package(package: str, target: Path, help_text: str, *, depends: bool = False) -> None:
    """Put the files of a package into the folder ``target``, as if that were ``/``.

    ``depends``: with those of the packages that it needs and that this machine does not have.

    Raises:
        PlatformError: apt is not there, or can't fetch or unpack it; with ``help_text``, which says what to do then.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise PlatformError(f"{package} is not at hand, and can't be fetched without {tool}. {help_text}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{package}-") as scratch:
        folder = Path(scratch)
        apt = _Apt(folder, help_text)
        try:
            names = apt.download(package, depends=depends)
        except PlatformError:
            # The machine's lists of packages are missing, or too old for what the archive has now.
            apt.update_own_lists()
            names = apt.download(package, depends=depends)
        for each in apt.downloaded(package, names):
            apt.run(("dpkg-deb", "-x", str(each), str(folder / "unpacked")), f"unpack {each.name}")
        place(folder / "unpacked", target)


class _Apt:
    """apt-get, with a folder for what it fetches."""

    def __init__(self, folder: Path, help_text: str) -> None:
        self._folder = folder
        self._help = help_text
        self._options: tuple[str, ...] = _SIGNED_ONLY

    def download(self, package: str, *, depends: bool) -> list[str]:
        """Fetch a package, and those that it needs; gives their names."""
        names = self._needed(package) if depends else [package]
        self.run(("apt-get", *self._options, "download", *names), f"fetch the package {package}")
        return names

    def downloaded(self, package: str, names: Sequence[str]) -> list[Path]:
        """The file of each package that was fetched with ``package``. Raises PlatformError where one is not there."""
        found = [path for name in names for path in sorted(self._folder.glob(f"{name}_*.deb"))]
        if len(found) != len(names):
            raise PlatformError(
                f"apt-get download {package} reported success but left {len(found)} packages. {self._help}"
            )
        return found

    def update_own_lists(self) -> None:
        """Let apt keep its lists in a folder of ours, since those of the machine belong to root."""
        state, cache = self._folder / "apt-state", self._folder / "apt-cache"
        (state / "lists" / "partial").mkdir(parents=True)
        (cache / "archives" / "partial").mkdir(parents=True)
        own = (f"-oDir::State={state}", "-oDir::State::status=/var/lib/dpkg/status", f"-oDir::Cache={cache}")
        self._options = (*_SIGNED_ONLY, *own)
        self.run(("apt-get", *self._options, "update"), "fetch the lists of packages")

    def run(self, command: Sequence[str], aim: str) -> str:
        """What a command prints. Raises PlatformError, saying that it could not ``aim``."""
        try:
            done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=False)
        except OSError as error:
            raise PlatformError(f"could not {aim}: {command[0]} does not start ({error}). {self._help}") from error
        if done.returncode != 0:
            last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-6:])
            raise PlatformError(f"could not {aim}: exit code {done.returncode} of {command[0]}. {self._help}.\n{last}")
        return done.stdout

    def _needed(self, package: str) -> list[str]:
        """The package and what it needs; a line of the plan is ``'URI' name_version_architecture.deb size hash``."""
        wanted = ("install", "--print-uris", "--yes", "--no-install-recommends", "-oDebug::NoLocking=1", package)
        plan = self.run(("apt-get", *self._options, *wanted), f"find what the package {package} needs")
        lines = [line.split() for line in plan.splitlines() if line.startswith("'")]
        return [line[1].partition("_")[0] for line in lines]
