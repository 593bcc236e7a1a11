"""Whether a running job gets on: why it failed and begins again, and whether it still takes what the broker has."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from pyroaring import BitMap64

from k2beam.coverage import Coverage
from k2beam.errors import (
    FlinkRestError,
    K2BeamError,
    KafkaUnreachable,
    StoreRefused,
    UsageError,
    WorkerRefused,
    mendable,
)
from k2beam.flink import FlinkRun
from k2beam.kafka.holes import HoleProbe
from k2beam.logs import get_logger

FAILURES_SECONDS = 2.0
"""How often Flink is asked for failures."""
LOOKS = 10
"""So many times within the time of a stall the coverage is looked at."""

_FINAL = (UsageError, WorkerRefused, StoreRefused)
"""What does not mend by itself, so that a further restart would fail alike."""

_Missing = Mapping[tuple[str, int], BitMap64]


class Restarts:
    """Why a job on Flink failed: said once for each cause, and raised where another start would fail alike.

    What was before ``since_ms`` (milliseconds UTC) is over, and says nothing of the job as it is now.
    """

    def __init__(self, run: FlinkRun | None, since_ms: int = 0) -> None:
        self._run = run
        self._due = 0.0
        self._seen = since_ms
        self.cause: str | None = None

    def look(self) -> None:
        """Ask, when it is time. Raises K2BeamError for what does not mend by itself; an API that is away is no news."""
        if self._run is None or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + FAILURES_SECONDS
        failures = []
        with suppress(FlinkRestError):
            failures = self._run.failures()
        for failure in reversed(failures):
            if failure.at_ms <= self._seen:
                continue
            self._seen = failure.at_ms
            if final := mendable(failure.cause, *_FINAL):
                raise K2BeamError(final)
            if failure.cause != self.cause:
                self.cause = failure.cause
                get_logger("live").warning("the job failed in the cluster and begins again", cause=failure.cause)


class Stall:
    """Sees a job that takes nothing for ``after_s`` seconds while the broker has something for it (0: nobody looks).

    ``covered`` are the offsets that are in the tables; ``missing`` those that the broker has and a coverage lacks.
    """

    def __init__(
        self,
        after_s: float,
        covered: Callable[[], Coverage],
        missing: Callable[[Coverage], _Missing],
        probe: HoleProbe,
        cause: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._after_s = after_s
        self._covered = covered
        self._missing = missing
        self._probe = probe
        self._cause = cause
        self._taken = -1
        self._since = self._due = time.monotonic()

    def look(self) -> None:
        """Look, when it is time. Raises K2BeamError where the job stalls; a broker that is away stalls nothing."""
        if self._after_s <= 0 or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._after_s / LOOKS
        covered = self._covered()
        if len(covered) != self._taken:
            self._taken, self._since = len(covered), time.monotonic()
        elif time.monotonic() - self._since >= self._after_s:
            if waiting := self._waiting(covered):
                raise K2BeamError(
                    f"the job has taken nothing for {self._after_s:g} s, while the broker has {waiting}; its last "
                    f"failure: {self._cause() or 'none that is known'}. Look at the workers' logs, and run it again: "
                    "what was committed is left out (--stall-after 0 waits for ever)"
                )
            self._since = time.monotonic()

    def _waiting(self, covered: Coverage) -> str | None:
        """The first message that waits, or None."""
        try:
            for (source, partition), offsets in self._probe.known(self._missing(covered)).items():
                given = self._probe.first_given(source, partition, offsets)
                if given is not None:
                    return f"offset {given:,} of partition {partition} of {source}"
        except KafkaUnreachable:
            return None
        return None
