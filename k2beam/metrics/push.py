"""Pushes what this process counted to a Prometheus Pushgateway: for a job that ends before it is scraped."""

from __future__ import annotations

import socket

from prometheus_client import REGISTRY, push_to_gateway

from k2beam.errors import MetricsPushFailed
from k2beam.logs import redact_text

_JOB = "k2beam"
_TIMEOUT_S = 10.0


def counted_here(name: str) -> float:
    """What a counter of this process has come to, summed over its labels."""
    samples = (sample for family in REGISTRY.collect() for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == name)


def push_metrics(url: str) -> None:
    """Replace what the gateway holds of this job and host (``job``, ``instance``) by this process's metrics.

    At most once: it is not tried again. Workers in processes of their own are not in it. Raises MetricsPushFailed
    when the gateway can't be reached or refuses.
    """
    try:
        push_to_gateway(url, _JOB, REGISTRY, grouping_key={"instance": socket.gethostname()}, timeout=_TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise MetricsPushFailed(f"the metrics were not pushed to {redact_text(url)}: {error}") from error
