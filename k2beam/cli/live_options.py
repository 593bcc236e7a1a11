"""The options of a live job, shared by ``k2beam ingest kafka`` and ``k2beam build-jar``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

import k2beam
from k2beam.cli.durations import seconds, whole_seconds
from k2beam.cli.intake_options import IntakeOptions, intake_options
from k2beam.cli.kafka_options import LOCAL_BOOTSTRAP, BootstrapOption, JavaOption, kafka_security, pairs
from k2beam.cli.lake_options import lake_config, snapshot_retention
from k2beam.cli.metrics_options import MetricsOptions, metrics_options
from k2beam.cli.option_groups import with_options
from k2beam.cli.registry_options import OptionalRegistryOption, optional_registry, registry_login
from k2beam.config import COMMIT_AGE_OF_GOAL_SECONDS, COMMIT_AGE_SECONDS, LakeConfig, Retention, WriteConfig
from k2beam.errors import UsageError
from k2beam.job.config import LOCAL_EXPANSION, IngestConfig, LiveConfig, Reader
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.login import check_login
from k2beam.registry.config import RegistryConfig

if TYPE_CHECKING:
    from k2beam.registry.resolver import RegistryResolver


class LiveOptions(NamedTuple):
    """A live job as its options describe it, without an end."""

    live: LiveConfig
    config: IngestConfig
    resolver: RegistryResolver
    metrics: MetricsOptions


@with_options(
    lake=lake_config,
    intake=intake_options,
    retention=snapshot_retention,
    security=kafka_security,
    login=registry_login,
    metrics=metrics_options,
)
def live_options(
    topic: Annotated[list[str] | None, typer.Option("--topic", help="A topic; may be repeated.")] = None,
    topic_pattern: Annotated[str | None, typer.Option(help="Regular expression that matches whole names.")] = None,
    bootstrap: BootstrapOption = LOCAL_BOOTSTRAP,
    registry: OptionalRegistryOption = None,
    *,
    login: RegistryConfig,
    reader: Annotated[
        Reader | None,
        typer.Option(
            help="What reads: Beam's Java, or librdkafka, for Prism (needs no Java) and Flink clusters.",
            show_default="librdkafka on Prism, unless --expansion or --kafka-property is given; else beam",
        ),
    ] = None,
    expansion: Annotated[
        str | None,
        typer.Option(help="Address of Beam's Java expansion service.", show_default=LOCAL_EXPANSION),
    ] = None,
    security: KafkaConfig,
    kafka_property: JavaOption = None,
    window: Annotated[str, typer.Option(help="Window of the log's time; rows of two windows share no file.")] = "60s",
    commit_age: Annotated[
        str | None,
        typer.Option(
            help="How old a bundle of rows may get, from its beginning, before it is committed.",
            show_default=f"{COMMIT_AGE_SECONDS:g}s, or {COMMIT_AGE_OF_GOAL_SECONDS:g}s for a job that ends by itself",
        ),
    ] = None,
    gap_grace: Annotated[str, typer.Option(help="How long a sequence gap waits for late data.")] = "5s",
    lake: LakeConfig,
    intake: IntakeOptions,
    retention: Retention | None,
    metrics: MetricsOptions,
) -> LiveOptions:
    """A group of options, for :func:`k2beam.cli.option_groups.with_options`.

    Raises UsageError for what can't be, and where there is no registry.
    """
    live = LiveConfig(
        kafka=security.at(bootstrap, pairs("--kafka-property", kafka_property)),
        expansion=expansion,
        topics=tuple(topic or ()),
        topic_pattern=topic_pattern,
        retention=retention,
        reader=reader,
    )
    config = IngestConfig(
        lake=lake,
        write=WriteConfig(
            window_seconds=whole_seconds(window, "--window"),
            commit_age_seconds=None if commit_age is None else seconds(commit_age, "--commit-age"),
        ),
        gap_grace_seconds=seconds(gap_grace, "--gap-grace"),
        metrics=metrics.config,
        **intake._asdict(),
    )
    schemas = optional_registry(registry, login)
    if schemas is None:
        raise UsageError("--registry URL is needed: without schemas every message would be a dead letter")
    check_login(live.kafka)
    return LiveOptions(live, config, k2beam.RegistryResolver(schemas), metrics)
