"""Giving events the spacing that they had, or a multiple of it."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from k2beam.errors import UsageError

MAX_SPEED = math.inf
"""As fast as what is behind takes it."""

_UNIT_US = 100
_LONGEST_SLEEP_S = 0.2


def parse_speed(text: str) -> float:
    """``1x``, ``10x`` or ``0.5x`` as a factor, ``max`` as :data:`MAX_SPEED`. Raises UsageError for anything else.

    Examples:
        >>> from k2beam.produce.pace import parse_speed
        >>> parse_speed("10x"), parse_speed("max")
        (10.0, inf)
    """
    if text == "max":
        return MAX_SPEED
    found = re.fullmatch(r"(\d+(?:\.\d+)?)x", text)
    if found is None or not float(found[1]):
        raise UsageError(f"--speed is max, 1x, or a multiple such as 10x or 0.5x, not {text!r}")
    return float(found[1])


@dataclass(slots=True)
class Pacer:
    """Waits until an event is due, by the time of the first one; and counts how late each was.

    ``clock`` and ``sleep`` are in seconds. A wait ends early once ``stopped`` says so.
    """

    speed: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    stopped: Callable[[], bool] = lambda: False
    _first: int | None = None
    _begun: float = 0.0
    _late: Counter[int] = field(default_factory=Counter)

    def wait(self, moment: int) -> None:
        """Wait until the event of ``moment`` (microseconds) is due; it is late where that is over."""
        if self.speed == MAX_SPEED:
            return
        if self._first is None:
            self._first, self._begun = moment, self.clock()
        due = self._begun + (moment - self._first) / 1e6 / self.speed
        while (left := due - self.clock()) > 0 and not self.stopped():
            self.sleep(min(left, _LONGEST_SLEEP_S))
        self._late[max(0, round((self.clock() - due) * 1e6 / _UNIT_US))] += 1

    def late_ms(self) -> dict[str, float]:
        """How late events were, in milliseconds: the median, of 99 in 100, and the most; empty at full speed."""
        total, seen, found = self._late.total(), 0, {}
        for late in sorted(self._late):
            seen += self._late[late]
            for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
                if name not in found and seen >= share * total:
                    found[name] = round(late * _UNIT_US / 1000, 1)
        return found
