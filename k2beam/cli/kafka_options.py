"""The options that say how to reach Kafka, shared by the commands that do."""

from __future__ import annotations

from typing import Annotated

import typer

from k2beam.errors import UsageError
from k2beam.kafka.config import KafkaConfig

BootstrapOption = Annotated[
    str,
    typer.Option(
        "--bootstrap", metavar="HOSTS", envvar="K2BEAM_BOOTSTRAP", help="Kafka's addresses, host:port with commas."
    ),
]
SecurityOption = Annotated[str, typer.Option("--security-protocol", help="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.")]
MechanismOption = Annotated[str | None, typer.Option("--sasl-mechanism", help="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.")]
UsernameOption = Annotated[
    str | None, typer.Option("--sasl-username", metavar="REF", help="A reference: ${env:NAME} or ${file:PATH}.")
]
PasswordOption = Annotated[
    str | None, typer.Option("--sasl-password", metavar="REF", help="A reference: ${env:NAME} or ${file:PATH}.")
]
CaOption = Annotated[str | None, typer.Option("--ca-file", help="Certificates of the authority, PEM.")]
PropertyOption = Annotated[
    list[str] | None, typer.Option("--kafka-property", metavar="KEY=VALUE", help="A setting of the Java consumer.")
]


def kafka_config(
    bootstrap: str,
    security: str,
    mechanism: str | None,
    username: str | None,
    password: str | None,
    ca_file: str | None,
    properties: list[str] | None = None,
) -> KafkaConfig:
    """The configuration that the options say. Raises UsageError for a property without a value."""
    pairs = []
    for text in properties or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--kafka-property takes KEY=VALUE, not {text!r}")
        pairs.append((key, value))
    return KafkaConfig(bootstrap, security, mechanism, username, password, ca_file, tuple(pairs))
