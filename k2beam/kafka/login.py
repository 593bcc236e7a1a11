"""Asks a broker whether it lets a client in, since the client itself goes on trying without a word."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from k2beam.errors import LoginRefused, UsageError
from k2beam.kafka.config import KafkaConfig

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

PATIENCE_S = 10.0
_POLL_S = 0.2
_GRACE_S = 1.0


def check_login(config: KafkaConfig, patience_s: float = PATIENCE_S) -> None:
    """Connect once, and raise LoginRefused if that is refused.

    A broker that is not there is no matter of this check, nor one that does not answer within ``patience_s`` seconds:
    the command that follows has a limit of its own for that. Raises UsageError for a reference or a certificate
    that is not there.
    """
    if config.security_protocol == "PLAINTEXT":
        return
    # Of an extra: the command line must start without it.
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient

    refusals = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})
    errors: list[KafkaError] = []
    options: dict[str, Any] = {**config.librdkafka(), "error_cb": errors.append, "log_level": 0}
    try:
        client = AdminClient(options)
    except KafkaException as error:
        raise UsageError(f"the Kafka client does not take these options: {error.args[0].str()}") from error
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        try:
            client.list_topics(timeout=_POLL_S)
        except KafkaException:
            client.poll(_POLL_S)
        else:
            return
        if refused := next((said for said in errors if said.code() in refusals), None):
            raise LoginRefused(_told(config, refused, refused.code() == KafkaError._AUTHENTICATION))
        if any(said.code() == KafkaError._ALL_BROKERS_DOWN for said in errors):
            # A name may have several addresses, of which the first does not answer.
            end = min(end, time.monotonic() + _GRACE_S)


def _told(config: KafkaConfig, error: KafkaError, by_password: bool) -> str:
    hint = (
        "check what --sasl-username and --sasl-password refer to, and --sasl-mechanism"
        if by_password
        else "check --ca-file, --certificate-file and --key-file, and that the addresses are those of a TLS listener"
    )
    return f"Kafka at {config.bootstrap} rejected this client's credentials or certificate: {error.str()}; {hint}"
