"""The cost of metrics: the same job with and without them, in turns, in one process.

By CPU time and not by the clock, and by the least of several runs: other work on the machine only adds to it. What the
calls take by themselves is measured apart, since it's less than the runs differ.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

from k2beam.config import LakeConfig, WriteConfig
from k2beam.job.bounded import run_ingest
from k2beam.job.config import IngestConfig
from k2beam.metrics.config import MetricsConfig
from k2beam.metrics.handle import Metrics
from k2beam.metrics.worker import close_endpoint
from transforms.read_archive import ReadArchive

REPEATS = 7


def metrics(archive: Path, scratch: Path, repeats: int = REPEATS) -> list[dict[str, Any]]:
    """CPU seconds of a replay without metrics, with them, and with an endpoint too: the least of each, and the ratios.

    The three take turns, each round in another order, after one round that only warms up. The last row is what all
    calls of metrics in such a job take together.
    """
    configs = {
        "job without metrics": MetricsConfig(enabled=False),
        "job with metrics": MetricsConfig(),
        "job with metrics and endpoint": MetricsConfig(endpoint=True, ports=(0, 0)),
    }
    names = list(configs)
    taken: dict[str, list[float]] = {name: [] for name in names}
    rows = 0
    for number in range(repeats + 1):
        for name in (*names[number % 3 :], *names[: number % 3]):
            rows, seconds = _job(archive, scratch / f"metrics-{uuid.uuid4().hex}", configs[name])
            if number:
                taken[name].append(seconds)
    close_endpoint()
    least = {name: min(seconds) for name, seconds in taken.items()}
    least["its calls of metrics"] = _calls(archive, scratch / "metrics-calls") * _seconds_a_call()
    return [
        {
            "what": name,
            "rows": rows,
            "value": round(seconds, 6),
            "unit": "CPU s",
            "ratio": round(seconds / least[names[0]], 5),
            "beside": names[0],
        }
        for name, seconds in least.items()
    ]


def _calls(archive: Path, warehouse: Path) -> int:
    """How many calls of metrics one job makes."""
    calls = Counter[str]()
    with ExitStack() as stack:
        for method in ("increment", "gauge", "histogram"):
            stack.enter_context(mock.patch.object(Metrics, method, _counting(getattr(Metrics, method), method, calls)))
        _job(archive, warehouse, MetricsConfig())
    return calls.total()


def _counting(call: Callable[..., None], name: str, calls: Counter[str]) -> Callable[..., None]:
    def counting(*arguments: Any, **labels: str) -> None:
        calls[name] += 1
        call(*arguments, **labels)

    return counting


def _seconds_a_call(number: int = 100_000) -> float:
    """CPU seconds of one call, a histogram's, which is the dearest."""
    handle = Metrics("bench")
    started = time.process_time()
    for _ in range(number):
        handle.histogram("k2_commit_duration_seconds", 0.5, table="trades_v2")
    return (time.process_time() - started) / number


def _job(archive: Path, warehouse: Path, counting: MetricsConfig) -> tuple[int, float]:
    write = WriteConfig(run_id=uuid.uuid4().hex)
    config = IngestConfig(LakeConfig(warehouse=str(warehouse)), write, metrics=counting)
    started = time.process_time()
    stats = run_ingest(ReadArchive([str(archive)]), config, ("--runner=FnApiRunner",))
    return stats.consumed, time.process_time() - started
