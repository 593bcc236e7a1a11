"""The options that say how to reach Kafka, shared by the commands that do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from k2beam.errors import UsageError
from k2beam.kafka.config import PROTOCOLS, KafkaConfig

LOCAL_BOOTSTRAP = "localhost:9092"

BootstrapOption = Annotated[
    str,
    typer.Option(
        "--bootstrap", metavar="HOSTS", envvar="K2BEAM_BOOTSTRAP", help="Kafka's addresses, host:port with commas."
    ),
]
ClientOption = Annotated[
    list[str] | None,
    typer.Option("--config", metavar="NAME=VALUE", help="Option of the Kafka client; a secret as ${env:NAME}."),
]
JavaOption = Annotated[
    list[str] | None,
    typer.Option("--kafka-property", metavar="NAME=VALUE", help="A setting of the Java consumer; secrets likewise."),
]

_Protocol = Annotated[str, typer.Option("--security-protocol", help=f"{', '.join(PROTOCOLS)}.")]
_Mechanism = Annotated[str | None, typer.Option("--sasl-mechanism", help="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.")]
_Username = Annotated[
    str | None, typer.Option("--sasl-username", metavar="REF", help="A reference: ${env:NAME} or ${file:PATH}.")
]
_Password = Annotated[
    str | None, typer.Option("--sasl-password", metavar="REF", help="A reference: ${env:NAME} or ${file:PATH}.")
]
_Ca = Annotated[str | None, typer.Option("--ca-file", help="Certificates of Kafka's authority, PEM.")]
_Certificate = Annotated[str | None, typer.Option("--certificate-file", help="Certificate of this client, PEM.")]
_Key = Annotated[str | None, typer.Option("--key-file", help="Key of that certificate, PEM (PKCS #8).")]


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """How a client shows itself to Kafka, as the options say."""

    protocol: str = "PLAINTEXT"
    mechanism: str | None = None
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None

    def at(self, bootstrap: str, java: Sequence[str] | None = None) -> KafkaConfig:
        """The cluster at these addresses; ``java`` has --kafka-property. Raises UsageError for what can't be."""
        return KafkaConfig(
            bootstrap,
            self.protocol,
            self.mechanism,
            self.username,
            self.password,
            self.ca_file,
            self.certificate_file,
            self.key_file,
            tuple(pairs("--kafka-property", java).items()),
        )


def kafka_security(
    security_protocol: _Protocol = "PLAINTEXT",
    sasl_mechanism: _Mechanism = None,
    sasl_username: _Username = None,
    sasl_password: _Password = None,
    ca_file: _Ca = None,
    certificate_file: _Certificate = None,
    key_file: _Key = None,
) -> KafkaSecurity:
    """The group of options, for :func:`k2beam.cli.option_groups.with_options`."""
    return KafkaSecurity(
        security_protocol, sasl_mechanism, sasl_username, sasl_password, ca_file, certificate_file, key_file
    )


def pairs(option: str, texts: Sequence[str] | None) -> dict[str, str]:
    """The names and values of a repeated option.

    Raises UsageError for a text that is none; it is not repeated, as it may be a secret.
    """
    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError(f"{option} takes NAME=VALUE; one of those given has no name or no =")
        found[name] = value
    return found
