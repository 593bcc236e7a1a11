"""The options that say how to reach Kafka, shared by the commands that do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

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


def kafka_security(
    security_protocol: _Protocol = "PLAINTEXT",
    sasl_mechanism: _Mechanism = None,
    sasl_username: _Username = None,
    sasl_password: _Password = None,
    ca_file: _Ca = None,
    certificate_file: _Certificate = None,
    key_file: _Key = None,
) -> KafkaConfig:
    """How a client shows itself to Kafka; the command says to which addresses (:meth:`KafkaConfig.at`).

    A group of options, for :func:`k2beam.cli.option_groups.with_options`. Raises UsageError for what can't be.
    """
    return KafkaConfig(
        LOCAL_BOOTSTRAP,
        security_protocol,
        sasl_mechanism,
        sasl_username,
        sasl_password,
        ca_file,
        certificate_file,
        key_file,
    )


class WatchedTopics(NamedTuple):
    """The topics whose lag is looked at, and the addresses of their cluster."""

    bootstrap: str | None
    names: tuple[str, ...]
    pattern: str | None


def watched_topics(
    bootstrap: Annotated[
        str | None,
        typer.Option(metavar="HOSTS", help="Kafka's addresses: look at --topic and --topic-pattern there."),
    ] = None,
    topic: Annotated[list[str] | None, typer.Option(help="A topic whose lag is shown; may be repeated.")] = None,
    topic_pattern: Annotated[str | None, typer.Option(help="Regular expression that matches whole names.")] = None,
) -> WatchedTopics:
    """The group of options, for :func:`k2beam.cli.option_groups.with_options`."""
    return WatchedTopics(bootstrap, tuple(topic or ()), topic_pattern)


def optional_kafka(bootstrap: str | None, security: KafkaConfig) -> KafkaConfig | None:
    """The cluster, if there are addresses. Raises UsageError for credentials without them."""
    if bootstrap is not None:
        return security.at(bootstrap)
    if security != KafkaConfig(LOCAL_BOOTSTRAP):
        raise UsageError("credentials of Kafka have no effect without --bootstrap HOSTS")
    return None


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
