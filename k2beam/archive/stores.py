"""Archives in object stores: listed, pinned, read in ranges and written, through pyarrow's file systems.

An object is named by a URI: ``s3://bucket/path``, ``gs://…``, ``abfs://…``, ``hdfs://…``, ``file:///…``.
"""

from __future__ import annotations

import fnmatch
import glob
import io
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, Protocol, cast

from pyarrow import NativeFile, fs

from k2beam.archive.files import is_hidden
from k2beam.errors import ArchiveRefused, UsageError

RANGE_BYTES = 4 << 20
"""How much one request asks for: less makes more requests, each of which takes some 20 ms and more."""


class Stores(Protocol):
    """What opens object stores, such as :class:`k2beam.lake.stores.CatalogStores`; workers get a copy of it."""

    def at(self, uri: str) -> tuple[fs.FileSystem, str]:
        """The file system of a URI, and the path in it, which the URI ends with. Raises UsageError for none."""


def expand_uri(uri: str, suffix: str, stores: Stores | None = None) -> list[str]:
    """The objects that a URI means, sorted: itself, those with the suffix below it, or those that match a glob.

    Left out, but where a glob names them, is what is hidden: a name below the URI that begins with a dot or an
    underscore. Raises UsageError where there is none, and OSError for a store that refuses or is away.
    """
    system, path = _opened(uri, stores)
    start = uri.rstrip("/").removesuffix(path)
    if glob.has_magic(path):
        pattern = PurePosixPath(path).parts
        depth = next(index for index, part in enumerate(pattern) if glob.has_magic(part))
        folder = str(PurePosixPath(*pattern[:depth]))
        found = [name for name in _below(system, folder) if _matches(PurePosixPath(name).parts, pattern)]
        if not found:
            raise UsageError(f"{uri}: no object matches; quote the pattern and check what is before it")
        return [start + name for name in sorted(found)]
    kind = system.get_file_info(path).type
    if kind == fs.FileType.File:
        return [start + path]
    names = [
        name for name in _below(system, path) if name.endswith(suffix) and not is_hidden(PurePosixPath(name), path)
    ]
    if not names:
        raise UsageError(f"{uri}: no *{suffix} object below this prefix")
    return [start + name for name in sorted(names)]


def open_object(uri: str, root: str | None = None, stores: Stores | None = None) -> BinaryIO:
    """Open an object for reading, by ranges of 4 MiB that are fetched when they are read.

    Raises UsageError where it is not there, ArchiveRefused where it is not below ``root``, and OSError for a store that
    refuses or is away.
    """
    if root is not None and not uri.startswith(f"{root.rstrip('/')}/"):
        raise ArchiveRefused(f"{uri}: is outside the root {root}; name an object below it or give another root")
    system, path = _opened(uri, stores)
    try:
        opened = system.open_input_file(path)
    except FileNotFoundError as error:
        raise UsageError(f"{uri}: no such object") from error
    return cast("BinaryIO", io.BufferedReader(_Ranges(opened, system, path), RANGE_BYTES))


def object_version(file: BinaryIO) -> str:
    """What tells an object from another that took its place: size, and ETag or time; empty for a file that is none."""
    raw = getattr(file, "raw", None)
    return raw.version() if isinstance(raw, _Ranges) else ""


def upload(file: str, uri: str, stores: Stores | None = None) -> int:
    """Copy a file of this machine into a store, where it appears when it is complete; gives its bytes.

    Raises OSError for a store that refuses or is away; then there is no object, or the one that was there before.
    """
    system, path = _opened(uri, stores)
    if isinstance(system, fs.LocalFileSystem):
        system.create_dir(str(PurePosixPath(path).parent))
    fs.copy_files(file, path, source_filesystem=fs.LocalFileSystem(), destination_filesystem=system)
    return int(system.get_file_info(path).size)


def has_objects(uri: str, stores: Stores | None = None) -> bool:
    """Whether there is anything below a prefix. Raises OSError for a store that refuses or is away."""
    system, path = _opened(uri, stores)
    return next(_below(system, path), None) is not None


def _opened(uri: str, stores: Stores | None) -> tuple[fs.FileSystem, str]:
    uri = uri.rstrip("/")
    if stores is not None:
        return stores.at(uri)
    parts = uri.split("/")
    plain = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    try:
        system, folder = fs.FileSystem.from_uri("/".join(parts[:plain]))  # which takes no brackets
    except ValueError as error:  # pyarrow's word for a scheme that it does not know
        raise UsageError(f"{uri}: {error}") from error
    return system, "/".join((folder, *parts[plain:]))


def _below(system: fs.FileSystem, folder: str) -> Iterator[str]:
    """The paths of all objects below a prefix; a page of the listing is fetched after the other."""
    listed = system.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    return (found.path for found in listed if found.type == fs.FileType.File)


def _matches(names: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether a path matches a glob, part by part; ``**`` stands for any number of parts."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_matches(names[count:], pattern[1:]) for count in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


class _Ranges(io.RawIOBase):
    """An object as a file that can be read anywhere."""

    def __init__(self, file: NativeFile, system: fs.FileSystem, path: str) -> None:
        self._file = file
        self._system = system
        self._path = path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return int(self._file.readinto(buffer))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def size(self) -> int:
        return int(self._file.size())

    def version(self) -> str:
        told = {str(key).lower(): value for key, value in (self._file.metadata() or {}).items()}
        tag = told.get("etag") or self._system.get_file_info(self._path).mtime_ns
        return f"{self.size()} {tag}"
