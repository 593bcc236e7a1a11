"""The exporter: what it reads, and how it gives it to Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest, start_http_server
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from k2beam.config import LakeConfig
from k2beam.errors import UsageError
from k2beam.exporter.lag import LagReading, TopicLag
from k2beam.exporter.readings import Reading, Tables, lake_readings
from k2beam.exporter.rounds import Rounds, run_until
from k2beam.kafka.config import KafkaConfig
from k2beam.lake.catalog import open_catalog
from k2beam.logs import get_logger
from k2beam.metrics.handle import Metrics
from k2beam.signals import stop_signal

_COMPONENT = "exporter"


@dataclass(frozen=True, slots=True)
class ExporterConfig:
    """What is read: the tables of ``lake`` and, where ``kafka`` is given, the topics named or matched by a pattern.

    ``environment`` is the standard label. Raises UsageError for a cluster without topics, and topics without a cluster.
    """

    lake: LakeConfig
    kafka: KafkaConfig | None = None
    topics: tuple[str, ...] = ()
    topic_pattern: str | None = None
    environment: str = ""

    def __post_init__(self) -> None:
        wanted = bool(self.topics or self.topic_pattern)
        if self.kafka is None and wanted:
            raise UsageError("--topic and --topic-pattern are looked at in a broker: give --bootstrap HOSTS")
        if self.kafka is not None and not wanted:
            raise UsageError("--bootstrap is for the lag of topics: give --topic NAME or --topic-pattern REGEX")


def snapshot(config: ExporterConfig) -> tuple[str, bool]:
    """Read everything once: Prometheus' text format, and whether every reading succeeded."""
    registry = CollectorRegistry()
    metrics = Metrics(_COMPONENT, config.environment, registry=registry)
    good = [group.once() for group in _groups(config, metrics)]
    return generate_latest(_Filled(registry)).decode("utf-8"), all(good)


def serve(config: ExporterConfig, host: str, port: int, interval: float) -> None:
    """Read every ``interval`` seconds and serve ``/metrics`` at an address until SIGINT or SIGTERM.

    Port 0 takes a free one; the log says which. Raises UsageError when the address can't be listened on.
    """
    groups = _groups(config, Metrics(_COMPONENT, config.environment))
    with stop_signal() as stop:
        try:
            server, _ = start_http_server(port, host, REGISTRY)
        except OSError as error:
            raise UsageError(f"--listen {host}:{port}: {error.strerror or error}; choose another address") from error
        try:
            get_logger(_COMPONENT).info("metrics endpoint", address=f"{host}:{server.server_port}")
            run_until(stop, groups, interval)
        finally:
            server.shutdown()
            server.server_close()


def _groups(config: ExporterConfig, metrics: Metrics) -> list[Rounds]:
    """What is read by itself: the tables, and Kafka, each with a catalog of its own."""
    groups: list[Sequence[Reading]] = [lake_readings(_lake(config.lake), metrics)]
    if config.kafka is not None:
        groups.append([LagReading(topic_lag(config, config.kafka), metrics)])
    return [Rounds(readings, metrics) for readings in groups]


def _lake(config: LakeConfig) -> Tables:
    return Tables(lambda: open_catalog(config, create=False), config.namespace)


def topic_lag(config: ExporterConfig, kafka: KafkaConfig) -> TopicLag:
    """The lag of the topics of a configuration, whose cluster is ``kafka``; it connects when it is first read."""
    # Here, since the tables alone are read without the extra that has Kafka's client.
    from k2beam.exporter.log_reader import LogReader
    from k2beam.kafka.cluster import ASK_SECONDS, Cluster

    peek = LogReader(kafka).peek
    connect = partial(Cluster, kafka, ASK_SECONDS)
    return TopicLag(_lake(config.lake), connect, peek, config.topics, config.topic_pattern)


class _Filled(Collector):
    """A registry without the families that have no sample: the registry knows those of all components."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        return (family for family in self._registry.collect() if family.samples)
