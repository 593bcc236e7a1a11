"""Structured logs on standard error, with secrets masked.

Our loggers and those of the libraries (Beam, pyiceberg) go through one handler of the standard
library, so that a Beam worker, which installs a handler of its own, gets our lines too: without
:func:`configure_logging` a line is one JSON text handed to whatever handler is there.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

from k2beam.errors import UsageError
from k2beam.model import CommitReceipt

MASK = "***"

_SENSITIVE = (
    r"pass(?:word|wd|phrase)|secret|token|credential|authorization|sasl|jaas|(?:api|access|private|account)[_.\- ]?key"
)
_SENSITIVE_KEY = re.compile(_SENSITIVE, re.IGNORECASE)
# Lengths are bounded so that a long text without any secret costs linear time.
_SENSITIVE_IN_TEXT = re.compile(
    rf"""(?P<key>(?:{_SENSITIVE})[\w.\-]{{0,40}}["']?\s{{0,3}}[=:]\s{{0,3}})"""
    r"""(?:"[^"]*"|'[^']*'|(?:Basic |Bearer )?[^\s,;&"')}\]]+)""",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.\-]{0,30}://)[^\s/?#\"'<>]+@")

EventDict = MutableMapping[str, Any]


def redact_text(text: str) -> str:
    """Mask the userinfo of URLs, and the values in ``password=…`` and its like."""
    text = _USERINFO.sub(rf"\g<scheme>{MASK}@", text)
    return _SENSITIVE_IN_TEXT.sub(rf"\g<key>{MASK}", text)


def redact(value: Any, key: str = "") -> Any:
    """The value with secrets masked, at any depth; ``key`` is the name it is logged under."""
    if value is None or isinstance(value, bool):
        return value
    if _SENSITIVE_KEY.search(key):
        return MASK
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {name: redact(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redact(item) for item in value]
    return value if isinstance(value, (int, float)) else redact_text(str(value))


def _redact_event(_logger: Any, _method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        # structlog's own entries hold the record itself; they're dropped before rendering.
        if not key.startswith("_"):
            event[key] = redact(value, key)
    return event


_SHARED: tuple[Processor, ...] = (
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    _redact_event,
)


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to whatever standard error is at the time: tests and the command line replace it."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


_handler = _StandardError()


_NO_NEWS = ("apitools not found", "Really starting service", "Really destroying service")
"""What Beam warns of at every import (Google's clients, which nothing here uses) and at every start of Prism."""


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_NO_NEWS)


_handler.addFilter(_is_news)


def configure_logging(level: str | int = "INFO", json: bool = False, library_level: str | int = "WARNING") -> None:
    """Send all logs of this process to standard error, as JSON lines or as readable text.

    ``level`` is k2beam's own, ``library_level`` that of everything else. May be called again.
    Raises UsageError for a level that the standard library does not know.
    """
    own, libraries = _level(level), _level(library_level)
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    _handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *_SHARED],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if handler is not _handler] + [_handler]
    root.setLevel(libraries)
    logging.getLogger("k2beam").setLevel(own)


def get_logger(component: str) -> structlog.stdlib.BoundLogger:
    """The logger of a component: ``log.info("commit", table=…, rows=…)``; secrets are masked."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(f"k2beam.{component}"),
        processors=[structlog.stdlib.filter_by_level, *_SHARED, _hand_over],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return logger


def commit_logged(receipt: CommitReceipt) -> None:
    """Log the audit line of one commit: what it changed, between which snapshots, how long it took."""
    get_logger("lake").info(
        "commit",
        table=receipt.table,
        snapshot_before=receipt.snapshot_before,
        snapshot_after=receipt.snapshot_after,
        rows=receipt.rows,
        rows_left_out=receipt.rows_left_out,
        files=receipt.files,
        bytes=receipt.bytes,
        duration_s=receipt.duration_us / 1_000_000,
        attempts=receipt.attempts,
        coverage_digest=receipt.coverage_digest,
    )


def _hand_over(logger: Any, method: str, event: EventDict) -> Any:
    """To our formatter as it is; to any other handler (a Beam worker's) as one JSON text."""
    if _handler in logging.getLogger().handlers:
        return structlog.stdlib.ProcessorFormatter.wrap_for_formatter(logger, method, event)
    # The handler adds level, name and time itself, and takes % for a format.
    text = {key: value for key, value in event.items() if key not in ("level", "logger", "timestamp")}
    return ("%s", structlog.processors.JSONRenderer(ensure_ascii=False)(logger, method, text)), {}


def _level(level: str | int) -> int:
    known = logging.getLevelNamesMapping()
    if isinstance(level, int):
        return level
    if level.upper() not in known:
        raise UsageError(f"log level {level!r} is not known; use DEBUG, INFO, WARNING or ERROR")
    return known[level.upper()]
