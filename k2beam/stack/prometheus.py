"""Prometheus and promtool without root, and Prometheus as a server of the local stack.

The programs are looked for in this order: the folder that ``K2BEAM_PROMETHEUS`` names, the PATH, the cache. What is
not there is fetched as a package of Debian or Ubuntu and unpacked into ``${K2BEAM_CACHE:-~/.cache/k2beam}/unpacked``.
Both are Go programs that need nothing but the C library.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from k2beam.cache import cache_dir
from k2beam.errors import PlatformError
from k2beam.stack.debian import unpack_package
from k2beam.stack.programs import is_executable
from k2beam.stack.server import HOST, Launch, answers, connect

Program = Literal["prometheus", "promtool"]

JOBS: Final = ("k2beam-workers", "k2beam-exporter")
"""The jobs that the local server scrapes; alerts go by these names."""

_PACKAGE: Final = "prometheus"
_HELP: Final = (
    "Install Prometheus 2.30 or later (Debian and Ubuntu: apt install prometheus; macOS: brew install prometheus), so "
    "that prometheus and promtool are on the PATH, or set K2BEAM_PROMETHEUS to their folder"
)


def find_prometheus(program: Program = "prometheus") -> Path | None:
    """A program that is there already, or None.

    Raises:
        PlatformError: ``K2BEAM_PROMETHEUS`` is set but its folder has no such program.
    """
    named = os.environ.get("K2BEAM_PROMETHEUS")
    if named:
        path = Path(named).expanduser().absolute() / program
        if not is_executable(path):
            raise PlatformError(f"K2BEAM_PROMETHEUS={named} has no program {program}: name its folder or unset it")
        return path
    if found := shutil.which(program):
        return Path(found)
    cached = _cached() / "usr" / "bin" / program
    return cached if is_executable(cached) else None


def ensure_prometheus(program: Program = "prometheus") -> Path:
    """A program of Prometheus; its package (20 MB) is fetched into the cache where it is missing.

    Raises:
        PlatformError: it is not there, and apt is not either, or can't fetch or unpack it.
    """
    found = find_prometheus(program)
    if found is None:
        unpack_package(_PACKAGE, _cached(), _HELP)
        found = find_prometheus(program)
    if found is None:
        raise PlatformError(f"the package {_PACKAGE} in {_cached()} has no program {program}. {_HELP}")
    return found


def targets_folder(folder: Path, job: str) -> Path:
    """Where the server of a state folder finds the target files (``file_sd`` JSON) of one of :data:`JOBS`.

    Raises:
        PlatformError: there is no such job.
    """
    if job not in JOBS:
        raise PlatformError(f"there is no scrape job {job!r}: choose from {', '.join(JOBS)}")
    return folder / "targets" / job


def configuration(folder: Path) -> dict[str, Any]:
    """What the local server is told: target files of each job, read again at once; scraped each second."""
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [
            {
                "job_name": job,
                "file_sd_configs": [{"files": [f"{targets_folder(folder, job)}/*.json"], "refresh_interval": "1s"}],
                # Alerts go by the job, so a label of a target file must not change it.
                "relabel_configs": [{"target_label": "job", "replacement": job}],
            }
            for job in JOBS
        ],
    }


@dataclass(frozen=True)
class Prometheus:
    """Prometheus with its data in the state folder; ``prometheus_url`` is its page and the base of its API."""

    name: str = "prometheus"
    patience_s: float = 60.0

    @property
    def default_ports(self) -> Mapping[str, int]:
        return {"http": 9090}

    def launch(self, folder: Path, ports: Mapping[str, int]) -> Launch:
        program = ensure_prometheus()
        for job in JOBS:
            targets_folder(folder, job).mkdir(parents=True, exist_ok=True)
        config = folder / "prometheus.yml"
        config.write_text(json.dumps(configuration(folder), indent=2) + "\n", encoding="utf-8")  # JSON is YAML too
        options = (
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={HOST}:{ports['http']}",
        )
        return Launch((str(program), *options), {})

    def probe(self, ports: Mapping[str, int]) -> None:
        connect(ports["http"])
        answers(f"{self.addresses(ports)['prometheus_url']}/-/ready")

    def addresses(self, ports: Mapping[str, int]) -> dict[str, str]:
        return {"prometheus_url": f"http://{HOST}:{ports['http']}"}


def _cached() -> Path:
    return cache_dir() / "unpacked" / "prometheus-package"
