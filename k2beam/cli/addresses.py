"""Addresses to listen at, as options of the command line."""

from __future__ import annotations

from k2beam.errors import UsageError


def host_and_port(text: str, option: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; an IPv6 address is in square brackets. Raises UsageError, naming ``option``."""
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) <= 65_535):
        raise UsageError(f"{option} takes HOST:PORT, not {text!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)
