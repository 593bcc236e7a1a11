"""Coinbase's and Kraken's feeds against servers that behave as their manuals say, alone and down to the tables."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from k2beam.cli import produce
from k2beam.cli.main import app
from k2beam.config import NAMESPACE
from k2beam.errors import FeedError, UsageError
from k2beam.feeds.client import FeedClient, FeedStats, Limits
from k2beam.feeds.coinbase import CoinbaseFeed
from k2beam.feeds.feed import Feed
from k2beam.feeds.fields import parse_instruments
from k2beam.feeds.kraken import KrakenFeed
from k2beam.kafka.topics import TopicSpec, create_topics
from k2beam.lake.rules import keep_rules
from k2beam.produce.producer import MarketDataProducer
from k2beam.query.lake import Lake
from k2beam.stack.stack import LocalStack
from k2beam.topics import topic_name
from tests.integration.exchanges import CoinbaseServer, KrakenServer, MarketServer
from tests.integration.feed_servers import DEADLINE, Recorder, in_thread
from tests.live_helpers import assert_live_audit, ingest_live
from tests.query_fixtures import make_catalog
from tests.unit.feeds.checks import known_rules

pytestmark = pytest.mark.integration

LIMITS = Limits(
    open_timeout=2.0, reply_timeout=2.0, close_timeout=0.1, request_pause=0.01, backoff=0.01, backoff_limit=0.05
)


@dataclass(frozen=True)
class Place:
    """One exchange: its feed, and its server."""

    name: str
    separator: str
    feed: Callable[..., Feed]
    server: type[MarketServer]
    trades: str

    def symbol(self, base: str) -> str:
        return f"{base}{self.separator}USD"

    def feed_of(self, address: str, *symbols: str, channels: tuple[str, ...] = ()) -> Feed:
        found = parse_instruments(",".join(symbols), self.separator)
        more = (channels,) if channels else ()
        return self.feed(found, *more, addresses=(address,))


COINBASE = Place("COINBASE", "-", CoinbaseFeed, CoinbaseServer, "matches")
KRAKEN = Place("KRAKEN", "/", KrakenFeed, KrakenServer, "trade")


@pytest.fixture(params=[COINBASE, KRAKEN], ids=lambda place: place.name)
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.param
    return found


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is not for the local server."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


async def until(there: Callable[[], bool]) -> None:
    while not there():
        await asyncio.sleep(0.005)


def drive(
    server: MarketServer,
    feed: Callable[[str], Feed],
    sink: Any,
    script: Callable[[MarketServer], Awaitable[None]],
    limits: Limits = LIMITS,
) -> FeedStats:
    """Run a client against the server until the script has ended."""

    async def run() -> FeedStats:
        async with server, asyncio.timeout(DEADLINE):
            stop = asyncio.Event()
            client = FeedClient(feed(server.address), sink, limits, chance=random.Random(1))
            running = asyncio.create_task(client.run(stop))
            acting = asyncio.create_task(script(server))
            await asyncio.wait([running, acting], return_when=asyncio.FIRST_COMPLETED)
            stop.set()
            if acting.done():
                acting.result()
            acting.cancel()
            return await running

    return asyncio.run(run())


def test_trades_and_quotes_of_all_symbols_arrive_once_and_in_order(place: Place) -> None:
    symbols = [place.symbol(base) for base in ("BTC", "ETH")]
    sink = Recorder(exchange=place.name)

    async def script(server: MarketServer) -> None:
        await server.listened_to(4)
        for _ in range(20):
            for symbol in symbols:
                await server.happen(symbol)
        await until(lambda: len(sink.trades) == 40 and len(sink.quotes) == 40)

    stats = drive(place.server(*symbols), lambda address: place.feed_of(address, *symbols), sink, script)
    for symbol in symbols:
        mine = [record for record in sink.trades if record["symbol"] == symbol]
        assert [record["source_sequence"] for record in mine] == list(range(1, 21))
        assert {record["exchange"] for record in mine} == {place.name}
        assert [record["side"] for record in mine] == ["BUY", "SELL"] * 10
    assert (stats.trades, stats.quotes, stats.duplicates, stats.connections) == (40, 40, 0, 1)
    assert (stats.bad_frames, stats.reconnects, stats.silent_streams) == ({}, {}, set())


def test_many_symbols_are_asked_for_in_parts(place: Place) -> None:
    symbols = [place.symbol(f"C{number}") for number in range(150)]
    sink = Recorder(exchange=place.name)

    async def script(server: MarketServer) -> None:
        await server.listened_to(150)
        for symbol in (symbols[0], symbols[-1]):
            await server.happen(symbol)
        await until(lambda: len(sink.trades) == 2)

    def feed(address: str) -> Feed:
        return place.feed_of(address, *symbols, channels=(place.trades,))

    stats = drive(place.server(*symbols), feed, sink, script)
    assert len(stats.silent_streams) == 148


def lost_line(server: MarketServer, sink: Any, symbol: str, count: Callable[[], int]) -> Callable[[MarketServer], Any]:
    """Ten trades, the line is cut, five trades that nobody hears, and five more."""

    async def script(_: MarketServer) -> None:
        await server.listened_to(1)
        await server.happen(symbol, 10)
        await until(lambda: count() == 10)
        server.cut()
        await server.happen(symbol, 5)
        server.accepts = True
        await server.listened_to(1)
        await server.happen(symbol, 5)
        heard = 16 if isinstance(server, CoinbaseServer) else 20
        await until(lambda: count() == heard)

    return script


HEARD = {"COINBASE": [*range(1, 11), *range(15, 21)], "KRAKEN": [*range(1, 21)]}
"""Coinbase begins a subscription with the last trade, Kraken with the last fifty."""


@pytest.mark.parametrize("remember", [0.02, 60.0])
def test_after_a_lost_line_what_was_told_before_is_left_out(place: Place, remember: float) -> None:
    """However long ago it was."""
    symbol, sink = place.symbol("BTC"), Recorder(exchange=place.name)
    server = place.server(symbol)
    limits = Limits(backoff=0.1, backoff_limit=0.1, close_timeout=0.1, overlap=0.01, remember=remember)

    def feed(address: str) -> Feed:
        return place.feed_of(address, symbol, channels=(place.trades,))

    stats = drive(server, feed, sink, lost_line(server, sink, symbol, lambda: len(sink.trades)), limits)
    assert sink.ids == HEARD[place.name]
    assert stats.duplicates == (0 if place is COINBASE else 10)
    assert stats.connections == 2
    assert stats.reconnects["closed"] == 1


def test_heartbeats_keep_a_quiet_connection(place: Place) -> None:
    symbol, sink = place.symbol("BTC"), Recorder(exchange=place.name)

    async def script(server: MarketServer) -> None:
        await server.listened_to(2)
        await asyncio.sleep(1.5)
        await server.happen(symbol)
        await until(lambda: len(sink.trades) == 1)

    limits = Limits(silence=0.6, backoff=0.01, close_timeout=0.1)
    stats = drive(place.server(symbol), lambda address: place.feed_of(address, symbol), sink, script, limits)
    assert (stats.connections, stats.reconnects) == (1, {})


def test_a_connection_without_heartbeats_is_given_up(place: Place) -> None:
    symbol, sink = place.symbol("BTC"), Recorder(exchange=place.name)

    async def script(server: MarketServer) -> None:
        await until(lambda: server.connections >= 2)

    limits = Limits(silence=0.1, backoff=0.01, close_timeout=0.1)
    server = place.server(symbol, heartbeat_s=None)
    stats = drive(server, lambda address: place.feed_of(address, symbol), sink, script, limits)
    assert stats.reconnects["silence"] >= 1


def test_a_symbol_that_there_is_not_ends_it_with_what_the_exchange_says(place: Place) -> None:
    there, wrong = place.symbol("BTC"), place.symbol("NOPE")

    async def script(_: MarketServer) -> None:
        await asyncio.sleep(DEADLINE)

    with pytest.raises(FeedError, match=rf"(?s){wrong}.*look at --symbols"):
        drive(place.server(there), lambda address: place.feed_of(address, there, wrong), Recorder(), script)


def test_the_command_reads_as_many_as_it_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    sink, symbol = Recorder(exchange=place.name), place.symbol("BTC")
    monkeypatch.setattr(produce, "open_producer", lambda *_: sink)
    server = place.server(symbol)

    async def trading() -> None:
        await server.happen(symbol)
        await asyncio.sleep(0.005)

    with in_thread(server, trading):
        words = ["produce", place.name.lower(), "--symbols", "btc/usd", "--streams", place.trades]
        words += ["--url", server.address]
        result = CliRunner().invoke(app, [*words, "--max-messages", "20", "--output", "json"])
    assert result.exit_code == 0, result.output
    assert sink.ids == list(range(sink.ids[0], sink.ids[0] + 20))
    found = json.loads(result.stdout)
    assert (found["feed"]["trades"], found["feed"]["quotes"], found["producer"]) == (20, 0, {"produced": 20})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--symbols", "btcusd"], "is not a pair such as btc/usd"),
        (["--symbols", ","], "--symbols names none"),
        (["--symbols", "btc/usd", "--streams", "book"], "--streams takes"),
        (["--symbols", "btc/usd", "--url", "https://x"], "--url 'https://x' is no websocket address"),
        (["--symbols", "btc/usd", "--silence", "0s"], "--silence must be above 0"),
    ],
)
def test_wrong_usage_is_said(place: Place, words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["produce", place.name.lower(), *words])
    assert isinstance(result.exception, UsageError)
    assert said in str(result.exception)


def test_what_a_lost_line_took_is_a_gap_of_the_tables(
    place: Place, live: LocalStack, prism: Path, tmp_path: Path
) -> None:
    """By the known rules: where the exchange tells the last trades again there is none."""
    topic = topic_name("crypto", "trades", place.name)
    list(create_topics(live.bootstrap, [TopicSpec(topic)]))
    symbol, server = place.symbol("BTC"), place.server(place.symbol("BTC"))
    producer = MarketDataProducer(live.bootstrap, live.registry_url, spool=tmp_path / "spool", register_schemas=True)
    with producer as sink:
        script = lost_line(server, sink, symbol, lambda: sink.stats().accepted)
        drive(server, lambda address: place.feed_of(address, symbol, channels=(place.trades,)), sink, script)
    warehouse = tmp_path / "wh"
    keep_rules(make_catalog(warehouse), NAMESPACE, known_rules())
    ingest_live(live, [topic], warehouse, prism)
    assert_live_audit(live, [topic], warehouse)
    lake = Lake(str(warehouse))
    assert lake.trades(symbol)["source_sequence"].to_pylist() == HEARD[place.name]
    missing = [(gap.symbol, gap.first_missing, gap.last_missing) for gap in lake.gaps()]
    assert missing == ([(symbol, 11, 14)] if place is COINBASE else [])
