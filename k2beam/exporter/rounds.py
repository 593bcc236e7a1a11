"""Takes readings again and again: one that fails is logged and counted, and the others go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Event, Thread

from k2beam.errors import K2BeamError
from k2beam.exporter.readings import Reading
from k2beam.logs import get_logger
from k2beam.metrics.handle import Metrics

JOIN_SECONDS = 3.0


class Rounds:
    """Some readings, taken one after the other in every round.

    A reading that fails shows nothing: a value of before would pass for one of now. What stays is the time of its last
    success, which is 0 until it has had one, so that an alert on its age also fires for what never worked.
    """

    def __init__(self, readings: Sequence[Reading], metrics: Metrics, *, now: Callable[[], float] = time.time) -> None:
        self._readings = readings
        self._metrics = metrics
        self._now = now
        self._log = get_logger("exporter")
        self._said: dict[str, str] = {}
        for reading in readings:
            self._metrics.increment("k2_exporter_failures_total", 0, reading=reading.name)
            self._metrics.gauge("k2_exporter_last_success_timestamp_seconds", 0, reading=reading.name)

    def once(self) -> bool:
        """Take each reading once; whether all of them succeeded."""
        taken = [self._take(reading) for reading in self._readings]
        return all(taken)

    def run(self, interval: float, stop: Event) -> None:
        """Take them every ``interval`` seconds until ``stop``; a round that takes longer is followed at once."""
        due = time.monotonic()
        while not stop.is_set():
            self.once()
            due = max(due + interval, time.monotonic())
            stop.wait(due - time.monotonic())

    def _take(self, reading: Reading) -> bool:
        try:
            problems = reading.read()
        except K2BeamError as error:
            self._failed(reading.name, str(error))
            self._forget(reading)
            return False
        # What a catalog, a store or a client raises is without number; whatever it is, the next round tries again.
        except Exception as error:  # noqa: BLE001 - logged with its traceback, counted, and the gauges are gone
            self._failed(reading.name, f"{type(error).__name__}: {error}", error)
            self._forget(reading)
            return False
        if problems:
            self._failed(reading.name, "; ".join(problems))
            return False
        self._succeeded(reading.name)
        return True

    def _forget(self, reading: Reading) -> None:
        """Take the gauges of a failed reading away; an error in that must not end the thread, and all readings."""
        try:
            reading.forget()
        except Exception as error:  # noqa: BLE001 - logged with its traceback; the reading is counted already
            problem = f"{type(error).__name__}: {error}"
            self._log.error("gauges of a failed reading stay", reading=reading.name, problem=problem, exc_info=error)

    def _failed(self, reading: str, problem: str, error: Exception | None = None) -> None:
        self._metrics.increment("k2_exporter_failures_total", reading=reading)
        # Once for as long as it's the same, and not at every interval and by every reading that has it.
        if problem not in self._said.values():
            self._log.warning("reading failed", reading=reading, problem=problem, exc_info=error)
        self._said[reading] = problem

    def _succeeded(self, reading: str) -> None:
        self._metrics.gauge("k2_exporter_last_success_timestamp_seconds", self._now(), reading=reading)
        if self._said.pop(reading, None) is not None:
            self._log.info("reading works again", reading=reading)


def run_until(stop: Event, groups: Sequence[Rounds], interval: float) -> None:
    """Run each group in a thread of its own until ``stop``: one that waits for a broker does not hold up the others.

    A thread that still waits for an answer is left behind; it only reads, and ends with the process.
    """
    threads = [Thread(target=group.run, args=(interval, stop), daemon=True) for group in groups]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join(JOIN_SECONDS)
