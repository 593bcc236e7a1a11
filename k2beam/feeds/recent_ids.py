"""What a feed gave lately, to find what comes twice."""

from __future__ import annotations

from collections import deque


class RecentIds:
    """The message ids of the last ``seconds``, and of each stream the last ``least`` whatever their age.

    The caller has the clock. ``least`` is for exchanges that begin a subscription with what was before.
    """

    def __init__(self, seconds: float, least: int = 0) -> None:
        self._seconds = seconds
        self._least = least
        self._ids: set[str] = set()
        self._order: dict[str, deque[tuple[float, str]]] = {}

    def add(self, stream: str, identifier: str, now: float) -> bool:
        """Whether the id is new."""
        order = self._order.setdefault(stream, deque())
        while len(order) > self._least and order[0][0] < now - self._seconds:
            self._ids.discard(order.popleft()[1])
        if identifier in self._ids:
            return False
        self._ids.add(identifier)
        order.append((now, identifier))
        return True
