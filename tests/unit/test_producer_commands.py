"""The commands `schemas` and `topics` where no server is needed: options, exit codes, messages."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner, Result

from k2beam.cli import schemas, topics
from k2beam.cli.topics import retention_ms
from k2beam.errors import UsageError
from tests.registry_server import NO_SUBJECT, in_turn, registry_server
from tests.unit.test_registry_client import closed_port


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
        (("schemas", "check", "--registry", "nowhere"), "no URL of a Schema Registry"),
        (("schemas", "check", "--registry-username", "me", "--registry-password", "hush"), "takes a reference"),
        (("schemas", "register", "--topic", "ticks"), "--topic ticks=trade_v2"),
        (("topics", "create", "a b"), "is no name of a topic"),
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
