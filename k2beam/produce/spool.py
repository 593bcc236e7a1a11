"""The spool: messages that a broker did not take, kept in a file until they are sent again.

One JSON object a line: topic, key, value and header values in base64, timestamp (milliseconds UTC) and what went
wrong. A line is handed to the operating system at once, so that a killed program loses none; a file that a program
still writes is locked.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from k2beam.errors import SpoolError, UsageError

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message for a topic, byte for byte; ``timestamp`` is milliseconds UTC, None for the time of sending."""

    topic: str
    key: bytes | None
    value: bytes | None
    timestamp: int | None = None
    headers: Headers = ()


class Spool:
    """Keeps messages in a new file of ``folder``, made with the first of them. Used by one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[str] | None = None
        self.path: Path | None = None
        self.count = 0

    def add(self, message: OutgoingMessage, error_type: str, error: str) -> None:
        """Append one message. Raises OSError where the disk does not take it."""
        file = self._file or self._make()
        file.write(_line(message, error_type, error))
        file.flush()
        self.count += 1

    def close(self) -> None:
        """Bring the file to the disk and unlock it."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _make(self) -> IO[str]:
        self._folder.mkdir(parents=True, exist_ok=True)
        made_at = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self.path = self._folder / f"undelivered-{made_at}-{secrets.token_hex(4)}.jsonl"
        self._file = self.path.open("x", encoding="utf-8")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self._file


@contextmanager
def spool_lock(path: Path) -> Iterator[None]:
    """Hold a spool file, so that no one else sends it. Raises UsageError where it is not there or in use."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"{path} can't be opened: {error.strerror}; name a spool file") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{path} is in use by a producer or by another resend; wait until it has ended") from None
        yield


def read_spool(path: Path) -> Iterator[OutgoingMessage]:
    """The messages of a spool file, in the order in which they were kept.

    Raises SpoolError, naming file and line, for a line that is no message (a program may have been stopped in it).
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield _message(json.loads(line))
            except (ValueError, KeyError, TypeError, binascii.Error) as error:
                raise SpoolError(
                    f"{path}, line {number}: is not a whole message ({error!r:.100}); take the line out and send the"
                    " file again: nothing of it was sent"
                ) from error


def _line(message: OutgoingMessage, error_type: str, error: str) -> str:
    entry = {
        "topic": message.topic,
        "key": _text(message.key),
        "value": _text(message.value),
        "timestamp": message.timestamp,
        "headers": [[name, _text(value)] for name, value in message.headers],
        "error_type": error_type,
        "error": error,
    }
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _message(entry: dict[str, Any]) -> OutgoingMessage:
    headers = tuple((str(name), _bytes(value)) for name, value in entry["headers"])
    timestamp = entry["timestamp"]
    return OutgoingMessage(
        topic=str(entry["topic"]),
        key=_bytes(entry["key"]),
        value=_bytes(entry["value"]),
        timestamp=None if timestamp is None else int(timestamp),
        headers=headers,
    )


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)
