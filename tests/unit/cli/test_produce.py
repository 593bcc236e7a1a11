"""The commands around the producer where no server is needed: options, exit codes, messages, metrics."""

from __future__ import annotations

import functools
import json
import logging
import uuid
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

import k2beam
from k2beam.cli import schemas, topics
from k2beam.cli.main import main
from k2beam.cli.metrics_options import MetricsOptions
from k2beam.cli.topics import retention_ms
from k2beam.errors import UsageError
from k2beam.metrics.config import MetricsConfig
from k2beam.metrics.worker import endpoint_address
from tests.http_servers import closed_port, gateway
from tests.registry_server import NO_SUBJECT, FakeKafka, in_turn, knows_all, registry_server


def run(*arguments: str) -> Result:
    app = typer.Typer()
    schemas.register(app)
    topics.register(app)
    return CliRunner().invoke(app, [*arguments])


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("7d", 604_800_000), ("12h", 43_200_000), ("30m", 1_800_000), ("90s", 90_000), ("forever", -1)],
)
def test_a_retention(text: str, milliseconds: int) -> None:
    assert retention_ms(text) == milliseconds


@pytest.mark.parametrize("text", ["7", "d", "-1d", "1.5h", "7 d", ""])
def test_what_is_no_retention_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--retention takes 7d"):
        retention_ms(text)


def test_the_address_of_the_registry_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with registry_server(in_turn(NO_SUBJECT)) as (url, asked):
        monkeypatch.setenv("K2BEAM_REGISTRY", url)
        result = run("schemas", "check", "trade", "nothing", "-o", "json")
    assert result.exit_code == 1
    assert [row["state"] for row in json.loads(result.stdout)] == ["missing", "not_found"]
    assert "1 missing, 1 not found" in result.stderr
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("schemas", "check", "--registry", "nowhere"), "not the URL of a Schema Registry"),
        (("schemas", "check", "--registry-username", "me", "--registry-password", "hush"), "takes a reference"),
        (("schemas", "register", "--topic", "ticks"), "--topic ticks=trade_v2"),
        (("topics", "create", "a b"), "is not a topic name"),
        (("topics", "create", "a", "--retention", "7"), "--retention takes"),
        (("topics", "create", "a", "--config", "x"), "--config takes NAME=VALUE"),
        (("topics", "create", "a", "--config", "sasl.password=hush"), "takes a reference"),
        (("topics", "create", "a", "--config", "no.such.option=1"), "does not take these options"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "hush" not in result.stderr


def test_servers_that_do_not_answer_are_named() -> None:
    port = closed_port()
    result = run("topics", "create", "a", "--bootstrap", f"127.0.0.1:{port}", "--timeout", "0.2")
    assert (result.exit_code, f"no Kafka broker answers at 127.0.0.1:{port}" in result.stderr) == (1, True)
    result = run("schemas", "list", "--registry", f"http://127.0.0.1:{port}", "--wait", "0")
    assert (result.exit_code, f"http://127.0.0.1:{port}: no answer within 0 s" in result.stderr) == (1, True)


def test_csv_to_a_topic_pushes_what_its_producer_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, environment = tmp_path / "asx_quotes_1.csv", uuid.uuid4().hex
    file.write_text("".join(f"03/10/2014,05:46:13.604,1.11,{number}.0,1.12,0\n" for number in range(1, 4)))
    made = functools.partial(k2beam.MarketDataProducer, client=FakeKafka)
    monkeypatch.setattr(k2beam, "MarketDataProducer", made)
    with registry_server(knows_all) as (registry, _), gateway() as (url, pushed):
        options = ["--to", "topic", "--bootstrap", "unused:1", "--registry", registry, "--symbol", "DVN"]
        counting = ["--push-gateway", url, "--environment", environment]
        with pytest.raises(SystemExit) as ended:
            main(["ingest", "csv", str(file), "--mapping", "asx-quotes", *options, *counting])
    assert ended.value.code in (0, None), capsys.readouterr().err
    [(_, _, body)] = pushed
    labels = f'component="producer",environment="{environment}",exchange="ASX",service="k2beam"'
    topic = "market.equities.quotes.asx"
    sample = f'k2_kafka_messages_produced_total{{asset_class="equities",{labels},topic="{topic}"}} 3.0'
    assert sample in body.splitlines()


def test_what_was_counted_is_pushed_and_the_endpoint_closed_after_a_failure_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(options: MetricsOptions) -> None:
        with options.counting() as counts:
            counts.open("tester")
            assert endpoint_address() is not None
            raise UsageError("the sink is broken")

    with gateway() as (url, pushed), pytest.raises(UsageError, match="the sink is broken"):
        fail(MetricsOptions(MetricsConfig(endpoint=True, ports=(0, 0)), url))
    assert len(pushed) == 1
    assert endpoint_address() is None
    with caplog.at_level(logging.ERROR), MetricsOptions(push_gateway=f"http://127.0.0.1:{closed_port()}").counting():
        pass
    assert "what was produced is not touched by it" in caplog.text
