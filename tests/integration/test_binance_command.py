"""The command ``k2beam produce binance`` against a real websocket server."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner
from websockets.asyncio.server import ServerConnection

from k2beam.cli import produce
from k2beam.errors import UsageError
from k2beam.ingest.producer import MarketDataProducer
from k2beam.kafka.config import KafkaConfig
from k2beam.registry.client import RegistryConfig
from tests.integration.binance_exchange import DEADLINE, Exchange, Recorder, acknowledge, trade

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is not for the local server."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    produce.register(app)
    return app


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    """A server in a thread of its own, for commands that have the main thread; it sends for ever."""

    async def for_ever(connection: ServerConnection) -> None:
        await acknowledge(connection)
        for number in itertools.count(1):
            await connection.send(trade(number))
            await asyncio.sleep(0.005)

    exchange = Exchange(for_ever)
    started = threading.Event()
    loop = asyncio.new_event_loop()
    done = asyncio.Event()

    async def run() -> None:
        async with exchange:
            started.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert started.wait(DEADLINE)
    yield exchange
    loop.call_soon_threadsafe(done.set)
    thread.join(DEADLINE)
    loop.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_flushes_and_ends_the_command_well(
    app: typer.Typer, exchange: Exchange, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    class Signalling(Recorder):
        def produce_trade(self, record: dict[str, Any]) -> None:
            super().produce_trade(record)
            if len(self.trades) == 10:
                os.kill(os.getpid(), number)

    sink = Signalling()
    monkeypatch.setattr(produce, "open_producer", lambda *_: sink)
    arguments = ["produce", "binance", "--symbols", "btcusdt", "--url", exchange.address, "--output", "json"]
    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 0, result.output
    assert sink.calls[-2:] == ["flush", "close"]
    found = json.loads(result.stdout)
    assert found["feed"]["trades"] == len(sink.trades) >= 10
    assert found["feed"]["silent_streams"] == ["btcusdt@bookTicker"]
    assert found["producer"] == {"produced": len(sink.trades)}


def test_the_command_ends_after_its_messages(
    app: typer.Typer, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, opened = Recorder(), []
    monkeypatch.setattr(produce, "open_producer", lambda *given: opened.append(given) or sink)
    options = ["--streams", "trade", "--max-messages", "5", "--bootstrap", "k:1", "--registry", "http://r"]
    options += ["--config", "client.id=P=Q", "--spool", "there", "--registry-username", "${env:U}"]
    options += ["--registry-password", "${file:/p}", "--security-protocol", "SSL", "--ca-file", "ca.pem"]
    addresses = ["--url", "ws://127.0.0.1:1", "--url", exchange.address]
    result = CliRunner().invoke(app, ["produce", "binance", "--symbols", "btc/usdt", *addresses, *options])
    assert result.exit_code == 0, result.output
    registry = RegistryConfig("http://r", "${env:U}", "${file:/p}")
    assert opened == [(KafkaConfig("k:1", "SSL", ca_file="ca.pem"), registry, {"client.id": "P=Q"}, "there")]
    assert sink.ids == [1, 2, 3, 4, 5]
    assert "feed.reconnects.unreachable  1" in result.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--symbols", "nothing"], "quote asset"),
        (["--symbols", "btcusdt", "--streams", "depth"], "--streams"),
        (["--symbols", "btcusdt", "--duration", "0s"], "--duration"),
        (["--symbols", "btcusdt", "--url", "http://x"], "--url"),
        (["--symbols", "btcusdt", "--config", "linger.ms"], "--config"),
    ],
)
def test_wrong_usage_opens_no_producer(
    app: typer.Typer, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(produce, "open_producer", lambda *given: opened.append(given))
    result = CliRunner().invoke(app, ["produce", "binance", *options])
    assert isinstance(result.exception, UsageError)
    assert said in str(result.exception)
    assert opened == []


def test_the_command_gives_what_it_is_told_to_the_producer(tmp_path: Path) -> None:
    sink = produce.open_producer(
        KafkaConfig("localhost:1"), RegistryConfig("http://localhost:1"), {"linger.ms": "7"}, str(tmp_path)
    )
    assert isinstance(sink, MarketDataProducer)
    sink.close()
