"""The commands ``k2beam produce``: live market data to Kafka."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

import k2beam
from k2beam.cli.durations import positive_seconds
from k2beam.cli.guard import guarded
from k2beam.cli.kafka_options import (
    LOCAL_BOOTSTRAP,
    BootstrapOption,
    ClientOption,
    kafka_security,
    pairs,
)
from k2beam.cli.metrics_options import MetricsOptions, metrics_options
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_object
from k2beam.cli.registry_options import RegistryOption, registry_login
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.login import check_login
from k2beam.registry.config import DEFAULT_URL, RegistryConfig

if TYPE_CHECKING:
    from k2beam.feeds.client import FeedClient, FeedStats, Sink
    from k2beam.feeds.coinbase import CoinbaseFeed
    from k2beam.feeds.feed import Feed
    from k2beam.feeds.kraken import KrakenFeed
    from k2beam.metrics.handle import Metrics

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

produce_app = typer.Typer(name="produce", help="Live market data to Kafka.", no_args_is_help=True)


@produce_app.callback()
def _produce() -> None:
    """Live market data to Kafka."""


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(produce_app, name="produce")


class FeedDestination(NamedTuple):
    """Where a feed goes: Kafka and the registry by their addresses, and a folder for what the broker does not take."""

    bootstrap: str
    registry: str
    config: dict[str, str]
    spool: str


def feed_destination(
    bootstrap: BootstrapOption = LOCAL_BOOTSTRAP,
    registry: RegistryOption = DEFAULT_URL,
    config: ClientOption = None,
    spool: Annotated[str, typer.Option(metavar="DIR", help="Folder for what the broker does not take.")] = "spool",
) -> FeedDestination:
    """The group of options, for :func:`k2beam.cli.option_groups.with_options`."""
    return FeedDestination(bootstrap, registry, pairs("--config", config), spool)


class FeedRun(NamedTuple):
    """How long a feed is read (seconds), from which addresses, and when a connection or the whole is given up."""

    url: tuple[str, ...]
    max_messages: int | None
    duration: float | None
    silence: float | None
    attempts: int | None


def feed_run(
    url: Annotated[
        list[str] | None,
        typer.Option("--url", help="Another address of the exchange; repeat it for fallbacks."),
    ] = None,
    max_messages: Annotated[int | None, typer.Option(min=1, help="End after so many events.")] = None,
    duration: Annotated[str | None, typer.Option(help="End after so long, such as 60s.")] = None,
    silence: Annotated[
        str | None, typer.Option(help="Reconnect after so long without an event or a heartbeat, such as 60s.")
    ] = None,
    attempts: Annotated[int | None, typer.Option(min=1, help="Give up after so many failures in a row.")] = None,
) -> FeedRun:
    """The same."""
    return FeedRun(
        tuple(url or ()),
        max_messages,
        None if duration is None else positive_seconds(duration, "--duration"),
        None if silence is None else positive_seconds(silence, "--silence"),
        attempts,
    )


_feeding = with_options(
    to=feed_destination, run=feed_run, security=kafka_security, login=registry_login, metrics=metrics_options
)
"""The options of every feed."""


@produce_app.command("binance")
@_feeding
def binance(
    symbols: Annotated[str, typer.Option(help="Such as btcusdt,ethusdt; dot/usd where the quote asset is not plain.")],
    streams: Annotated[str, typer.Option(help="trade, bookTicker or both, with a comma.")] = "trade,bookTicker",
    *,
    to: FeedDestination,
    run: FeedRun,
    security: KafkaConfig,
    login: RegistryConfig,
    metrics: MetricsOptions,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Read Binance's spot market until SIGINT or SIGTERM; what was read is delivered before the end."""
    from k2beam.feeds.binance.frames import ADDRESSES, BinanceFeed, parse_pairs, parse_streams

    feed = BinanceFeed(parse_pairs(symbols), parse_streams(streams), run.url or ADDRESSES)
    _produce_feed(feed, run, to, security, login, metrics, output)


@produce_app.command("coinbase")
@_feeding
def coinbase(
    symbols: Annotated[str, typer.Option(help="Products, such as btc-usd,eth-usd.")],
    streams: Annotated[str, typer.Option(help="matches, ticker or both, with a comma.")] = "matches,ticker",
    *,
    to: FeedDestination,
    run: FeedRun,
    security: KafkaConfig,
    login: RegistryConfig,
    metrics: MetricsOptions,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Read Coinbase Exchange until SIGINT or SIGTERM; what was read is delivered before the end."""
    from k2beam.feeds.coinbase import CoinbaseFeed

    feed = _of_channels(CoinbaseFeed, symbols, "-", streams, run.url)
    _produce_feed(feed, run, to, security, login, metrics, output)


@produce_app.command("kraken")
@_feeding
def kraken(
    symbols: Annotated[str, typer.Option(help="Pairs, such as btc/usd,eth/usd.")],
    streams: Annotated[str, typer.Option(help="trade, ticker or both, with a comma.")] = "trade,ticker",
    *,
    to: FeedDestination,
    run: FeedRun,
    security: KafkaConfig,
    login: RegistryConfig,
    metrics: MetricsOptions,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Read Kraken's spot market until SIGINT or SIGTERM; what was read is delivered before the end."""
    from k2beam.feeds.kraken import KrakenFeed

    feed = _of_channels(KrakenFeed, symbols, "/", streams, run.url)
    _produce_feed(feed, run, to, security, login, metrics, output)


def _of_channels(
    kind: type[CoinbaseFeed | KrakenFeed], symbols: str, separator: str, streams: str, urls: tuple[str, ...]
) -> Feed:
    """The feed of some symbols and channels. Raises UsageError for what is none."""
    from k2beam.feeds.fields import listed, parse_instruments

    channels = listed(streams, "--streams", kind.channels)
    return kind(parse_instruments(symbols, separator), channels, urls or kind.addresses)


def _produce_feed(
    feed: Feed,
    run: FeedRun,
    to: FeedDestination,
    security: KafkaConfig,
    login: RegistryConfig,
    metrics: MetricsOptions,
    output: OutputFormat,
) -> None:
    from k2beam.feeds.client import FeedClient, Limits

    limits = Limits(silence=run.silence, attempts=run.attempts)
    if run.max_messages is None and run.duration is None:
        metrics.refuse_push_for("a feed without --max-messages or --duration")
    servers = security.at(to.bootstrap), login.at(to.registry)
    with metrics.counting() as counts:
        sink = open_producer(*servers, to.config, to.spool, counts.open("producer"))
        try:
            client = FeedClient(feed, sink, limits, metrics=counts.open("feed"))
            found = asyncio.run(_run(client, run.max_messages, run.duration))
        finally:
            sink.close()
    emit_object({"feed": _summary(found), "producer": sink.stats()}, output)


def open_producer(
    kafka: KafkaConfig, registry: RegistryConfig, config: dict[str, str], spool: str, metrics: Metrics
) -> Sink:
    """The producer to Kafka. Raises LoginRefused where the broker does not take the credentials."""
    check_login(kafka)
    options = kafka.client_options() | config
    return k2beam.MarketDataProducer(kafka.bootstrap, registry, config=options, spool=spool, metrics=metrics)


@produce_app.command("resend")
@guarded
@with_options(security=kafka_security, metrics=metrics_options)
def resend(
    spool: Annotated[Path, typer.Argument(metavar="SPOOL", help="The file of undelivered messages.")],
    bootstrap: BootstrapOption = LOCAL_BOOTSTRAP,
    *,
    security: KafkaConfig,
    config: ClientOption = None,
    timeout: Annotated[str, typer.Option(help="How long each message may take, such as 120s.")] = "120s",
    metrics: MetricsOptions,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Send what a producer could not deliver, to the topics that it was for, and remove the file.

    What fails again is in a new file beside it, and the exit code is 1. At least once: a message whose acknowledgement
    was lost may be in its topic already.
    """
    from k2beam.produce.delivery import resend as send_again

    kafka, limit = security.at(bootstrap), positive_seconds(timeout, "--timeout")
    check_login(kafka)
    options = kafka.client_options() | pairs("--config", config)
    with metrics.counting() as counts:
        done = send_again(spool, bootstrap, options, limit, metrics=counts.open("resend"))
    emit_object(done, output)
    if done.failed:
        typer.echo(f"Not delivered: {done.failed:,} messages, kept in {done.spool}", err=True)
        raise typer.Exit(1)


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
