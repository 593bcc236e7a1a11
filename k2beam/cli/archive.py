"""The commands ``k2beam archive``: from elsewhere into raw_record containers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from k2beam.cli.guard import guarded
from k2beam.cli.kafka_options import LOCAL_BOOTSTRAP, BootstrapOption, kafka_security
from k2beam.cli.lake_options import archive_stores
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_object
from k2beam.cli.progress import progress
from k2beam.cli.registry_options import OptionalRegistryOption, optional_registry, registry_login
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.login import check_login
from k2beam.registry.config import RegistryConfig

if TYPE_CHECKING:
    from k2beam.kafka.archiver import ArchiveStats, KafkaArchiver
    from k2beam.kafka.cluster import Cluster

archive_app = typer.Typer(no_args_is_help=True, help="Write raw_record containers, to be replayed at any time.")


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(archive_app, name="archive")


@archive_app.callback()
def archive() -> None:
    """Write raw_record containers, to be replayed at any time."""


@archive_app.command("kafka")
@guarded
@with_options(security=kafka_security, login=registry_login)
def kafka(
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder for the containers, or s3://BUCKET/PREFIX.")],
    topic: Annotated[list[str] | None, typer.Option("--topic", help="A topic; may be repeated.")] = None,
    topic_pattern: Annotated[str | None, typer.Option(help="Regular expression that matches whole names.")] = None,
    bootstrap: BootstrapOption = LOCAL_BOOTSTRAP,
    registry: OptionalRegistryOption = None,
    *,
    login: RegistryConfig,
    security: KafkaConfig,
    rows_per_file: Annotated[
        int, typer.Option(min=1, help="Messages in a container, at the most; it closes at 64 MiB too.")
    ] = 200_000,
    force: Annotated[bool, typer.Option("--force", help="Write although OUT is not empty.")] = False,
    catalog: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of pyiceberg's catalogs, that whose settings open the store.")
    ] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Copy topics, from their first offset to the end found now, byte for byte; commits no offsets."""
    from k2beam.kafka.archiver import KafkaArchiver, check_folder
    from k2beam.kafka.cluster import Cluster
    from k2beam.registry.resolver import RegistryResolver

    stores = archive_stores([out], catalog)
    check_folder(out, force, stores)
    config = security.at(bootstrap)
    schemas = optional_registry(registry, login)
    resolver = None if schemas is None else RegistryResolver(schemas)
    if resolver is None:
        _warn("without --registry the containers have no writer schemas: their messages would become dead letters")
    check_login(config)
    archiver = partial(KafkaArchiver, config, out, resolver, stores=stores, rows_per_file=rows_per_file, warn=_warn)
    if resolver is not None:
        resolver.open()
    try:
        stats = _archived(Cluster(config), tuple(topic or ()), topic_pattern, archiver)
    finally:
        if resolver is not None:
            resolver.close()
    emit_object(stats, output, title="archive kafka")


def _archived(
    cluster: Cluster, names: tuple[str, ...], pattern: str | None, archiver: Callable[..., KafkaArchiver]
) -> ArchiveStats:
    topics = cluster.topics(names, pattern)
    bounds = cluster.bounds(topics)
    with progress("archiving", sum(bound.end - bound.low for bound in bounds.values())) as advance:
        return archiver(on_messages=advance).run(topics, bounds)


def _warn(text: str) -> None:
    typer.echo(f"Warning: {text}", err=True)
