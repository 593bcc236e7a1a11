"""Groups of options: the same for every command that has them, secrets refused before anything is reached."""

from __future__ import annotations

import re
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from k2beam.cli.guard import guarded
from k2beam.cli.kafka_options import LOCAL_BOOTSTRAP, kafka_security, optional_kafka, pairs
from k2beam.cli.main import app, main
from k2beam.cli.option_groups import with_options
from k2beam.cli.registry_options import optional_registry, registry_login
from k2beam.errors import UsageError
from k2beam.kafka.config import KafkaConfig
from k2beam.registry.config import DEFAULT_URL, RegistryConfig

CANARY = "canary-51ab"
KAFKA = {
    *("--bootstrap", "--security-protocol", "--sasl-mechanism", "--sasl-username", "--sasl-password"),
    *("--ca-file", "--certificate-file", "--key-file"),
}
REGISTRY = {
    *("--registry", "--registry-username", "--registry-password"),
    *("--registry-ca", "--registry-certificate", "--registry-key"),
}


def options(*path: str) -> set[str]:
    found = typer.main.get_command(app)
    for name in path:
        found = found.commands[name]  # type: ignore[attr-defined]
    return {name for parameter in found.params for name in parameter.opts}


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("ingest kafka", KAFKA | REGISTRY | {"--kafka-property"}),
        ("ingest csv", KAFKA | REGISTRY),
        ("archive kafka", KAFKA | REGISTRY),
        ("produce binance", KAFKA | REGISTRY | {"--config"}),
        ("produce resend", KAFKA | {"--config"}),
        ("topics create", KAFKA | {"--config"}),
        ("audit", KAFKA),
        ("schemas list", REGISTRY),
        ("schemas check", REGISTRY),
        ("schemas register", REGISTRY),
    ],
)
def test_every_command_that_talks_to_a_server_takes_its_credentials(path: str, wanted: set[str]) -> None:
    assert wanted <= options(*path.split())


def test_a_command_gets_what_its_groups_make_of_the_options() -> None:
    got: list[object] = []
    small = typer.Typer()

    @small.command()
    @guarded
    @with_options(security=kafka_security, login=registry_login)
    def command(
        name: Annotated[str, typer.Argument()], *, security: KafkaConfig, login: RegistryConfig, count: int = 3
    ) -> None:
        got.extend([name, security, login, count])

    given = ["x", "--security-protocol", "SSL", "--count", "4", "--ca-file", "ca.pem", "--registry-key", "k.pem"]
    result = CliRunner().invoke(small, given)
    assert result.exit_code == 0, result.output
    security = KafkaConfig(LOCAL_BOOTSTRAP, security_protocol="SSL", ca_file="ca.pem")
    assert got == ["x", security, RegistryConfig(key_file="k.pem"), 4]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("ingest kafka --topic t --registry http://r --sasl-password S", "--sasl-password takes a reference"),
        ("ingest kafka --topic t --registry http://r --sasl-username S", "--sasl-username takes a reference"),
        ("ingest kafka --topic t --registry http://r --kafka-property ssl.key.password=S", "ssl.key.password takes"),
        (
            "ingest kafka --topic t --registry http://r --registry-username ${env:U} --registry-password S",
            "--registry-password takes a reference",
        ),
        ("ingest kafka --topic t --registry-ca f", "no effect without --registry URL"),
        ("archive kafka OUT --topic t --sasl-password S", "--sasl-password takes a reference"),
        ("archive kafka OUT --topic t --registry http://u:S@r", "credentials in it"),
        ("audit --bootstrap b --topic t --sasl-password S", "--sasl-password takes a reference"),
        ("audit --sasl-password S", "--sasl-password takes a reference"),
        ("audit --security-protocol SSL", "no effect without --bootstrap"),
        ("exporter --security-protocol SSL", "no effect without --bootstrap"),
        ("ingest csv FILE --mapping asx-trades --sasl-password S", "--sasl-password takes a reference"),
        ("archive kafka OUT --topic t --registry-username ${env:U}", "needs both a user and a password"),
        ("topics create t --sasl-password S", "--sasl-password takes a reference"),
        ("topics create t --config sasl.password=S", "sasl.password takes a reference"),
        ("topics create t --config S", "--config takes NAME=VALUE"),
        ("produce binance --symbols btcusdt --sasl-password S", "--sasl-password takes a reference"),
        ("produce binance --symbols btcusdt --config sasl.password=S", "sasl.password takes a reference"),
        ("produce resend NONE --sasl-password S", "--sasl-password takes a reference"),
        ("produce resend NONE --timeout 0s", "--timeout must be above 0"),
        ("produce resend NONE", "NONE can't be opened: No such file"),
        ("schemas list --registry-username ${env:U} --registry-password S", "--registry-password takes a reference"),
    ],
)
def test_a_plain_secret_is_refused_and_not_repeated(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.delenv("K2BEAM_REGISTRY", raising=False)
    with pytest.raises(SystemExit) as ended:
        main([re.sub(r"\bS\b", CANARY, word) for word in arguments.split()])
    shown = "".join(capsys.readouterr())
    assert ended.value.code == 2, shown
    assert said in shown
    assert CANARY not in shown


def test_a_cluster_has_all_that_the_options_say() -> None:
    security = kafka_security("SASL_SSL", "PLAIN", "${env:U}", "${env:P}", "ca.pem", "c.pem", "k.pem")
    wanted = KafkaConfig(
        bootstrap="b:1",
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_username="${env:U}",
        sasl_password="${env:P}",
        ca_file="ca.pem",
        certificate_file="c.pem",
        key_file="k.pem",
        properties=(("fetch.min.bytes", "7"),),
    )
    assert security.at("b:1", {"fetch.min.bytes": "7"}) == wanted
    assert optional_kafka("b:1", security) == security.at("b:1")
    assert optional_kafka(None, kafka_security()) is None


def test_a_registry_has_the_address_of_the_local_stack_and_waits_as_told() -> None:
    login = registry_login("${env:U}", "${env:P}", "ca.pem")
    assert login.url == DEFAULT_URL
    config = login.at("https://r", 7)
    assert (config.user, config.password, config.ca_file, config.wait_s) == ("${env:U}", "${env:P}", "ca.pem", 7)
    assert optional_registry("https://r", login) == login.at("https://r")
    assert optional_registry(None, registry_login()) is None


def test_names_and_values_are_split_at_the_first_sign() -> None:
    assert pairs("--config", ["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    for text in ("a", "=b"):
        with pytest.raises(UsageError, match="--config takes NAME=VALUE"):
            pairs("--config", [text])
