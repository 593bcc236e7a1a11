"""The command ``k2beam ingest kafka``."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer

from k2beam.cli.ingest import ingest_app, seconds, verdict
from k2beam.cli.kafka_options import (
    BootstrapOption,
    CaOption,
    MechanismOption,
    PasswordOption,
    PropertyOption,
    SecurityOption,
    UsernameOption,
    kafka_config,
)
from k2beam.cli.output import CatalogOption, OutputFormat, OutputOption, WarehouseOption, emit_object, lake_config
from k2beam.errors import UsageError

_MIB = 1 << 20


def register(app: typer.Typer) -> None:
    """Add the command to the ``ingest`` commands, which are in ``app`` already."""
    del app
    ingest_app.command("kafka")(kafka)


def kafka(
    context: typer.Context,
    topic: Annotated[list[str] | None, typer.Option("--topic", help="A topic; may be repeated.")] = None,
    topic_pattern: Annotated[str | None, typer.Option(help="Regular expression that matches whole names.")] = None,
    bootstrap: BootstrapOption = "localhost:9092",
    registry: Annotated[
        str | None,
        typer.Option(metavar="URL", envvar="K2BEAM_REGISTRY", help="The schema registry (Confluent's API)."),
    ] = None,
    expansion: Annotated[str, typer.Option(help="Address of the Java expansion service.")] = "localhost:8097",
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when all that is there at the start is committed.")
    ] = False,
    max_messages: Annotated[int | None, typer.Option(min=1, help="End after about so many messages.")] = None,
    security_protocol: SecurityOption = "PLAINTEXT",
    sasl_mechanism: MechanismOption = None,
    sasl_username: UsernameOption = None,
    sasl_password: PasswordOption = None,
    ca_file: CaOption = None,
    kafka_property: PropertyOption = None,
    window: Annotated[str, typer.Option(help="Window of the log's time; rows of two windows share no file.")] = "60s",
    commit_age: Annotated[str, typer.Option(help="How old a written row may get before it is committed.")] = "10s",
    gap_grace: Annotated[str, typer.Option(help="How long a sequence gap waits for late data.")] = "5s",
    warehouse: WarehouseOption = None,
    catalog: CatalogOption = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Read topics into the tables, from where the tables stand. Beam's own options follow after --."""
    from k2beam.lake.config import WriteConfig
    from k2beam.live import LiveConfig, run_live
    from k2beam.options import IngestConfig
    from k2beam.registry.resolver import RegistryResolver

    live = LiveConfig(
        kafka=kafka_config(
            bootstrap, security_protocol, sasl_mechanism, sasl_username, sasl_password, ca_file, kafka_property
        ),
        expansion=expansion,
        topics=tuple(topic or ()),
        topic_pattern=topic_pattern,
        until_caught_up=until_caught_up,
        max_messages=max_messages,
    )
    config = IngestConfig(
        lake=lake_config(warehouse, catalog),
        write=WriteConfig(
            run_id=uuid.uuid4().hex,
            bounded=False,
            window_seconds=int(seconds(window, "--window")),
            commit_age_seconds=seconds(commit_age, "--commit-age"),
        ),
        gap_grace_seconds=seconds(gap_grace, "--gap-grace"),
    )
    if not registry:
        raise UsageError("--registry URL is needed: without schemas every message would be a dead letter")
    stats = run_live(live, config, context.obj or (), resolver=RegistryResolver(registry))
    emit_object(stats.as_dict(), output, title="ingest kafka")
    typer.echo(verdict(stats), err=True)
