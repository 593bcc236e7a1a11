"""The commands ``k2beam produce``: live market data to Kafka."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from k2beam.cli.ingest import seconds
from k2beam.cli.output import OutputFormat, OutputOption, emit_object
from k2beam.errors import UsageError
from k2beam.metrics.handle import Metrics

if TYPE_CHECKING:
    from k2beam.ingest.feed_client import FeedClient, FeedStats, Sink

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

produce_app = typer.Typer(name="produce", help="Live market data to Kafka.", no_args_is_help=True)


@produce_app.callback()
def _produce() -> None:
    """Live market data to Kafka."""


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(produce_app, name="produce")


@produce_app.command("binance")
def binance(
    symbols: Annotated[str, typer.Option(help="Such as btcusdt,ethusdt; dot/usd where the quote asset is not plain.")],
    streams: Annotated[str, typer.Option(help="trade, bookTicker or both, with a comma.")] = "trade,bookTicker",
    bootstrap: Annotated[
        str,
        typer.Option(metavar="HOSTS", envvar="K2BEAM_BOOTSTRAP", help="Kafka's addresses, host:port with commas."),
    ] = "localhost:9092",
    registry: Annotated[
        str, typer.Option(metavar="URL", envvar="K2BEAM_REGISTRY", help="The Schema Registry (Confluent's API).")
    ] = "http://localhost:8081/apis/ccompat/v7",
    config: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="NAME=VALUE", help="Option of the Kafka client; a secret as env:NAME."),
    ] = None,
    spool: Annotated[str, typer.Option(metavar="DIR", help="Folder for what the broker does not take.")] = "spool",
    url: Annotated[
        list[str] | None,
        typer.Option("--url", help="Base address of the exchange; repeat it for fallbacks. [default: Binance's three]"),
    ] = None,
    max_messages: Annotated[int | None, typer.Option(min=1, help="End after so many events.")] = None,
    duration: Annotated[str | None, typer.Option(help="End after so long, such as 60s.")] = None,
    silence: Annotated[str, typer.Option(help="Reconnect after so long without an event.")] = "60s",
    attempts: Annotated[int | None, typer.Option(min=1, help="Give up after so many failures in a row.")] = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Read Binance's spot market until SIGINT or SIGTERM; what was read is delivered before the end."""
    from k2beam.ingest.binance import ADDRESSES, Subscription, parse_pairs, parse_streams
    from k2beam.ingest.feed_client import FeedClient, Limits

    subscription = Subscription(parse_pairs(symbols), parse_streams(streams), tuple(url or ADDRESSES))
    limits = Limits(silence=_positive(silence, "--silence"), attempts=attempts)
    lasting = None if duration is None else _positive(duration, "--duration")
    sink = open_producer(bootstrap, registry, _settings(config or []), spool)
    try:
        client = FeedClient(subscription, sink, limits, metrics=Metrics("feed"))
        found = asyncio.run(_run(client, max_messages, lasting))
    finally:
        sink.close()
    emit_object({"feed": _summary(found), "producer": sink.stats()}, output)


def open_producer(bootstrap: str, registry: str, config: dict[str, str], spool: str) -> Sink:
    """The producer to Kafka; imported here, since its client libraries are not needed for anything else."""
    from k2beam.ingest.producer import MarketDataProducer

    return MarketDataProducer(bootstrap, registry, config=config, spool=spool)


def _settings(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        raise UsageError(f"--config takes NAME=VALUE, not {wrong[0]!r}")
    return {name: value for name, _, value in pairs}


def _positive(text: str, option: str) -> float:
    found = seconds(text, option)
    if found <= 0:
        raise UsageError(f"{option} must be above 0, not {text!r}")
    return found


async def _run(client: FeedClient, max_messages: int | None, duration: float | None) -> FeedStats:
    """Run the client; the first SIGINT or SIGTERM stops it, the second one kills."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked() -> None:
        stop.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, asked)
    return await client.run(stop, max_messages, duration)


def _summary(stats: FeedStats) -> dict[str, object]:
    counts = {field.name: getattr(stats, field.name) for field in dataclasses.fields(stats)}
    return {**counts, "silent_streams": sorted(stats.silent_streams)}
