"""Handles that are opened by a configuration, returned, held in containers, reached by getattr."""

# ruff: noqa: B009 - the lint has to follow it
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from k2beam.metrics.handle import Metrics, NullMetrics
from k2beam.metrics.worker import DEFAULT_METRICS, MetricsConfig


class Opener:
    def __init__(self, config: MetricsConfig = DEFAULT_METRICS) -> None:
        self._config = config
        self._count: Metrics | None = None

    def setup(self) -> None:
        self._count = self._config.open("writer")
        other = self._config.open("reader")
        other.increment("k2_rows_written_total", table="t")

    def process(self) -> None:
        assert self._count is not None
        self._count.increment("k2_rows_written_total", table="t")
        self._own.increment("k2_rows_written_total", table="t")
        self._opened().increment("k2_rows_written_total", table="t")

    @cached_property
    def _own(self) -> Metrics:
        return self._config.open("own")

    def _opened(self):
        return DEFAULT_METRICS.open("opened")


class Derived(Opener):
    def more(self) -> None:
        if self._count is not None:
            self._count.increment("k2_rows_written_total", table="t")


@dataclass
class Options:
    config: MetricsConfig = field(default_factory=MetricsConfig)
    count: Metrics = field(default_factory=NullMetrics)


def opened(options: Options, make: Callable[[str], Metrics]) -> None:
    options.count.increment("k2_rows_written_total", table="t")
    options.config.open("x").increment("k2_rows_written_total", table="t")
    handle = NullMetrics() if options is None else make("x")
    handle.increment("k2_rows_written_total", table="t")


def held(config: MetricsConfig, others: dict[str, Metrics]) -> None:
    handles = [config.open(name) for name in "ab"]
    for handle in handles:
        handle.increment("k2_rows_written_total", table="t")
    for other in others.values():
        other.increment("k2_rows_written_total", table="t")
    [one.increment("k2_rows_written_total", table="t") for one in handles]
    others["x"].increment("k2_rows_written_total", table="t")


def reached(handle: Metrics) -> None:
    getattr(handle, "increment")("k2_rows_written_total", table="t")
    getattr(handle, "gauge")("k2_freshness_seconds", 1, table="t")
