"""How to reach a Kafka cluster, with every secret as a reference.

A value may hold ``${env:NAME}`` or ``${file:PATH}``. It stays a reference in everything that is
logged, pickled or sent to a runner, and is resolved where a client opens: here for librdkafka,
and in the Java consumer by Kafka's own configuration providers (KIP-297, KIP-887).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from k2beam.errors import UsageError

_REFERENCE = re.compile(r"\$\{(env|file):([^}]+)\}")
_SASL_MODULES = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}
_SECRET_OPTIONS = ("sasl_username", "sasl_password")


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """Addresses and credentials of a cluster.

    ``sasl_username`` and ``sasl_password`` must be references; ``properties`` are further
    settings of the Java consumer, as they are.
    """

    bootstrap: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None
    ca_file: str | None = None
    properties: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for option in _SECRET_OPTIONS:
            value = getattr(self, option)
            if value is not None and not _REFERENCE.fullmatch(value):
                name = option.replace("_", "-")
                raise UsageError(f"--{name} takes a reference, ${{env:NAME}} or ${{file:PATH}}, never the value itself")
        if self.sasl_mechanism is not None and self.sasl_mechanism not in _SASL_MODULES:
            raise UsageError(f"--sasl-mechanism takes {', '.join(_SASL_MODULES)}, not {self.sasl_mechanism!r}")

    def librdkafka(self) -> dict[str, str]:
        """The settings of a confluent-kafka client, references resolved: not to be logged or kept."""
        settings = {"bootstrap.servers": self.bootstrap, "security.protocol": self.security_protocol}
        optional = {
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password,
            "ssl.ca.location": self.ca_file,
        }
        return settings | {name: resolve(value) for name, value in optional.items() if value is not None}

    def java_consumer(self) -> dict[str, str]:
        """The settings of the Java consumer; references stay, for its configuration providers."""
        settings = {"bootstrap.servers": self.bootstrap, "security.protocol": self.security_protocol}
        if self.sasl_mechanism is not None:
            module = _SASL_MODULES[self.sasl_mechanism]
            user, password = (_for_java(value or "") for value in (self.sasl_username, self.sasl_password))
            settings |= {
                "sasl.mechanism": self.sasl_mechanism,
                "sasl.jaas.config": f'{module} required username="{user}" password="{password}";',
                "config.providers": "env,file",
                "config.providers.env.class": "org.apache.kafka.common.config.provider.EnvVarConfigProvider",
                "config.providers.file.class": "org.apache.kafka.common.config.provider.DirectoryConfigProvider",
            }
        if self.ca_file is not None:
            settings |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": self.ca_file}
        return settings | dict(self.properties)


def _for_java(value: str) -> str:
    """``${file:/a/b}`` as Kafka's DirectoryConfigProvider names it: ``${file:/a:b}``."""
    return re.sub(r"\$\{file:([^}]*)/([^}/]+)\}", r"${file:\1:\2}", value)


def resolve(value: str) -> str:
    """``value`` with its references replaced. Raises UsageError for a variable or file that is not there."""

    def content(match: re.Match[str]) -> str:
        kind, name = match.groups()
        if kind == "env":
            if name not in os.environ:
                raise UsageError(f"the environment variable {name} is not set: a Kafka setting refers to it")
            return os.environ[name]
        try:
            return Path(name).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise UsageError(
                f"the file {name} can't be read ({error.strerror}): a Kafka setting refers to it"
            ) from error

    return _REFERENCE.sub(content, value)
