"""The options that say how the processes of a job count, shared by the commands that ingest and produce."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from k2beam.errors import MetricsPushFailed, UsageError
from k2beam.metrics.config import MetricsConfig
from k2beam.references import has_userinfo

if TYPE_CHECKING:
    from k2beam.job.stats import IngestStats

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+):(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?")

_Metrics = Annotated[bool, typer.Option("--metrics/--no-metrics", help="Count for Prometheus; Beam's counters stay.")]
_Endpoint = Annotated[
    str | None,
    typer.Option(
        "--metrics-endpoint",
        metavar="HOST:PORT-PORT",
        help="Serve the metrics of each process at a free port of these, such as 127.0.0.1:9400-9499.",
    ),
]
_Targets = Annotated[
    str | None,
    typer.Option("--metrics-targets", metavar="DIR", help="Folder of target files for Prometheus' file_sd_configs."),
]
_Environment = Annotated[str, typer.Option(metavar="NAME", help="The label environment of all metrics.")]
_Gateway = Annotated[
    str | None,
    typer.Option(metavar="URL", help="A Pushgateway to push the metrics to at the end; for jobs that end."),
]


@dataclass(frozen=True, slots=True)
class MetricsOptions:
    """What the options say: how to count, and where to push at the end of a bounded job."""

    config: MetricsConfig = field(default_factory=MetricsConfig)
    push_gateway: str | None = None

    def refuse_push_for(self, what: str) -> None:
        """Raises UsageError where the metrics are to be pushed at the end: ``what`` has none."""
        if self.push_gateway is not None:
            raise UsageError(
                f"--push-gateway is for jobs that end, and {what} does not: let Prometheus scrape it "
                "(--metrics-endpoint, --metrics-targets)"
            )

    def refuse_for(self, what: str) -> None:
        """Raises UsageError where any option is given: ``what`` neither runs a job nor produces."""
        if self != MetricsOptions():
            raise UsageError(
                f"the options of metrics are for what goes into the tables or to Kafka; {what} counts nothing"
            )

    @contextmanager
    def counting(self) -> Iterator[MetricsConfig]:
        """For a command that counts in its own process: what its handles are opened with.

        At the end, a bad one too, the metrics are pushed, if there is where to, and the endpoint goes with its target
        file.
        """
        from k2beam.metrics.worker import close_endpoint

        try:
            yield self.config
        finally:
            self._push("what was produced is not touched by it")
            close_endpoint()

    def push(self, stats: IngestStats) -> None:
        """Push the metrics of this process, if there is where to; what goes wrong is said, and changes nothing else.

        ``stats`` are those of the run: they tell what workers in processes of their own have counted.
        """
        if not self._push("the ingest itself is complete"):
            return
        from k2beam.metrics.push import counted_here

        missing = stats.consumed - round(counted_here("k2_messages_consumed_total"))
        if missing > 0:
            logging.getLogger(__name__).warning(
                "%d of %d messages were counted by workers in processes of their own and are not in what was pushed; "
                "let Prometheus scrape them (--metrics-endpoint)",
                missing,
                stats.consumed,
            )

    def _push(self, untouched: str) -> bool:
        """Whether the metrics of this process were pushed; ``untouched`` is what a failure does not change."""
        if self.push_gateway is None:
            return False
        from k2beam.metrics.push import push_metrics

        try:
            push_metrics(self.push_gateway)
        except MetricsPushFailed as error:
            logging.getLogger(__name__).error("%s; %s", error, untouched)
            return False
        return True


def metrics_options(
    metrics: _Metrics = True,
    metrics_endpoint: _Endpoint = None,
    metrics_targets: _Targets = None,
    environment: _Environment = "",
    push_gateway: _Gateway = None,
) -> MetricsOptions:
    """The group of options, for :func:`k2beam.cli.option_groups.with_options`. Raises UsageError for what can't be."""
    if push_gateway is not None and has_userinfo(push_gateway):
        raise UsageError(
            "--push-gateway takes no name or password in its URL: they would be seen in lists of processes"
        )
    if not metrics:
        given: Mapping[str, object] = {
            "--metrics-endpoint": metrics_endpoint,
            "--metrics-targets": metrics_targets,
            "--environment": environment,
            "--push-gateway": push_gateway,
        }
        useless = [name for name, value in given.items() if value]
        if useless:
            raise UsageError(f"{', '.join(useless)}: no effect with --no-metrics")
        return MetricsOptions(MetricsConfig(enabled=False))
    if metrics_endpoint is None:
        if metrics_targets is not None:
            raise UsageError("--metrics-targets has no effect without --metrics-endpoint HOST:PORT-PORT")
        return MetricsOptions(MetricsConfig(environment=environment), push_gateway)
    host, ports = _address(metrics_endpoint)
    config = MetricsConfig(environment=environment, endpoint=True, host=host, ports=ports, targets=metrics_targets)
    return MetricsOptions(config, push_gateway)


def _address(text: str) -> tuple[str, tuple[int, int]]:
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise UsageError(f"--metrics-endpoint takes HOST:PORT-PORT or HOST:PORT, not {text!r}")
    first = int(found["first"])
    return found["host"].strip("[]"), (first, first if found["last"] is None else int(found["last"]))
