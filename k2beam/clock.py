"""The wall clock that transforms take unless they are given another, and what its microseconds amount to."""

from __future__ import annotations

import time

MICROS_PER_DAY = 86_400_000_000


def now_us() -> int:
    """Microseconds since the epoch, UTC."""
    return time.time_ns() // 1000
