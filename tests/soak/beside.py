"""What runs beside a live job, again and again: maintenance and queries. They may fail while a fault lasts."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from tests.soak.rig import CATALOG, Rig

_LAKE = ("--catalog", CATALOG)
WORK: Final[tuple[tuple[str, ...], ...]] = (
    ("query", "stats", *_LAKE),
    ("gaps", *_LAKE),
    ("query", "trades", *_LAKE, "--limit", "5"),
    ("maintain", "expire", *_LAKE, "--apply", "--keep-snapshots", "5", "--older-than-hours", "1"),
    ("dlq", "list", *_LAKE, "--limit", "5"),
    ("maintain", "compact", *_LAKE, "--apply"),
)
SETTLED_S: Final = 120.0
"""After a fault a command may still fail for so long: servers start, and clients wait before they ask again."""


class Beside(threading.Thread):
    """Runs the commands in turn with a pause; ``faulty_until`` is told by who makes faults (monotonic seconds)."""

    def __init__(self, rig: Rig, pause_s: float = 10.0, work: Sequence[tuple[str, ...]] = WORK) -> None:
        super().__init__(daemon=True)
        self._rig = rig
        self._pause_s = pause_s
        self._work = work
        self._ended = threading.Event()
        self.faulty_until = 0.0
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.problems: list[str] = []

    def run(self) -> None:
        """Until :meth:`stop`. A failure without a fault is a problem."""
        while True:
            for words in self._work:
                if self._ended.wait(self._pause_s):
                    return
                self._do(words)

    def stop(self) -> None:
        """End after the command that runs now."""
        self._ended.set()
        self.join(300)

    def _do(self, words: Sequence[str]) -> None:
        name = " ".join(words[:2]) if words[0] != "gaps" else words[0]
        began = time.monotonic()
        try:
            self._rig.run(*words)
        except RuntimeError as error:
            self.failed[name] += 1
            said = str(error).strip().splitlines()[-1][:300]
            if "Traceback" in str(error) or began > self.faulty_until + SETTLED_S:
                self.problems.append(f"{name}: {said}")
            self._rig.tell(f"{name} failed: {said}")
        else:
            self.done[name] += 1
