"""How a cluster is reached: librdkafka's options and the Java consumer's, secrets and contradictions."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from k2beam.errors import UsageError
from k2beam.kafka.config import KafkaConfig

CANARY = "canary-51ab"
LOGIN = {"sasl_mechanism": "PLAIN", "sasl_username": "${env:K2_TEST_USER}", "sasl_password": "${env:K2_TEST_PASSWORD}"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_TEST_USER", "me")
    monkeypatch.setenv("K2_TEST_PASSWORD", CANARY)


def secured(**changes: Any) -> KafkaConfig:
    return KafkaConfig("broker:9093", **{"security_protocol": "SASL_SSL", **LOGIN, **changes})


def test_secrets_stay_references_until_a_client_opens() -> None:
    config = secured(sasl_mechanism="SCRAM-SHA-512", ca_file="/etc/ca.pem", properties=(("fetch.min.bytes", "7"),))
    assert config.librdkafka() == {
        "bootstrap.servers": "broker:9093",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": CANARY,
        "ssl.ca.location": "/etc/ca.pem",
    }
    java = config.java_consumer()
    assert java["sasl.jaas.config"] == (
        "org.apache.kafka.common.security.scram.ScramLoginModule required"
        ' username="${env:K2_TEST_USER}" password="${env:K2_TEST_PASSWORD}";'
    )
    assert (java["fetch.min.bytes"], java["ssl.truststore.location"]) == ("7", "/etc/ca.pem")
    assert java["config.providers"] == "env,file"
    assert CANARY not in repr(config) + repr(java) + repr(config.client_options())
    assert CANARY.encode() not in pickle.dumps(config)


def test_an_open_cluster_needs_nothing_else() -> None:
    plain = {"bootstrap.servers": "b", "security.protocol": "PLAINTEXT"}
    assert KafkaConfig("b").librdkafka() == plain
    assert KafkaConfig("b").java_consumer() == {**plain, "isolation.level": "read_committed"}


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("bootstrap.servers", "--bootstrap"),
        ("security.protocol", "--security-protocol"),
        ("sasl.mechanism", "--sasl-mechanism"),
        ("sasl.login.callback.handler.class", "--sasl-mechanism"),
        ("ssl.truststore.location", "--ca-file"),
        ("ssl.keystore.type", "--certificate-file"),
        ("config.providers", "references"),
        ("config.providers.vault.class", "references"),
        ("group.id", "a group of its own"),
        ("isolation.level", "what is committed"),
        ("key.deserializer", "bytes"),
        ("value.deserializer", "bytes"),
        ("auto.offset.reset", "the tables say"),
        ("enable.auto.commit", "the tables say"),
    ],
)
def test_what_k2beam_sets_itself_can_not_be_set_for_java(name: str, instead: str) -> None:
    with pytest.raises(UsageError, match=f"--kafka-property can't set {name}, .*{instead}"):
        KafkaConfig("b", properties=(("fetch.min.bytes", "7"), (name, "x")))


def test_other_settings_of_the_consumer_may_be_set() -> None:
    names = (
        "fetch.min.bytes",
        "group.instance.id",
        "group.idle",
        "ssl.endpoint.identification.algorithm",
        "enable.metrics.push",
    )
    java = KafkaConfig("b", properties=tuple((name, "x") for name in names)).java_consumer()
    assert {java[name] for name in names} == {"x"}


def test_files_are_given_to_java_by_folder_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text(CANARY)
    monkeypatch.chdir(tmp_path)
    config = secured(
        sasl_password="${file:password}",
        ca_file="ca.pem",
        certificate_file="client.pem",
        key_file="keys/client.pem",
        properties=(("interceptor.password", f"${{file:{tmp_path}/password}}"),),
    )
    java = config.java_consumer()
    assert f'password="${{file:{tmp_path}:password}}"' in java["sasl.jaas.config"]
    assert java["ssl.truststore.location"] == f"{tmp_path}/ca.pem"
    assert java["ssl.keystore.certificate.chain"] == f"${{file:{tmp_path}:client.pem}}"
    assert java["ssl.keystore.key"] == f"${{file:{tmp_path}/keys:client.pem}}"
    assert java["interceptor.password"] == f"${{file:{tmp_path}:password}}"
    rust = config.librdkafka()
    assert (rust["ssl.key.location"], rust["sasl.password"]) == ("keys/client.pem", CANARY)


def test_a_client_certificate_alone_has_providers_too() -> None:
    java = KafkaConfig("b", "SSL", certificate_file="/c.pem", key_file="/k.pem").java_consumer()
    assert java["config.providers.file.class"].endswith("DirectoryConfigProvider")
    assert "sasl.jaas.config" not in java


@pytest.mark.parametrize("secret", ["a\n", 'a"b', "a\\b"])
def test_a_secret_that_java_would_read_otherwise_is_refused(tmp_path: Path, secret: str) -> None:
    (tmp_path / "password").write_text(secret)
    config = secured(sasl_password=f"${{file:{tmp_path}/password}}")
    with pytest.raises(UsageError, match=r"--sasl-password: what \$\{file:.*/password\}") as refused:
        config.java_consumer()
    assert secret not in str(refused.value)


def test_a_path_with_a_colon_is_refused_for_java(tmp_path: Path) -> None:
    config = KafkaConfig("b", "SSL", certificate_file=f"{tmp_path}/a:b", key_file=f"{tmp_path}/k")
    with pytest.raises(UsageError, match=r"--certificate-file.*colon"):
        config.java_consumer()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({**LOGIN, "sasl_username": CANARY}, "--sasl-username takes a reference"),
        ({**LOGIN, "sasl_password": CANARY}, "--sasl-password takes a reference"),
        ({"properties": (("ssl.keystore.password", CANARY),)}, r"ssl\.keystore\.password takes a reference"),
        ({**LOGIN, "sasl_mechanism": "GSSAPI"}, "--sasl-mechanism takes PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
        ({"security_protocol": "TLS"}, "--security-protocol takes PLAINTEXT, SSL"),
        ({"security_protocol": "SASL_SSL"}, "SASL_SSL needs --sasl-mechanism"),
        ({"security_protocol": "SASL_SSL", **LOGIN, "sasl_password": None}, "needs --sasl-mechanism, --sasl-username"),
        ({"security_protocol": "SSL", **LOGIN}, "SSL has no login"),
        (LOGIN, "PLAINTEXT has no login"),
        ({"ca_file": "ca.pem"}, "PLAINTEXT has no TLS"),
        ({"security_protocol": "SASL_PLAINTEXT", **LOGIN, "ca_file": "ca.pem"}, "SASL_PLAINTEXT has no TLS"),
        ({"security_protocol": "SSL", "key_file": "k"}, "--certificate-file and --key-file go together"),
    ],
)
def test_what_contradicts_itself_or_holds_a_secret_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        KafkaConfig("b", **options)
    assert CANARY not in str(refused.value)
