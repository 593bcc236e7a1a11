"""The command ``k2beam ingest kafka``."""

from __future__ import annotations

from typing import Annotated

import typer

import k2beam
from k2beam.cli.durations import seconds, whole_seconds
from k2beam.cli.ingest import ingest_app, verdict
from k2beam.cli.intake_options import IntakeOptions, intake_options
from k2beam.cli.job import job_row
from k2beam.cli.kafka_options import (
    LOCAL_BOOTSTRAP,
    BootstrapOption,
    JavaOption,
    kafka_security,
    pairs,
)
from k2beam.cli.lake_options import lake_config, snapshot_retention
from k2beam.cli.metrics_options import MetricsOptions, metrics_options
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_object
from k2beam.cli.registry_options import OptionalRegistryOption, optional_registry, registry_login
from k2beam.config import COMMIT_AGE_OF_GOAL_SECONDS, COMMIT_AGE_SECONDS, LakeConfig, Retention, WriteConfig
from k2beam.errors import UsageError
from k2beam.job.config import LOCAL_EXPANSION, STALL_SECONDS, Existing, IngestConfig, LiveConfig, Reader
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.login import check_login
from k2beam.registry.config import RegistryConfig


def register(app: typer.Typer) -> None:
    """Add the command to the ``ingest`` commands, which are in ``app`` already."""
    del app
    ingest_app.command("kafka")(kafka)


@with_options(
    lake=lake_config,
    intake=intake_options,
    retention=snapshot_retention,
    security=kafka_security,
    login=registry_login,
    metrics=metrics_options,
)
def kafka(
    context: typer.Context,
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
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when all that is there at the start is committed.")
    ] = False,
    max_messages: Annotated[int | None, typer.Option(min=1, help="End after about so many messages.")] = None,
    stall_after: Annotated[
        str,
        typer.Option(help="Fail when nothing is taken for so long while the broker has messages; 0: never."),
    ] = f"{STALL_SECONDS / 60:g}m",
    attach: Annotated[
        bool, typer.Option("--attach", help="Where the same job runs on Flink already, follow it, else start it.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Where the same job runs on Flink already, end it first.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave the job on Flink once it runs: k2beam job lists, stops it.")
    ] = False,
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
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Read topics into the tables, from where the tables stand. Beam's own options follow after --."""
    if attach and replace:
        raise UsageError("--attach follows a job that runs already and --replace ends it: leave one of the two out")
    live = LiveConfig(
        kafka=security.at(bootstrap, pairs("--kafka-property", kafka_property)),
        expansion=expansion,
        topics=tuple(topic or ()),
        topic_pattern=topic_pattern,
        until_caught_up=until_caught_up,
        max_messages=max_messages,
        retention=retention,
        reader=reader,
        stall_seconds=seconds(stall_after, "--stall-after"),
        existing=Existing.ATTACH if attach else Existing.REPLACE if replace else Existing.REFUSE,
    )
    if not live.has_goal:
        metrics.refuse_push_for("a job without --until-caught-up or --max-messages")
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
    resolver = k2beam.RegistryResolver(schemas)
    if detach:
        from k2beam.job.live import detach_live

        job = detach_live(live, config, context.obj or (), resolver=resolver)
        emit_object(job_row(job), output, title="ingest kafka --detach")
        typer.echo(f"The job runs on: k2beam job stop {job.id} ends it, --attach follows it.", err=True)
        return
    stats = k2beam.run_live(live, config, context.obj or (), resolver=resolver)
    metrics.push(stats)
    emit_object(stats.as_dict(), output, title="ingest kafka")
    typer.echo(verdict(stats), err=True)
