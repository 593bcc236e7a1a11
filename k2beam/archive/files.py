"""Which files are meant by paths, globs and folders, and the one function that opens them."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, BinaryIO, Protocol, runtime_checkable

from k2beam.errors import ArchiveError, ArchiveRefused, UsageError

if TYPE_CHECKING:
    from k2beam.archive.stores import Stores

SUFFIX = ".avro"
_URI = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_BUFFER = 1 << 20


@runtime_checkable
class SizedFile(Protocol):
    """A file that is none of this machine's, and knows its size."""

    def size(self) -> int:
        """The size in bytes."""


def expand_paths(paths: Sequence[str], stores: Stores | None = None) -> list[str]:
    """The files that ``paths`` mean, each once: in the order given, sorted within a glob or a folder.

    A glob may have ``**``; a folder means every ``*.avro`` below it (linked folders are not entered). What is hidden in
    a folder, a name that begins with a dot or an underscore, is another program's and left out.
    The same holds of URIs, which ``stores`` opens (:mod:`k2beam.archive.stores`). Raises UsageError when a path, glob
    or folder has no file.

    Examples:
        >>> from k2beam.archive.files import expand_paths
        >>> expand_paths(["samples/crypto", "samples/asx/t*.avro"])
        ['samples/crypto/quotes-00001.avro', 'samples/crypto/trades-00001.avro', 'samples/asx/trades.avro']
    """
    if not paths:
        raise UsageError("no archive is named: give at least one file, glob or folder")
    found: dict[str, str] = {}
    for path in paths:
        if is_uri(path):
            from k2beam.archive.stores import expand_uri

            found.update((name, name) for name in expand_uri(path, SUFFIX, stores))
            continue
        for name in _expand(path):
            found.setdefault(os.path.realpath(name), name)
    return list(found.values())


def is_uri(path: str) -> bool:
    """Whether a path is a URI, such as ``s3://bucket/ticks``, and not one of this machine."""
    return _URI.match(path) is not None


def open_archive(path: str, root: str | None = None, stores: Stores | None = None) -> BinaryIO:
    """Open an archive for reading, buffered. The root is checked at each open, on the resolved path.

    Raises UsageError when the file (or the root) is not there or the path is not UTF-8, ArchiveRefused when it is
    outside ``root`` (also through a link or ``..``) or no regular file, ArchiveError when it can't be opened. A URI is
    opened by ``stores``, and raises as :func:`k2beam.archive.stores.open_object`.

    Examples:
        >>> from k2beam.archive.files import open_archive
        >>> with open_archive("samples/asx/trades.avro") as file:
        ...     file.read(3)
        b'Obj'
    """
    check_path_is_text(path)
    if is_uri(path):
        from k2beam.archive.stores import open_object

        return open_object(path, root, stores)
    real = _resolve(path, root)
    try:
        # O_NONBLOCK: opening a pipe must not wait for its writer. O_NOFOLLOW: the path is resolved already.
        handle = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ArchiveError(f"{path}: can't be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ArchiveRefused(f"{path}: not a regular file; name an Avro container, or a folder of them")
    return os.fdopen(handle, "rb", buffering=_BUFFER)


def check_path_is_text(path: str) -> None:
    """Raise UsageError for a path whose bytes are not UTF-8: no column of a table and no JSON could hold it."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise UsageError(f"{shown}: the path is not UTF-8, and dead letters must name it; rename the file") from error


def file_size(file: BinaryIO) -> int:
    """The size in bytes as it is now."""
    raw = getattr(file, "raw", None)
    return raw.size() if isinstance(raw, SizedFile) else os.fstat(file.fileno()).st_size


def is_hidden(path: PurePath, folder: str) -> bool:
    """Whether a path below ``folder`` is another program's: a part of it begins with a dot or an underscore."""
    return any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)


def _expand(path: str) -> list[str]:
    if os.path.isdir(path):
        names = sorted(_below(path))
        if not names:
            raise UsageError(f"{path}: no *{SUFFIX} file below this folder")
        return names
    # a path that is there is meant literally, even when it has brackets in it
    if os.path.lexists(path):
        return [path]
    if not glob.has_magic(path):
        raise UsageError(f"{path}: no such file or folder")
    return _matches(path)


def _matches(pattern: str) -> list[str]:
    names: list[str] = []
    for match in sorted(glob.glob(pattern, recursive=True)):
        names.extend(sorted(_below(match)) if os.path.isdir(match) else [match])
    if not names:
        raise UsageError(f"{pattern}: no file matches; quote the pattern and check the folder before it")
    return names


def _below(folder: str) -> Iterator[str]:
    for path in Path(folder).rglob(f"*{SUFFIX}"):
        if not is_hidden(path, folder) and not path.is_dir():
            yield str(path)


def _resolve(path: str, root: str | None) -> str:
    try:
        real = os.path.realpath(path, strict=True)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise ArchiveRefused(f"{path}: the path can't be resolved: {error}") from error
    if root is not None:
        allowed = os.path.realpath(root)
        if not os.path.isdir(allowed):
            raise UsageError(f"root {root}: no such folder")
        if os.path.commonpath([allowed, real]) != allowed:
            raise ArchiveRefused(f"{path}: is {real}, outside the root {root}; move it there or give another root")
    return real
