"""How to reach a Kafka cluster, with every secret as a reference.

A reference (:mod:`k2beam.references`) stays one in everything that is logged, pickled or sent to a runner, and is
resolved where a client opens: here for librdkafka, and in the Java consumer by Kafka's own configuration
providers (KIP-297, KIP-421, KIP-887).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from k2beam.errors import UsageError
from k2beam.references import (
    check_client_config,
    check_reference,
    client_config,
    dereference,
    file_content,
    parse_reference,
)

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_SASL_MODULES = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}
_PROVIDERS = {
    "config.providers": "env,file",
    "config.providers.env.class": "org.apache.kafka.common.config.provider.EnvVarConfigProvider",
    "config.providers.file.class": "org.apache.kafka.common.config.provider.DirectoryConfigProvider",
}
READ_COMMITTED = {"isolation.level": "read_committed"}
"""What every consumer reads: an aborted transaction was never sent. librdkafka's default, but not that of Java."""
_OURS = {
    "bootstrap.servers": "--bootstrap",
    "security.protocol": "--security-protocol",
    "sasl.": "--sasl-mechanism, --sasl-username and --sasl-password",
    "ssl.truststore.": "--ca-file",
    "ssl.keystore.": "--certificate-file and --key-file",
    "ssl.key.": "--key-file",
    "config.providers": "references, ${env:NAME} and ${file:PATH}",
    "config.providers.": "references, ${env:NAME} and ${file:PATH}",
    "group.id": "nothing: each run has a group of its own",
    "isolation.level": "nothing: what is committed is read",
    "key.deserializer": "nothing: bytes are read",
    "value.deserializer": "nothing: bytes are read",
    "auto.offset.reset": "nothing: the tables say where a run starts",
    "enable.auto.commit": "nothing: the tables say where a run starts",
}
"""Settings of the Java consumer that are k2beam's own, and what to use instead; a dot at the end: all that begin so."""
_NOT_IN_JAAS = frozenset('"\\\r\n')


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """Addresses and credentials of a cluster.

    ``sasl_username`` and ``sasl_password`` must be references. ``ca_file``, ``certificate_file`` and ``key_file``
    (PEM, the key in PKCS #8 without a password) are paths, and must be there where the Java worker runs as well.
    ``properties`` are further settings of the Java consumer, secrets among them as references.
    Raises UsageError for a secret that is no reference, for settings that contradict each other, and for a property
    that k2beam sets itself.

    Examples:
        >>> from k2beam import KafkaConfig
        >>> KafkaConfig("localhost:9092").client_options()
        {'security.protocol': 'PLAINTEXT'}
        >>> login = {"sasl_username": "${env:KAFKA_USER}", "sasl_password": "${env:KAFKA_PASSWORD}"}
        >>> kafka = KafkaConfig("broker:9093", "SASL_SSL", "SCRAM-SHA-512", **login)
        >>> kafka.client_options()["sasl.password"]
        '${env:KAFKA_PASSWORD}'
    """

    bootstrap: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    properties: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for option, value in (("--sasl-username", self.sasl_username), ("--sasl-password", self.sasl_password)):
            if value is not None:
                check_reference(value, option)
        check_client_config(dict(self.properties))
        for name, _ in self.properties:
            _check_not_ours(name)
        if self.security_protocol not in PROTOCOLS:
            raise UsageError(f"--security-protocol takes {', '.join(PROTOCOLS)}, not {self.security_protocol!r}")
        if self.sasl_mechanism is not None and self.sasl_mechanism not in _SASL_MODULES:
            raise UsageError(f"--sasl-mechanism takes {', '.join(_SASL_MODULES)}, not {self.sasl_mechanism!r}")
        self._check_sasl()
        self._check_tls()

    def at(self, bootstrap: str, properties: Mapping[str, str] | None = None) -> KafkaConfig:
        """The same login at other addresses; ``properties`` replace the settings of the Java consumer.

        Raises UsageError.
        """
        kept = self.properties if properties is None else tuple(properties.items())
        return replace(self, bootstrap=bootstrap, properties=kept)

    def _check_sasl(self) -> None:
        login = (self.sasl_mechanism, self.sasl_username, self.sasl_password)
        if self.security_protocol.startswith("SASL_"):
            if None in login:
                raise UsageError(
                    f"--security-protocol {self.security_protocol} needs --sasl-mechanism, --sasl-username and"
                    " --sasl-password"
                )
        elif login != (None, None, None):
            # A login that is left out without a word would look like one that was made.
            raise UsageError(
                f"--security-protocol {self.security_protocol} has no login: take SASL_SSL (or SASL_PLAINTEXT), or"
                " leave the --sasl options out"
            )

    def _check_tls(self) -> None:
        files = (self.ca_file, self.certificate_file, self.key_file)
        if not self.security_protocol.endswith("SSL") and files != (None, None, None):
            raise UsageError(
                f"--security-protocol {self.security_protocol} has no TLS: take SSL or SASL_SSL, or leave --ca-file,"
                " --certificate-file and --key-file out"
            )
        if (self.certificate_file is None) != (self.key_file is None):
            raise UsageError("--certificate-file and --key-file go together: a client shows the one by the other")

    def client_options(self) -> dict[str, str]:
        """Options of a librdkafka client but for its addresses, secrets as references: may be kept and pickled."""
        options = {
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password,
            "ssl.ca.location": self.ca_file,
            "ssl.certificate.location": self.certificate_file,
            "ssl.key.location": self.key_file,
        }
        return {name: value for name, value in options.items() if value is not None}

    def librdkafka(self) -> dict[str, str]:
        """The settings of a confluent-kafka client, references resolved: not to be logged or kept.

        Raises UsageError for a reference to what is not there.
        """
        return {"bootstrap.servers": self.bootstrap, **client_config(self.client_options())}

    def java_consumer(self) -> dict[str, str]:
        """The settings of the Java consumer; references stay, for its configuration providers.

        Raises UsageError for a secret that Java's clients would read otherwise than librdkafka does.
        """
        settings = {"bootstrap.servers": self.bootstrap, "security.protocol": self.security_protocol, **READ_COMMITTED}
        settings |= self._java_login() | self._java_tls()
        settings |= {name: _for_java(value, name) for name, value in self.properties}
        return settings | (_PROVIDERS if any("${" in value for value in settings.values()) else {})

    def _java_login(self) -> dict[str, str]:
        if self.sasl_mechanism is None or self.sasl_username is None or self.sasl_password is None:
            return {}
        user = _in_jaas(self.sasl_username, "--sasl-username")
        password = _in_jaas(self.sasl_password, "--sasl-password")
        module = _SASL_MODULES[self.sasl_mechanism]
        return {
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.jaas.config": f'{module} required username="{user}" password="{password}";',
        }

    def _java_tls(self) -> dict[str, str]:
        settings: dict[str, str] = {}
        if self.ca_file is not None:
            settings |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": _absolute(self.ca_file)}
        if self.certificate_file is not None and self.key_file is not None:
            # As contents and not as a keystore: that would be one file with both in it.
            certificate, key = f"${{file:{self.certificate_file}}}", f"${{file:{self.key_file}}}"
            settings |= {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.certificate.chain": _for_java(certificate, "--certificate-file"),
                "ssl.keystore.key": _for_java(key, "--key-file"),
            }
        return settings


def _check_not_ours(name: str) -> None:
    """The Java consumer alone would follow such a setting, and no other client of the same run."""
    for ours, instead in _OURS.items():
        if name == ours or (ours.endswith(".") and name.startswith(ours)):
            raise UsageError(f"--kafka-property can't set {name}, which k2beam sets itself; use {instead}")


def _in_jaas(reference: str, option: str) -> str:
    """A reference within a quoted string of JAAS, where a provider puts the content as it is."""
    found = parse_reference(reference)
    if found is not None and found.kind == "file":
        text = file_content(found.name, option)
    else:
        text = dereference(reference, option)
    if _NOT_IN_JAAS.intersection(text):
        raise UsageError(
            f"{option}: what {reference} stands for has a quotation mark, a backslash or a line break, which Kafka's"
            " Java clients can't take by reference; write a file without a line break at its end (printf %s), or"
            " choose another secret"
        )
    return _for_java(reference, option)


def _for_java(text: str, option: str) -> str:
    """A reference as Kafka's providers name it: ``${file:/a/b}`` is ``${file:/a:b}``. Other text stays as it is."""
    found = parse_reference(text)
    if found is None or found.kind == "env":
        return text
    path = Path(_absolute(found.name))
    if ":" in str(path):
        raise UsageError(f"{option}: Java's clients can't read {path}: take a path without a colon")
    return f"${{file:{path.parent}:{path.name}}}"


def _absolute(path: str) -> str:
    # The Java worker has a working folder of its own.
    return str(Path(path).expanduser().absolute())
