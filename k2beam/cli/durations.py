"""Durations on the command line."""

from __future__ import annotations

import re

from k2beam.errors import UsageError

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")


def seconds(text: str, option: str) -> float:
    """Seconds of a duration such as ``500ms``, ``60s``, ``15m``, ``1d``; a bare number is seconds.

    Raises UsageError, which names ``option``, for what is not one.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{option} takes a duration such as 500ms, 60s, 15m or 1d, not {text!r}")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def positive_seconds(text: str, option: str) -> float:
    """Seconds of a duration that lasts. Raises UsageError."""
    found = seconds(text, option)
    if found <= 0:
        raise UsageError(f"{option} must be above 0, not {text}")
    return found


def whole_seconds(text: str, option: str) -> int:
    """Seconds of a duration that has no fraction of one, as windows are. Raises UsageError."""
    found = positive_seconds(text, option)
    if not found.is_integer():
        raise UsageError(f"{option} takes whole seconds, not {text}")
    return int(found)
