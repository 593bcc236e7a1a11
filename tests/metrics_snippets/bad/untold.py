"""What is known only when the program runs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial

from k2beam.metrics.handle import Metrics


@dataclass
class Fields:
    name: str = "k2_rows_written_total"
    labels: dict[str, str] = field(default_factory=dict)

    def record(self, metrics: Metrics) -> None:
        # expect: increment: cannot tell: name is a field of Fields: each object has its own; ...
        metrics.increment(self.name, table="t")


def changed(metrics: Metrics, late: bool) -> None:
    labels = {"table": "t"}
    if late:
        labels["reason"] = "late"
    # expect: k2_rows_written_total: cannot tell: labels may be changed in line 25; ...
    metrics.increment("k2_rows_written_total", **labels)


def handed_on(metrics: Metrics) -> None:
    labels = {"table": "t"}
    other = labels
    print(other)
    # expect: k2_rows_written_total: cannot tell: labels may be changed in line 33; ...
    metrics.increment("k2_rows_written_total", **labels)


def passed_in(metrics: Metrics, name: str, labels: dict[str, str]) -> None:
    # expect: increment: cannot tell: name is a parameter of passed_in, which anybody may call; ...
    metrics.increment(name, table="t")
    # expect: k2_rows_written_total: cannot tell: labels is a parameter of passed_in, which anybody may call; ...
    metrics.increment("k2_rows_written_total", **labels)


def computed(metrics: Metrics, kind: str) -> None:
    # expect: increment: cannot tell: f'k2_{kind}_total' is computed when the program runs; ...
    metrics.increment(f"k2_{kind}_total", kind=kind)
    # expect: k2_rows_written_total: cannot tell: os.environ is not part of the project; ...
    metrics.increment("k2_rows_written_total", **os.environ)
    # expect: increment: cannot tell: the metric's name is not the first argument; ...
    metrics.increment(*[kind])
    labels = {"table": kind}
    labels |= {"reason": kind}
    # expect: k2_commit_retries_total: cannot tell: labels gets its value in line 53 when the program runs; ...
    metrics.increment("k2_commit_retries_total", **labels)


def taken(metrics: Metrics) -> None:
    # expect: increment: cannot tell: increment is taken here and called elsewhere; ...
    count = metrics.increment
    count("k2_sent_total")
    # expect: histogram: cannot tell: histogram is taken here and called elsewhere; ...
    partial(metrics.histogram, "k2_sent_total")(3)


def together(metrics: Metrics, late: bool) -> None:
    name = "k2_rows_written_total" if late else "k2_decode_errors_total"
    labels = {"table": "t"} if late else {"error_class": "c"}
    # expect: increment: cannot tell: which labels go with which name is decided when the program runs; ...
    metrics.increment(name, **labels)
    # expect: increment: cannot tell: which labels go with which name is decided when the program runs; ...
    metrics.increment(name, value=2, **labels)


def named(metrics: Metrics, labels: dict[str, str]) -> None:
    # expect: k2_rows_written_total: cannot tell: labels is a parameter of named, which anybody may call; and...
    metrics.increment(
        "k2_rows_written_total",
        **labels,  # metrics: covered by tests/unit/metrics/test_registry.py::test_that_was_never_written
    )
