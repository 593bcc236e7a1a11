"""Kafka as a local server: one node, KRaft, listening on this machine only, for plain clients and others by option.

Topics are not made by themselves: a mistyped name is an error, and a topic that was deleted stays deleted, whatever
a consumer asks for. Data stays in the server's folder until that is deleted.
"""

from __future__ import annotations

import base64
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from k2beam.errors import NotReady, PlatformError
from k2beam.stack.jars import classpath
from k2beam.stack.java import ensure_java
from k2beam.stack.server import HOST, Launch, connect

_JAVA: Final = (17, 25)
_MESSAGE_BYTES: Final = 2 << 20
_PROBE_S: Final = 5.0
_HEAP: Final = (
    "-Xms256m",
    "-Xmx768m",
    "-XX:+UseG1GC",
    "-Dlog4j2.level=INFO",
    "-Dlog4j2.shutdownHookEnabled=false",
    "-Djava.awt.headless=true",
)


@dataclass(frozen=True)
class Listener:
    """A further port for clients: ``protocol`` is SSL, SASL_SSL or SASL_PLAINTEXT.

    ``settings`` are those of the broker for this listener (Kafka's documentation, "Security"), without the prefix
    ``listener.name.<name>.``; they are written to a file of the server's folder, passwords among them.
    """

    name: str
    protocol: str
    settings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Kafka:
    """Kafka 4.1; ``bootstrap`` is the address for plain clients. Messages may have 2 MiB.

    Each of ``listeners`` has a port and an address by its name. ``settings`` are further ones of the broker, and win
    over those that are set here.
    """

    name: str = "kafka"
    patience_s: float = 120.0
    listeners: tuple[Listener, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def default_ports(self) -> Mapping[str, int]:
        further = {listener.name: 9094 + number for number, listener in enumerate(self.listeners)}
        return {"client": 9092, "controller": 9093} | further

    def launch(self, folder: Path, ports: Mapping[str, int]) -> Launch:
        java = str(ensure_java(*_JAVA))
        jars = classpath("kafka")
        configuration = folder / "server.properties"
        configuration.write_text(properties(folder / "data", ports, self.listeners, self.settings), encoding="utf-8")
        if not (folder / "data" / "meta.properties").is_file():
            _format(java, jars, configuration)
        return Launch((java, *_HEAP, "-cp", jars, "kafka.Kafka", str(configuration)), {})

    def probe(self, ports: Mapping[str, int]) -> None:
        connect(ports["client"])
        _ask_for_metadata(self.addresses(ports)["bootstrap"])

    def addresses(self, ports: Mapping[str, int]) -> dict[str, str]:
        further = {listener.name: f"{HOST}:{ports[listener.name]}" for listener in self.listeners}
        return {"bootstrap": f"{HOST}:{ports['client']}"} | further


def properties(
    data: Path,
    ports: Mapping[str, int],
    listeners: Sequence[Listener] = (),
    further: Sequence[tuple[str, str]] = (),
) -> str:
    """The content of ``server.properties``."""
    client, controller = ports["client"], ports["controller"]
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "listeners": f"PLAINTEXT://{HOST}:{client},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{client}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": _escaped(str(data)),
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "broker.session.timeout.ms": "6000",  # a killed broker can join again only after this
        "broker.heartbeat.interval.ms": "1000",
        "message.max.bytes": str(_MESSAGE_BYTES),
    }
    for listener in listeners:
        settings |= _listening(listener, ports[listener.name], settings)
    settings |= {name: _escaped(value) for name, value in further}
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _listening(listener: Listener, port: int, settings: Mapping[str, str]) -> dict[str, str]:
    """The settings of one more listener, beside those there are."""
    name, address = listener.name.upper(), f"{listener.name.upper()}://{HOST}:{port}"
    protocols = settings["listener.security.protocol.map"]
    own = {f"listener.name.{listener.name.lower()}.{key}": _escaped(value) for key, value in listener.settings}
    return {
        "listeners": f"{settings['listeners']},{address}",
        "advertised.listeners": f"{settings['advertised.listeners']},{address}",
        "listener.security.protocol.map": f"{protocols},{name}:{listener.protocol}",
        **own,
    }


def _escaped(text: str) -> str:
    """A value of a Java properties file: Latin-1, and a backslash begins an escape."""
    units = memoryview(text.encode("utf-16-be")).cast("B")
    numbers = (units[at] << 8 | units[at + 1] for at in range(0, len(units), 2))
    return "".join(chr(number) if 32 <= number < 127 and number != 92 else f"\\u{number:04x}" for number in numbers)


def _format(java: str, jars: str, configuration: Path) -> None:
    cluster = "k2" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii")[2:22]
    tool = ("-cp", jars, "kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(configuration))
    done = subprocess.run([java, *tool], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-6:])
        raise PlatformError(f"Kafka's storage could not be formatted with {configuration}:\n{last}")


def _ask_for_metadata(bootstrap: str) -> None:
    """Raises :class:`NotReady` unless a broker names itself as a member of the cluster."""
    try:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient
    except ImportError as error:
        raise PlatformError("Kafka needs the Python package confluent-kafka: pip install confluent-kafka") from error
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "socket.timeout.ms": 3000})
    try:
        brokers = client.list_topics(timeout=_PROBE_S).brokers
    except KafkaException as error:
        raise NotReady(f"{bootstrap} does not answer a request for metadata: {error}") from error
    if not brokers:
        raise NotReady(f"{bootstrap} answers, but its broker has not joined the cluster")
