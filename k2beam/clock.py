"""The wall clock that transforms take unless they are given another."""

from __future__ import annotations

import time


def now_us() -> int:
    """Microseconds since the epoch, UTC."""
    return time.time_ns() // 1000
