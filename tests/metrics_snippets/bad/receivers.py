"""Calls on what may be a handle and may not, and wrong ones on handles that are made elsewhere."""

# ruff: noqa: B009 - the lint has to follow it
from __future__ import annotations

from typing import Any, Protocol

from k2beam.metrics.handle import Metrics
from k2beam.metrics.worker import MetricsConfig

ROWS = "k2_rows_written_total"


class Counts(Protocol):
    def increment(self, name: str, /, **labels: str) -> None: ...


class Opener:
    def __init__(self, config: MetricsConfig) -> None:
        self._count = config.open("writer")

    def process(self) -> None:
        # expect: k2_rows_written_total: missing label(s) table, unknown label(s) symbol
        self._count.increment("k2_rows_written_total", symbol="s")
        # expect: k2_nothing_total: is not in k2beam.metrics.registry; add it there
        self._given().increment("k2_nothing_total")

    def own(self) -> None:
        # expect: k2_nothing_total: cannot tell: whether self is a handle of metrics is not known here; annotate it; ...
        self.increment("k2_nothing_total")

    def _given(self):
        return self._count


def held(config: MetricsConfig) -> None:
    for handle in (config.open("a"), config.open("b")):
        # expect: k2_nothing_total: is not in k2beam.metrics.registry; add it there
        handle.increment("k2_nothing_total")
    # expect: k2_nothing_total: is not in k2beam.metrics.registry; add it there
    [one.increment("k2_nothing_total") for one in [config.open("c")]]
    found = {"d": config.open("d")}
    # expect: k2_nothing_total: is not in k2beam.metrics.registry; add it there
    found["d"].increment("k2_nothing_total")
    for _, one in found.items():
        # expect: k2_nothing_total: cannot tell: whether one is a handle of metrics is not known here; annotate it; ...
        one.increment("k2_nothing_total")


def unknown(count, settings: Any, counts: Counts, name: str) -> None:
    # expect: k2_nothing_total: cannot tell: whether count is a handle of metrics is not known here; annotate it; ...
    count.increment("k2_nothing_total")
    # expect: histogram: cannot tell: whether settings.count is a handle of metrics is not known here; ...
    settings.count.histogram(ROWS, 3, table="t")
    # expect: gauge: cannot tell: whether settings.count is a handle of metrics is not known here; ...
    settings.count.gauge(f"k2_{name}_rows", 3)
    # expect: increment: cannot tell: whether count is a handle of metrics is not known here; annotate it; ...
    count.increment(name)
    # expect: k2_nothing_total: cannot tell: whether counts is a handle of metrics is not known here; annotate it; ...
    counts.increment("k2_nothing_total")


def reached(metrics: Metrics, settings: Any, method: str) -> None:
    # expect: k2_nothing_total: is not in k2beam.metrics.registry; add it there
    getattr(metrics, "increment")("k2_nothing_total")
    # expect: gauge: cannot tell: gauge is taken here and called elsewhere; ...
    taken = getattr(metrics, "gauge")
    taken("k2_nothing")
    # expect: k2_nothing_total: cannot tell: the method is chosen when the program runs; call it by its name; ...
    getattr(metrics, method)("k2_nothing_total")
    # expect: k2_nothing_total: cannot tell: the method is chosen when the program runs; call it by its name; ...
    getattr(settings, method)("k2_nothing_total")
    # expect: increment: cannot tell: whether settings.count is a handle of metrics is not known here; ...
    getattr(settings.count, "increment")
    # expect: increment: cannot tell: increment is taken from the class; call it on a handle; ...
    Metrics.increment(metrics, "k2_nothing_total")
