"""The command ``k2beam produce binance`` against a real websocket server."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner
from websockets.asyncio.server import ServerConnection

from k2beam.cli import produce
from k2beam.errors import UsageError
from k2beam.kafka.config import KafkaConfig
from k2beam.metrics.handle import Metrics, NullMetrics
from k2beam.metrics.worker import close_endpoint, endpoint_address
from k2beam.produce.producer import MarketDataProducer
from k2beam.produce.spool import OutgoingMessage, Spool
from k2beam.registry.config import RegistryConfig
from tests.http_servers import gateway
from tests.integration.binance_exchange import acknowledge, trade
from tests.integration.feed_servers import DEADLINE, Exchange, Recorder, in_thread
from tests.registry_server import knows_all, registry_server

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
    with in_thread(exchange):
        yield exchange


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
    sink, opened = Recorder(), list[tuple[object, ...]]()

    def opening(*given: object) -> Recorder:
        opened.append(given)
        return sink

    monkeypatch.setattr(produce, "open_producer", opening)
    options = ["--streams", "trade", "--max-messages", "5", "--bootstrap", "k:1", "--registry", "http://r"]
    options += ["--no-metrics"]
    options += ["--config", "client.id=P=Q", "--spool", "there", "--registry-username", "${env:U}"]
    options += ["--registry-password", "${file:/p}", "--security-protocol", "SSL", "--ca-file", "ca.pem"]
    addresses = ["--url", "ws://127.0.0.1:1", "--url", exchange.address]
    result = CliRunner().invoke(app, ["produce", "binance", "--symbols", "btc/usdt", *addresses, *options])
    assert result.exit_code == 0, result.output
    registry = RegistryConfig("http://r", "${env:U}", "${file:/p}")
    [(*told, metrics)] = opened
    assert told == [KafkaConfig("k:1", "SSL", ca_file="ca.pem"), registry, {"client.id": "P=Q"}, "there"]
    assert isinstance(metrics, NullMetrics)
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
        (
            ["--symbols", "btcusdt", "--push-gateway", "http://g"],
            "a feed without --max-messages or --duration does not",
        ),
        (["--symbols", "btcusdt", "--metrics-targets", "DIR"], "--metrics-endpoint"),
    ],
)
def test_wrong_usage_opens_no_producer(
    app: typer.Typer, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    def opening(*_: object) -> None:
        raise AssertionError("a producer was opened")

    monkeypatch.setattr(produce, "open_producer", opening)
    result = CliRunner().invoke(app, ["produce", "binance", *options])
    assert isinstance(result.exception, UsageError)
    assert said in str(result.exception)


def test_the_command_gives_what_it_is_told_to_the_producer(tmp_path: Path) -> None:
    sink = produce.open_producer(
        KafkaConfig("localhost:1"),
        RegistryConfig("http://localhost:1"),
        {"linger.ms": "7"},
        str(tmp_path),
        Metrics("p"),
    )
    assert isinstance(sink, MarketDataProducer)
    sink.close()


MOCK = ("--bootstrap", "unused:1", "--config", "test.mock.num.brokers=1")
"""librdkafka's own broker, within the process: a real client is acknowledged, and no Kafka is needed."""

TOPIC = "market.crypto.trades.binance"


def scrape(targets: Path) -> str:
    """What the process with the only target file in a folder serves; empty while there is none."""
    files = list(targets.glob("*.json"))
    if not files:
        return ""
    [target] = json.loads(files[0].read_text(encoding="utf-8"))
    assert target["labels"]["job"] == "k2beam-workers"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{target['targets'][0]}/metrics", timeout=10) as answer:
        return str(answer.read(), "utf-8")


def value(text: str, sample: str) -> float:
    """A sample's value in Prometheus' text format, 0 where it is not there."""
    lines = [line for line in text.splitlines() if line.startswith(f"{sample} ")]
    return float(lines[0].rpartition(" ")[2]) if lines else 0.0


def produced(component: str, environment: str) -> str:
    labels = f'component="{component}",environment="{environment}",exchange="BINANCE",service="k2beam",topic="{TOPIC}"'
    return f'k2_kafka_messages_produced_total{{asset_class="crypto",{labels}}}'


def fed(name: str, label: str, environment: str) -> str:
    return f'{name}{{component="feed",environment="{environment}",exchange="BINANCE",{label},service="k2beam"}}'


@pytest.fixture
def environment() -> str:
    """A label of this test alone: counters of a process only grow."""
    return uuid.uuid4().hex


def scraped_until(targets: Path, done: Callable[[str], bool], process: subprocess.Popen[str]) -> str:
    end = time.monotonic() + 3 * DEADLINE
    while True:
        assert process.poll() is None, process.communicate()
        text = scrape(targets)
        if done(text):
            return text
        assert time.monotonic() < end, text
        time.sleep(0.05)


def test_a_running_feed_is_scraped(exchange: Exchange, tmp_path: Path, environment: str) -> None:
    targets = tmp_path / "targets"
    with registry_server(knows_all) as (registry, _):
        # The first address is never reached: a reconnection is counted.
        feed = ("--symbols", "btcusdt", "--url", "ws://127.0.0.1:1", "--url", exchange.address)
        counting = ("--metrics-endpoint", "127.0.0.1:19500-19599", "--metrics-targets", str(targets))
        command = (sys.executable, "-m", "k2beam.cli.main", "produce", "binance", *feed, *MOCK, *counting)
        options = ("--environment", environment, "--registry", registry, "--spool", str(tmp_path), "--output", "json")
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            text = scraped_until(targets, lambda text: value(text, produced("producer", environment)) >= 10, process)
            assert value(text, fed("k2_feed_messages_total", 'kind="trades"', environment)) >= 10
            assert value(text, fed("k2_feed_reconnects_total", 'reason="unreachable"', environment)) == 1
            process.send_signal(signal.SIGTERM)
            told, errors = process.communicate(timeout=3 * DEADLINE)
        finally:
            process.kill()
            process.communicate()
    assert process.returncode == 0, errors
    stats = json.loads(told)
    assert stats["producer"]["delivered"] == stats["feed"]["trades"] >= 10
    assert list(targets.iterdir()) == []


def test_a_bounded_feed_pushes_at_its_end(
    app: typer.Typer, exchange: Exchange, tmp_path: Path, environment: str
) -> None:
    with registry_server(knows_all) as (registry, _), gateway() as (url, pushed):
        feed = ["produce", "binance", "--symbols", "btcusdt", "--url", exchange.address, "--max-messages", "5", *MOCK]
        options = [
            "--registry",
            registry,
            "--spool",
            str(tmp_path),
            "--environment",
            environment,
            "--push-gateway",
            url,
        ]
        result = CliRunner().invoke(app, [*feed, *options])
    assert result.exit_code == 0, result.output
    [(_, _, body)] = pushed
    assert value(body, produced("producer", environment)) == 5
    assert value(body, fed("k2_feed_messages_total", 'kind="trades"', environment)) == 5


def spooled(folder: Path) -> Path:
    spool = Spool(folder)
    for number in range(3):
        spool.add(OutgoingMessage(TOPIC, b"BINANCE|BTCUSDT", str(number).encode()), "E", "away")
    spool.close()
    assert spool.path is not None
    return spool.path


def test_sending_again_is_scraped_and_pushed(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    """Scraped at the last moment at which the endpoint is there."""
    targets, scraped = tmp_path / "targets", list[str]()

    def scraped_and_closed() -> None:
        scraped.append(scrape(targets))
        close_endpoint()

    monkeypatch.setattr("k2beam.metrics.worker.close_endpoint", scraped_and_closed)
    counting = ["--metrics-endpoint", "127.0.0.1:19500-19599", "--metrics-targets", str(targets)]
    with gateway() as (url, pushed):
        options = [*counting, "--environment", environment, "--push-gateway", url, "--output", "json"]
        good = CliRunner().invoke(app, ["produce", "resend", str(spooled(tmp_path)), *MOCK, *options])
        nobody = ["--bootstrap", "127.0.0.1:1", "--timeout", "100ms"]
        bad = CliRunner().invoke(app, ["produce", "resend", str(spooled(tmp_path)), *nobody, *options])
    assert (good.exit_code, bad.exit_code) == (0, 1), (good.output, bad.output)
    taken = produced("resend", environment)
    errors = taken.replace("messages_produced", "produce_errors").replace(
        "exchange=", 'error_type="_MSG_TIMED_OUT",exchange='
    )
    for texts in (scraped, [body for _, _, body in pushed]):
        assert [(value(text, taken), value(text, errors)) for text in texts] == [(3, 0), (3, 3)]
    assert list(targets.iterdir()) == []
    assert endpoint_address() is None
