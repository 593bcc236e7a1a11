"""Opens CSV files for reading, packed ones too: gzip (RFC 1952), zip with one member, Zstandard (RFC 8878).

What is packed is told from the first bytes, not from the name, and read as the text that is in it.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import pyarrow as pa

from k2beam.errors import UsageError

_GZIP, _ZIP, _ZSTD = b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd"
_UNPACKING = (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, pa.ArrowException, NotImplementedError)
_PIECE = 1 << 20


@contextmanager
def open_csv(path: str) -> Iterator[BinaryIO]:
    """A file's text, from its first byte; it can be sought in, which takes long in a packed one.

    Raises UsageError, also while it is read, when the file is not there, can't be read or unpacked, or is no regular
    file.
    """
    try:
        # O_NONBLOCK: opening a pipe must not wait for its writer.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: can't be opened: {error}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UsageError(f"{path}: not a regular file; name CSV files, not folders or pipes")
    with os.fdopen(handle, "rb", buffering=0) as file:
        try:
            with _unpacked(file, path) as text:
                yield text
        except _UNPACKING as error:
            raise UsageError(f"{path}: can't be unpacked: {error}; is it whole?") from error


def is_packed(text: BinaryIO) -> bool:
    """Whether what :func:`open_csv` gave has to be unpacked, and can't be read from the middle."""
    return not isinstance(text, io.FileIO)


def _unpacked(file: io.FileIO, path: str) -> BinaryIO:
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(_GZIP):
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if magic == _ZSTD:
        return cast("BinaryIO", io.BufferedReader(_Zstandard(path), _PIECE))
    return _only_member(file, path) if magic == _ZIP else file


def _only_member(file: io.FileIO, path: str) -> BinaryIO:
    archive = zipfile.ZipFile(file)
    names = [member.filename for member in archive.infolist() if not member.is_dir()]
    if len(names) != 1:
        raise UsageError(f"{path}: has {len(names)} files in it; unpack it, and name those to be read")
    try:
        return cast("BinaryIO", archive.open(names[0]))
    except RuntimeError as error:
        raise UsageError(f"{path}: can't be unpacked: {error}") from error


class _Zstandard(io.RawIOBase):
    """The text of a Zstandard file; to go back in it is to begin anew."""

    def __init__(self, path: str) -> None:
        self._path, self._at = path, 0
        self._stream = pa.CompressedInputStream(pa.OSFile(path), "zstd")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("only from the beginning")
        if position < self._at:
            self._at, self._stream = 0, pa.CompressedInputStream(pa.OSFile(self._path), "zstd")
        while self._at < position and (data := self._read(min(_PIECE, position - self._at))):
            self._at += len(data)
        return self._at

    def _read(self, size: int) -> bytes:
        try:
            return bytes(self._stream.read(size))
        except OSError as error:  # what Arrow raises for a file that is damaged or cut off
            raise pa.ArrowInvalid(str(error)) from error
