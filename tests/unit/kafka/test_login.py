"""Whether a broker lets a client in, where none answers; real ones are met in the integration tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2beam.errors import UsageError
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.login import check_login
from tests.http_servers import closed_port


def test_a_broker_that_is_not_there_is_left_to_the_command() -> None:
    check_login(KafkaConfig(f"127.0.0.1:{closed_port()}", "SSL"), patience_s=600)


def test_an_open_cluster_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("confluent_kafka.admin.AdminClient")
    check_login(KafkaConfig("127.0.0.1:1"))


def test_a_secret_or_a_certificate_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    login = {"sasl_mechanism": "PLAIN", "sasl_username": "${env:K2_NONE}", "sasl_password": "${env:K2_NONE}"}
    with pytest.raises(UsageError, match="K2_NONE is not set"):
        check_login(KafkaConfig("b:1", "SASL_SSL", **login))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"the Kafka client does not take these options: .*ssl\.ca\.location"):
        check_login(KafkaConfig("b:1", "SSL", ca_file=str(tmp_path / "none.pem")))
