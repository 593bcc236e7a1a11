"""Fetches the Java archives of the local servers from Maven Central, by a lock file with checksums.

``jars.lock`` beside this file has a line for each archive: the group that needs it, its SHA-256, its size in
bytes and its path in a Maven repository. Archives go to ``${K2BEAM_CACHE:-~/.cache/k2beam}/maven`` under that path;
one appears under its name only when it is whole and its checksum is right. ``K2BEAM_MAVEN`` names another
repository with the same layout (``https``, ``http`` or ``file``); proxies and certificates are those of the
environment, as Python's urllib takes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from k2beam.cache import cache_dir, whole
from k2beam.errors import PlatformError

LOCK: Final = Path(__file__).with_name("jars.lock")
_CENTRAL: Final = "https://repo1.maven.org/maven2"
_SCHEMES: Final = ("https://", "http://", "file://")
_WORKERS: Final = 8
_TRIES: Final = 3
_TIMEOUT_S: Final = 60
_CHUNK: Final = 1 << 20
_HELP: Final = "Is Maven Central reachable? Set K2BEAM_MAVEN to a mirror, or HTTPS_PROXY and SSL_CERT_FILE"


@dataclass(frozen=True)
class Artifact:
    """An archive in a Maven repository: its path there, SHA-256 (hex) and size in bytes."""

    path: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """The name of the file alone."""
        return self.path.rsplit("/", 1)[-1]


def locked_artifacts(group: str, lock: Path = LOCK) -> tuple[Artifact, ...]:
    """The archives of a group, in the order of the lock file.

    Raises:
        PlatformError: the lock file can't be read, or has no such group.
    """
    found = tuple(artifact for name, artifact in _parse(lock) if name == group)
    if not found:
        raise PlatformError(f"{lock} has nothing for {group!r}")
    return found


def ensure_jars(group: str, lock: Path = LOCK) -> tuple[Path, ...]:
    """The files of a group, fetched where they are not in the cache; each is verified at every call.

    Raises:
        PlatformError: an archive can't be fetched, or is not what the lock file says.
    """
    artifacts = locked_artifacts(group, lock)
    with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
        return tuple(pool.map(_ensure, artifacts))


def classpath(group: str) -> str:
    """A group as the value of Java's ``-cp``. Raises what :func:`ensure_jars` raises."""
    return os.pathsep.join(str(path) for path in ensure_jars(group))


def groups_at_hand(lock: Path = LOCK) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The groups whose archives are all in the cache, by their sizes, and those that lack some."""
    whole: dict[str, bool] = {}
    for group, artifact in _parse(lock):
        path = cache_dir() / "maven" / artifact.path
        whole[group] = whole.get(group, True) and path.is_file() and path.stat().st_size == artifact.size
    return tuple(group for group in whole if whole[group]), tuple(group for group in whole if not whole[group])


def ensure_unpacked(group: str, lock: Path = LOCK) -> Path:
    """The folder that the one ``tar.gz`` of a group is unpacked to, in the cache.

    Raises:
        PlatformError: as :func:`ensure_jars`; also when the archive can't be unpacked.
    """
    (artifact,) = locked_artifacts(group, lock)
    target = cache_dir() / "unpacked" / f"{artifact.name.removesuffix('.tar.gz')}-{artifact.sha256[:12]}"
    if not target.is_dir():
        _unpack(_ensure(artifact), target)
    return target


def _parse(lock: Path) -> Iterator[tuple[str, Artifact]]:
    try:
        lines = lock.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise PlatformError(f"{lock} can't be read ({error}): install k2beam again") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            group, sha256, size, path = line.split()
            yield group, Artifact(path, sha256, int(size))
        except ValueError as error:
            raise PlatformError(f"{lock}:{number} is not 'group SHA-256 bytes path': {line!r}") from error


def _ensure(artifact: Artifact) -> Path:
    target = cache_dir() / "maven" / artifact.path
    if not _is_right(target, artifact):
        _fetch(artifact, target)
    return target


def _is_right(path: Path, artifact: Artifact) -> bool:
    if not path.is_file() or path.stat().st_size != artifact.size:
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == artifact.sha256


def _fetch(artifact: Artifact, target: Path) -> None:
    url = f"{_repository()}/{artifact.path}"
    with whole(target) as partial:
        _download(url, partial)
        if not _is_right(partial, artifact):
            size = partial.stat().st_size
            raise PlatformError(
                f"{url} has {size} bytes that are not what the lock file says ({artifact.size} bytes, "
                f"SHA-256 {artifact.sha256}): nothing was kept. Is the repository a true mirror of Maven Central?"
            )


def _repository() -> str:
    base = (os.environ.get("K2BEAM_MAVEN") or _CENTRAL).rstrip("/")
    if not base.startswith(_SCHEMES):
        raise PlatformError(f"K2BEAM_MAVEN={base} is not a URL that starts with {', '.join(_SCHEMES)}")
    return base


def _download(url: str, target: Path) -> None:
    """Copies a URL to a file; broken connections and a busy server (5xx, 429) are tried again."""
    for attempt in range(1, _TRIES + 1):
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "k2beam"})  # noqa: S310 - the scheme is checked
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer, target.open("wb") as out:  # noqa: S310
                shutil.copyfileobj(answer, out, _CHUNK)
        except (OSError, http.client.HTTPException) as error:
            final = isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429
            if final or attempt == _TRIES:
                raise PlatformError(f"could not fetch {url}: {error}. {_HELP}") from error
            time.sleep(attempt)
        else:
            return


def _unpack(archive: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="unpack-") as scratch:
        inner = Path(scratch) / "unpacked"
        try:
            with tarfile.open(archive) as opened:
                opened.extractall(inner, filter="data")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise PlatformError(f"could not unpack {archive} to {target}: {error}") from error
        with contextlib.suppress(OSError):  # another process may have placed it meanwhile
            inner.rename(target)
        if not target.is_dir():
            raise PlatformError(f"could not unpack {archive}: {target} was not made")
