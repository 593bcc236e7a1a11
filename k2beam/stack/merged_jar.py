"""Java archives merged into one, which Flink takes as a job: ``flink run`` has no class path beside it."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from k2beam.cache import cache_dir, whole
from k2beam.logs import get_logger
from k2beam.stack.beam_jars import GROUP, beam_jars
from k2beam.stack.jars import locked_artifacts

JOB_MAIN: Final = "org.apache.beam.runners.flink.FlinkPipelineRunner"
"""Beam's class that reads a pipeline from its own archive and gives it to the Flink that called it."""

_MANIFEST: Final = "META-INF/MANIFEST.MF"
_SERVICES: Final = "META-INF/services/"
_OF_ONE_ARCHIVE: Final = (".SF", ".RSA", ".DSA", ".EC", "module-info.class", "META-INF/INDEX.LIST")
"""Ends of names of what holds for one archive alone: signatures, modules, indexes."""
_MULTI_RELEASE: Final = b"multi-release: true"


def ensure_job_jar() -> Path:
    """Beam's archives for Flink as one (150 MB), in the cache: merged at the first call, which takes half a minute.

    Raises what :func:`k2beam.stack.jars.ensure_jars` raises, and OSError where the cache can't be written.
    """
    locked = "".join(artifact.sha256 for artifact in locked_artifacts(GROUP))
    target = cache_dir() / "merged" / f"beam-flink-{hashlib.sha256(locked.encode()).hexdigest()[:12]}.jar"
    if not target.is_file():
        jars = beam_jars(beside_flink=True)
        get_logger("stack").info("Beam's archives are merged into one, once", archives=len(jars), jar=str(target))
        merge_jars(jars, target, JOB_MAIN)
    return target


def merge_jars(jars: Sequence[Path], target: Path, main: str) -> None:
    """Write ``target`` with all that the archives have; ``main`` is its class to run. It appears when it is whole.

    Of a name that several have the first is taken, as Java does with a class path, but all the lines of a list of
    services are (``META-INF/services``, Java's ServiceLoader). What is of one archive alone is left out.
    """
    with whole(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as merged:
        multi_release = _copy(jars, merged)
        manifest = f"Manifest-Version: 1.0\nMain-Class: {main}\n"
        merged.writestr(_MANIFEST, manifest + ("Multi-Release: true\n" if multi_release else ""))


def _copy(jars: Iterable[Path], merged: zipfile.ZipFile) -> bool:
    """Copy what they have, but for manifests; whether one has classes for several versions of Java."""
    services: dict[str, list[str]] = {}
    seen: set[str] = set()
    multi_release = False
    for jar in jars:
        with zipfile.ZipFile(jar) as archive:
            for entry in archive.infolist():
                name = entry.filename
                if name == _MANIFEST:
                    multi_release |= _MULTI_RELEASE in archive.read(entry).lower()
                elif name.startswith(_SERVICES) and not entry.is_dir():
                    services.setdefault(name, []).extend(archive.read(entry).decode("utf-8").splitlines())
                elif not (entry.is_dir() or name in seen or name.endswith(_OF_ONE_ARCHIVE)):
                    seen.add(name)
                    merged.writestr(entry, archive.read(entry))
    for name, lines in services.items():
        merged.writestr(name, "".join(f"{line}\n" for line in dict.fromkeys(lines) if line.strip()))
    return multi_release
