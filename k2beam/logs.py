"""Structured logs on standard error, with secrets masked.

Our loggers and those of the libraries (Beam, pyiceberg) go through one handler of the standard
library, so that a Beam worker, which installs a handler of its own, gets our lines too: without
:func:`configure_logging` a line is one JSON text handed to whatever handler is there.

A worker process that a local runner starts inherits the standard error of its job, and by the environment
(:data:`LOG_VARIABLE`) how to write to it: its lines are in the job's log, in the same form.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import structlog
from structlog.typing import Processor

from k2beam.errors import UsageError, mendable

if TYPE_CHECKING:
    from k2beam.model import CommitReceipt

MASK = "***"

LOG_VARIABLE = "K2BEAM_LOGS"
"""Set by :func:`configure_logging` for the processes that it starts: level, level of libraries, json or text."""

SOURCES_SHOWN = 5
"""How many sources a line names; a commit of an archive may have thousands."""

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
_NAMELESS_USERINFO = re.compile(r"(?<![\w.\-:/@])[\w.\-]{1,60}:[^\s/?#\"'<>@]{1,200}@(?=[\w\[])")
"""``user:password@host``, as addresses are written without a scheme."""

OWN = ("k2beam", "transforms")
"""The project's own loggers, by the first part of their names."""

EventDict = MutableMapping[str, Any]


def redact_text(text: str) -> str:
    """Mask the userinfo of URLs, and the values in ``password=…`` and its like."""
    text = _NAMELESS_USERINFO.sub(f"{MASK}@", _USERINFO.sub(rf"\g<scheme>{MASK}@", text))
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

    libraries = logging.NOTSET
    """The level below which lines that are not the project's own are left out."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


_handler = _StandardError()


_NO_NEWS = (
    "apitools not found",
    "Not setting flag with value None",
    "No semi_persistent_directory",
    "Really starting service",
    "Really destroying service",
    "Worker: %s",
)
"""What Beam warns of at every import (Google's clients, which nothing here uses), at every start of Prism and of a
worker, and its copy of a line that a worker process has written to the same standard error itself."""


def _is_news(record: logging.LogRecord) -> bool:
    if record.levelno < _handler.libraries and not record.name.startswith(OWN):
        return False  # Beam's harness sets the level of all loggers
    return not (str(record.msg).startswith(_NO_NEWS) or _is_told_at_the_end(record))


def _is_told_at_the_end(record: logging.LogRecord) -> bool:
    """Whether it is a library's trace of what the program ends with in one sentence; at DEBUG that is news too."""
    if record.name.startswith(OWN) or logging.getLogger(OWN[0]).isEnabledFor(logging.DEBUG):
        return False
    trace = record.getMessage()
    if record.exc_info:
        trace += "\n" + "".join(traceback.format_exception(*record.exc_info))
    return "Traceback (most recent call last)" in trace and mendable(trace) is not None


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
    _handler.libraries = libraries
    for name in OWN:
        logging.getLogger(name).setLevel(own)
    os.environ[LOG_VARIABLE] = f"{own},{libraries},{'json' if json else 'text'}"


def inherit_logging() -> None:
    """Send the logs of a worker process where those of its job go, in the same form.

    Does nothing in a process that is configured already, or where no job said how. What Beam's harness says before it
    imports anything of ours comes in Beam's own form. Raises UsageError for a :data:`LOG_VARIABLE` that
    :func:`configure_logging` did not write.
    """
    said = os.environ.get(LOG_VARIABLE)
    root = logging.getLogger()
    if said is None or _handler in root.handlers:
        return
    form = re.fullmatch(r"(\d+),(\d+),(json|text)", said)
    if form is None:
        raise UsageError(f"{LOG_VARIABLE} is {said!r}; it is set by k2beam for its workers: unset it")
    # The harness has a plain handler for the same standard error.
    root.handlers = [handler for handler in root.handlers if type(handler) is not logging.StreamHandler]
    configure_logging(int(form[1]), json=form[3] == "json", library_level=int(form[2]))


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
    """Log the audit line of one commit: what it changed, between which snapshots, how long it took.

    Its event is ``commit`` where there is a new snapshot, and else ``nothing to commit``: the lines are the snapshots.
    ``windows`` are the starts of the first and last one, ``source`` the first few of ``sources`` many.
    """
    get_logger("lake").info(
        "commit" if receipt.rows else "nothing to commit",
        table=receipt.table,
        snapshot_before=receipt.snapshot_before,
        snapshot_after=receipt.snapshot_after,
        windows=[_instant(start) for start in sorted({*receipt.windows[:1], *receipt.windows[-1:]})],
        source=list(receipt.sources[:SOURCES_SHOWN]),
        sources=len(receipt.sources),
        rows=receipt.rows,
        rows_left_out=receipt.rows_left_out,
        files=receipt.files,
        bytes=receipt.bytes,
        duration_s=receipt.duration_us / 1_000_000,
        attempts=receipt.attempts,
        coverage_digest=receipt.coverage_digest,
    )


def _instant(micros: int) -> str:
    """ISO 8601, or the microseconds themselves where the time is beyond the calendar."""
    try:
        return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return str(micros)


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
