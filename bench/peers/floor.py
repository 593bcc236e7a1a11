"""librdkafka alone in a process of its own, for the driver's processor time and memory not to be taken for its own."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from bench.live import consume


@dataclass(frozen=True, slots=True)
class Floor:
    """Messages a second from the first message on, CPU seconds of the reading alone, and the peak of memory."""

    rate: float
    cpu_s: float
    peak_mib: int


def floor(bootstrap: str, topic: str, rows: int, settings: Mapping[str, Any]) -> Floor:
    """One run in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, bootstrap, topic, rows, dict(settings)).result()


def _measure(bootstrap: str, topic: str, rows: int, settings: Mapping[str, Any]) -> Floor:
    before = time.process_time()
    rate = consume(bootstrap, topic, rows, settings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return Floor(rate, time.process_time() - before, peak)
