"""What looks like a metric's call and is none."""

from __future__ import annotations

import threading
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.metrics import Metrics as BeamMetrics


class Gauge:
    def gauge(self, name: str, **labels: str) -> None: ...

    def increment(self, name: str) -> None: ...


def others(event: threading.Event, widget: Gauge, settings: Any) -> None:
    event.set()
    widget.gauge("k2_nothing", colour="red")
    widget.increment("k2_nothing")
    settings.counter.increment("k2_nothing")
    Metrics.gauge("k2beam", "lag").set(1)
    BeamMetrics.counter("k2beam", "rows").inc()
    beam.metrics.Metrics.histogram("k2beam", "rows")
