"""The commands ``k2beam topics …``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Annotated

import typer

from k2beam.cli.guard import guarded
from k2beam.cli.kafka_options import (
    LOCAL_BOOTSTRAP,
    BootstrapOption,
    ClientOption,
    kafka_security,
    pairs,
)
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_rows
from k2beam.errors import UsageError
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.login import check_login

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_RETENTION = re.compile(r"(\d+)(s|m|h|d)")

topics_app = typer.Typer(help="Topics of a Kafka broker.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(topics_app, name="topics")


def retention_ms(text: str) -> int:
    """Milliseconds of ``7d``, ``12h``, ``30m`` or ``90s``; -1, which is for ever, of ``forever``. Raises UsageError."""
    if text == "forever":
        return -1
    found = _RETENTION.fullmatch(text)
    if found is None:
        raise UsageError(f"--retention takes 7d, 12h, 30m, 90s or forever, not {text!r}")
    return int(found[1]) * _UNITS_MS[found[2]]


@topics_app.command("create")
@guarded
@with_options(security=kafka_security)
def create(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Such as market.crypto.trades.binance.")],
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of each topic.")] = 1,
    retention: Annotated[str, typer.Option(help="How long messages are kept: 7d, 12h, 30m, 90s or forever.")] = "7d",
    replication: Annotated[int, typer.Option(min=1, help="Copies of each partition.")] = 1,
    bootstrap: BootstrapOption = LOCAL_BOOTSTRAP,
    *,
    security: KafkaConfig,
    config: ClientOption = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="How long the broker may take to answer, seconds.")] = 30.0,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Make the topics that are not there. One that is there stays as it is; how it differs is said."""
    # The client takes a moment to import; --help must not wait for it.
    from k2beam.kafka.topics import TopicResult, TopicSpec, create_topics

    specs = [TopicSpec(name, partitions, replication, retention_ms(retention)) for name in names]
    kafka = security.at(bootstrap)
    options = kafka.client_options() | pairs("--config", config)
    check_login(kafka)
    failed = []

    def rows() -> Iterator[dict[str, object]]:
        for result in create_topics(bootstrap, specs, options, timeout):
            if result.state == "failed":
                failed.append(result.topic)
            yield asdict(result)

    emit_rows([field.name for field in fields(TopicResult)], rows(), output)
    if failed:
        typer.echo(f"Not created: {', '.join(failed)}", err=True)
        raise typer.Exit(1)
