"""The command ``k2beam replay``: what was recorded once more, at its speed or another one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import k2beam
from k2beam.cli.guard import guarded
from k2beam.cli.kafka_options import LOCAL_BOOTSTRAP, BootstrapOption, ClientOption, kafka_security, pairs
from k2beam.cli.lake_options import check_exists, lake_config
from k2beam.cli.metrics_options import MetricsOptions, metrics_options
from k2beam.cli.names import ExchangeOption, SymbolOption, split_names
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_object
from k2beam.cli.produce import open_producer
from k2beam.cli.progress import progress
from k2beam.cli.query_options import AsOfOption
from k2beam.cli.registry_options import OptionalRegistryOption, optional_registry, registry_login
from k2beam.config import LakeConfig
from k2beam.errors import UsageError
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.login import check_login
from k2beam.query.selections import EventSelection
from k2beam.query.times import to_instant
from k2beam.registry.config import RegistryConfig
from k2beam.signals import stop_signal

if TYPE_CHECKING:
    from k2beam.metrics.handle import Metrics
    from k2beam.model import Kind
    from k2beam.produce.recorded import Recording
    from k2beam.produce.replay import Destination

_ARCHIVE = "archive:"


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("replay")(replay_events)


@guarded
@with_options(lake=lake_config, security=kafka_security, login=registry_login, metrics=metrics_options)
def replay_events(
    archives: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARCHIVE...]", help="Containers of messages of a log; without any, the tables."),
    ] = None,
    to: Annotated[str, typer.Option("--to", metavar="DEST", help="stdout, kafka, or archive:OUT.avro.")] = "stdout",
    speed: Annotated[
        str, typer.Option(help="1x: with the spacing that they had; 10x: ten times as fast; max: without any.")
    ] = "max",
    kind: Annotated[str, typer.Option("--kind", help="trades, quotes or both, with a comma.")] = "trades,quotes",
    symbol: SymbolOption = None,
    exchange: ExchangeOption = None,
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Events from this time on.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Events before this time.")] = None,
    as_of: AsOfOption = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the position is kept: stopped or killed, the next one goes on there."),
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Of an archive: all to this topic, and not to their own.")] = None,
    bootstrap: BootstrapOption = LOCAL_BOOTSTRAP,
    registry: OptionalRegistryOption = None,
    *,
    lake: LakeConfig,
    security: KafkaConfig,
    login: RegistryConfig,
    config: ClientOption = None,
    spool: Annotated[str, typer.Option(metavar="DIR", help="Folder for what the broker does not take.")] = "spool",
    metrics: MetricsOptions,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Events once more, by time and number, with the spacing that they had: to test, or to feed another system."""
    from k2beam.produce.pace import MAX_SPEED, parse_speed
    from k2beam.produce.replay import replay, replay_to_archive

    factor, path = parse_speed(speed), to.removeprefix(_ARCHIVE) if to.startswith(_ARCHIVE) else None
    if to not in ("stdout", "kafka") and not path:
        raise UsageError(f"--to takes stdout, kafka or archive:OUT.avro, not {to!r}")
    if path and (factor != MAX_SPEED or checkpoint is not None):
        raise UsageError("--speed and --checkpoint have no meaning for an archive: it is whole, or not there")
    if topic is not None and not (archives and to == "kafka"):
        raise UsageError("--topic is for messages of an archive that go to kafka")
    if until is not None:
        to_instant(until, "--until")
    symbols, exchanges = split_names(symbol, "--symbol"), split_names(exchange, "--exchange")
    selection = EventSelection(symbols, exchanges, start, until, as_of)
    recording = _recording(archives, lake, _kinds(kind), selection, decoded=to == "stdout")
    if path:
        if os.path.lexists(path):
            raise UsageError(f"{path}: already exists and would be lost; move it away or name a new file")
        with progress("replay") as advance:
            count = replay_to_archive(recording, path, advance)
        emit_object({"events": count, "archive": path}, output, title="replay")
        return
    schemas = optional_registry(registry, login) if to == "kafka" else None
    kafka = security.at(bootstrap)
    with metrics.counting() as counts, stop_signal() as stop, progress("replay") as advance:
        handle = counts.open("producer")
        if to == "stdout":
            from k2beam.produce.replay import JsonLines

            stats = replay(recording, JsonLines(sys.stdout), speed=factor, checkpoint=checkpoint, stopped=stop.is_set)
        else:
            check_login(kafka)
            with _kafka(archives, kafka, schemas, pairs("--config", config), spool, topic, handle) as destination:
                stats = replay(
                    recording,
                    destination,
                    speed=factor,
                    checkpoint=checkpoint,
                    stopped=stop.is_set,
                    advance=advance,
                )
    if to == "kafka":
        emit_object(stats.as_dict(), output, title="replay")
    late = f"; late by {stats.late_ms['p50']:g} ms, {stats.late_ms['p99']:g} ms of 99 in 100" if stats.late_ms else ""
    ended = "Stopped after" if stats.stopped else "Replayed"
    typer.echo(f"{ended} {stats.events:,} events in {stats.duration_s:.1f} s{late}.", err=True)


def _kinds(text: str) -> Sequence[Kind]:
    from k2beam.model import SEQUENCED_KINDS

    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    kinds = tuple(kind for kind in SEQUENCED_KINDS if kind in names)
    if len(kinds) != len(names):
        raise UsageError(f"--kind takes trades, quotes or both with a comma, not {text!r}")
    return kinds


def _recording(
    archives: Sequence[str] | None, lake: LakeConfig, kinds: Sequence[Kind], selection: EventSelection, *, decoded: bool
) -> Recording:
    from k2beam.produce.recorded import RecordedArchive, RecordedTables

    if archives:
        return RecordedArchive(tuple(archives), kinds, selection, decoded)
    check_exists(lake)
    opened = k2beam.Lake.of(lake)
    return RecordedTables(opened.catalog, opened.namespace, kinds, selection)


@contextmanager
def _kafka(
    archives: Sequence[str] | None,
    kafka: KafkaConfig,
    registry: RegistryConfig | None,
    config: dict[str, str],
    spool: str,
    topic: str | None,
    metrics: Metrics,
) -> Iterator[Destination]:
    """What sends to Kafka, until the end of the block; closed then."""
    from k2beam.produce.delivery import Delivery, DeliveryConfig
    from k2beam.produce.replay import KafkaEvents, KafkaMessages

    options = kafka.client_options() | config
    if archives:
        settings = DeliveryConfig(kafka.bootstrap, tuple(options.items()), Path(spool))
        delivery = Delivery(settings, metrics)
        try:
            yield KafkaMessages(delivery, topic)
        finally:
            delivery.close()
        return
    if registry is None:
        raise UsageError("--registry URL is needed: events of tables are written by its schemas")
    producer = open_producer(kafka, registry, config, spool, metrics)
    try:
        yield KafkaEvents(producer)
    finally:
        producer.close()
