"""The command ``k2beam doctor``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from k2beam.cli.guard import guarded
from k2beam.cli.kafka_options import kafka_security, optional_kafka
from k2beam.cli.lake_options import lake_config
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_rows
from k2beam.cli.registry_options import OptionalRegistryOption, optional_registry, registry_login
from k2beam.config import LakeConfig
from k2beam.kafka.config import KafkaConfig
from k2beam.registry.config import RegistryConfig

_COLUMNS = ("check", "status", "found", "mend")


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("doctor")(doctor)


@guarded
@with_options(lake=lake_config, security=kafka_security, login=registry_login)
def doctor(
    *,
    lake: LakeConfig,
    bootstrap: Annotated[
        str | None, typer.Option(metavar="HOSTS", envvar="K2BEAM_BOOTSTRAP", help="Kafka's addresses.")
    ] = None,
    security: KafkaConfig,
    registry: OptionalRegistryOption = None,
    login: RegistryConfig,
    flink_master: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", envvar="K2BEAM_FLINK_MASTER", help="Flink's REST API.")
    ] = None,
    job_endpoint: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Beam's job server.")] = None,
    expansion: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Beam's expansion service.")] = None,
    worker_health: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The --health of a worker pool.")
    ] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Look at this machine and at the servers that are named: what there is, and what mends it. Exit 1 if any fails."""
    from k2beam.doctor import Health, Patient, examine

    patient = Patient(
        lake,
        optional_kafka(bootstrap, security),
        optional_registry(registry, login),
        flink_master,
        job_endpoint,
        expansion,
        worker_health,
    )
    found = list(examine(patient))
    emit_rows(_COLUMNS, map(asdict, found), output)
    failed = [one.check for one in found if one.status is Health.FAILED]
    if failed:
        typer.echo(f"FAILED: {', '.join(failed)}.", err=True)
        raise typer.Exit(1)
    warnings = sum(one.status is Health.WARNING for one in found)
    typer.echo(f"Nothing failed; {warnings} to look at." if warnings else "All is well.", err=True)
