"""Whether and how the processes of a job count: the configuration that travels to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from k2beam.errors import UsageError

if TYPE_CHECKING:
    from k2beam.metrics.handle import Metrics

PORTS = (9400, 9499)


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Whether and how the processes of a job count; frozen and picklable, opened in each DoFn's ``setup``.

    ``enabled`` off gives handles that do nothing. ``environment`` is the standard label of that name. With
    ``endpoint`` each process that opens a handle serves its metrics over HTTP on ``host``, at the first free port
    from ``ports[0]`` to ``ports[1]`` (0 to 0: any free port); the first configuration that is opened in a process
    decides. ``targets`` is a folder in which each of these processes has a file for Prometheus' ``file_sd_configs``.

    Raises UsageError for ports that are none, and for ``targets`` without ``endpoint``.

    Examples:
        >>> from k2beam import MetricsConfig
        >>> metrics = MetricsConfig(environment="prod", endpoint=True, ports=(9400, 9409), targets="targets")
        >>> metrics.host, metrics.enabled
        ('127.0.0.1', True)
        >>> MetricsConfig(targets="targets")
        Traceback (most recent call last):
        ...
        k2beam.errors.UsageError: a folder of targets has no effect without an endpoint: give --metrics-endpoint too
    """

    enabled: bool = True
    environment: str = ""
    endpoint: bool = False
    host: str = "127.0.0.1"
    ports: tuple[int, int] = PORTS
    targets: str | None = None

    def __post_init__(self) -> None:
        first, last = self.ports
        if not (0 <= first <= last <= 65535) or (first == 0 != last):
            raise UsageError(f"ports of the metrics' endpoint go from 1 to 65535, the lower first, not {first}-{last}")
        if self.targets is not None and not self.endpoint:
            raise UsageError("a folder of targets has no effect without an endpoint: give --metrics-endpoint too")

    def open(self, component: str) -> Metrics:
        """The handle of a component in this process; starts the process's endpoint if there is to be one.

        Safe from several threads, and in forked and spawned processes. An endpoint that can't be had is logged and
        counted in ``k2_metrics_endpoint_failures_total``: it is never a reason not to ingest.
        """
        # Here, so that what only reads options needs neither Prometheus' client nor a logger.
        from k2beam.metrics.worker import open_handle

        return open_handle(self, component)


DEFAULT_METRICS = MetricsConfig()
"""Counts, and offers nothing over HTTP."""
