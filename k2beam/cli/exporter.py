"""The command ``k2beam exporter``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from k2beam.cli.addresses import host_and_port
from k2beam.cli.durations import positive_seconds
from k2beam.cli.guard import guarded
from k2beam.cli.kafka_options import WatchedTopics, kafka_security, optional_kafka, watched_topics
from k2beam.cli.lake_options import lake_config
from k2beam.cli.option_groups import with_options
from k2beam.config import LakeConfig
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.login import check_login


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("exporter")(exporter)


@guarded
@with_options(lake=lake_config, topics=watched_topics, security=kafka_security)
def exporter(
    *,
    lake: LakeConfig,
    topics: WatchedTopics,
    security: KafkaConfig,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where /metrics is served; port 0 takes a free one.")
    ] = "127.0.0.1:9308",
    interval: Annotated[str, typer.Option(help="How often everything is read, such as 15s.")] = "15s",
    environment: Annotated[str, typer.Option(help="The label environment of all metrics.")] = "",
    once: Annotated[
        bool, typer.Option("--once", help="Read once, print the metrics and end; exit 1 if a reading failed.")
    ] = False,
) -> None:
    """Freshness, lag, sizes and coverage for Prometheus, read from the tables and from Kafka. Writes nothing."""
    from k2beam.exporter.service import ExporterConfig, serve, snapshot

    host, port = host_and_port(listen, "--listen")
    every = positive_seconds(interval, "--interval")
    config = ExporterConfig(
        lake=lake,
        kafka=optional_kafka(topics.bootstrap, security),
        topics=topics.names,
        topic_pattern=topics.pattern,
        environment=environment,
    )
    if config.kafka is not None:
        check_login(config.kafka)
    if not once:
        serve(config, host, port, every)
        return
    text, good = snapshot(config)
    sys.stdout.write(text)
    if not good:
        raise typer.Exit(1)
