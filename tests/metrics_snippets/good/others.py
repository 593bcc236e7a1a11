"""What looks like a metric's call and is none."""

# ruff: noqa: B009 - the lint has to follow it
from __future__ import annotations

import threading
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.metrics import Metrics as BeamMetrics
from prometheus_client import Counter


class Gauge:
    def gauge(self, name: str, **labels: str) -> None: ...

    def increment(self, name: str) -> None: ...


def made() -> Gauge:
    return Gauge()


class Steps:
    """Takes anything but the name of a metric."""

    def __init__(self) -> None:
        self._gauge = Gauge()

    def take(self, steps: list[Gauge], settings: Any, field: str) -> Any:
        self._gauge.increment("k2_nothing")
        for step in steps:
            step.increment("k2_nothing")
        settings.counter.increment()
        settings.counter.increment(3)
        settings.counter.increment("steps")
        return getattr(settings, field), getattr(settings, "name")("k2_nothing"), settings.gauge


def others(event: threading.Event, widget: Gauge) -> None:
    event.set()
    widget.gauge("k2_nothing", colour="red")
    widget.increment("k2_nothing")
    made().increment("k2_nothing")
    Counter("k2_nothing", "help").increment("k2_nothing")
    Metrics.gauge("k2beam", "lag").set(1)
    BeamMetrics.counter("k2beam", "rows").inc()
    beam.metrics.Metrics.histogram("k2beam", "rows")
