"""Kafka's configuration and the start of a job, without a broker."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap64

from k2beam.cli.main import main
from k2beam.coverage import Coverage
from k2beam.errors import UsageError
from k2beam.kafka.cluster import Bounds, start_offsets
from k2beam.kafka.config import KafkaConfig, resolve
from k2beam.live import Goal

KEY = ("kafka:c/t/1", 0)
CANARY = "canary-51ab"


def secured() -> KafkaConfig:
    return KafkaConfig(
        "broker:9093",
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="${env:K2_TEST_USER}",
        sasl_password="${env:K2_TEST_PASSWORD}",
        ca_file="/etc/ca.pem",
        properties=(("fetch.min.bytes", "7"),),
    )


def test_secrets_stay_references_until_a_client_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_TEST_USER", "me")
    monkeypatch.setenv("K2_TEST_PASSWORD", CANARY)
    config = secured()
    assert config.librdkafka()["sasl.password"] == CANARY
    java = config.java_consumer()
    assert '"${env:K2_TEST_PASSWORD}"' in java["sasl.jaas.config"]
    assert "ScramLoginModule" in java["sasl.jaas.config"]
    assert (java["fetch.min.bytes"], java["ssl.truststore.location"]) == ("7", "/etc/ca.pem")
    assert CANARY not in repr(config) + repr(java)
    filed = KafkaConfig("b", sasl_mechanism="PLAIN", sasl_username="${env:A}", sasl_password="${file:/run/secrets/b}")
    assert 'password="${file:/run/secrets:b}"' in filed.java_consumer()["sasl.jaas.config"]
    assert CANARY.encode() not in pickle.dumps(config)


@pytest.mark.parametrize("option", ["sasl_username", "sasl_password"])
def test_a_plain_secret_is_refused_and_not_repeated(option: str) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')}") as refused:
        KafkaConfig("b", **{option: CANARY})  # type: ignore[arg-type]
    assert CANARY not in str(refused.value)


def test_what_a_reference_names_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    assert resolve(f"a ${{file:{tmp_path}/secret}}") == "a from a file"
    with pytest.raises(UsageError, match="K2_TEST_ABSENT"):
        resolve("${env:K2_TEST_ABSENT}")
    with pytest.raises(UsageError, match="absent"):
        resolve(f"${{file:{tmp_path}/absent}}")
    with pytest.raises(UsageError, match="SCRAM-SHA-256"):
        KafkaConfig("b", sasl_mechanism="GSSAPI")


@given(st.sets(st.integers(0, 60)), st.integers(0, 30), st.integers(0, 40))
def test_the_start_is_the_first_offset_that_is_not_covered(covered: set[int], low: int, length: int) -> None:
    coverage = Coverage()
    coverage.add_many(*KEY, sorted(covered))
    found = start_offsets({KEY: Bounds(low, low + length)}, coverage)[KEY]
    assert found == next((offset for offset in range(low, low + length) if offset not in covered), low + length)


def test_a_long_run_is_found_quickly() -> None:
    coverage = Coverage()
    coverage.add_range(*KEY, 0, 10**9)
    assert start_offsets({KEY: Bounds(5, 10**10)}, coverage)[KEY] == 10**9 + 1


def test_the_goal_is_what_was_there_at_the_start() -> None:
    other = ("kafka:c/t/1", 1)
    goal = Goal({KEY: 2, other: 0}, {KEY: Bounds(0, 6), other: Bounds(0, 0)})
    coverage = Coverage()
    coverage.add_many(*KEY, [3, 9])
    assert goal.missing(coverage) == {KEY: BitMap64([2, 4, 5])}
    coverage.add_range(*KEY, 0, 5)
    assert goal.missing(coverage) == {}


def test_a_live_job_without_a_registry_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ingest", "kafka", "--topic", "t", "--warehouse", "w"])
    assert ended.value.code == 2
    assert "--registry URL is needed" in capsys.readouterr().err
