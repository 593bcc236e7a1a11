"""Beam's Java expansion service with KafkaIO as a local server: what ReadFromKafka needs.

It also runs the Java worker, in its own process, for runners on this machine (Prism, the in-process runner). Its port
accepts connections from other machines too and has no protection: it is for a developer's machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from k2beam.errors import NotReady, PlatformError
from k2beam.stack.jars import classpath
from k2beam.stack.java import ensure_java
from k2beam.stack.server import HOST, Launch, connect

_JAVA: Final = (17, 21)
_MAIN: Final = "org.apache.beam.sdk.expansion.service.ExpansionService"
_DISCOVER: Final = "/org.apache.beam.model.expansion.v1.ExpansionService/DiscoverSchemaTransform"
_KAFKA_READ: Final = b"beam:schematransform:org.apache.beam:kafka_read:v1"
_PROBE_S: Final = 10.0
_HEAP: Final = ("-Xms128m", "-Xmx1g", "-XX:+UseG1GC", "-Dorg.slf4j.simpleLogger.showDateTime=true")


@dataclass(frozen=True)
class Expansion:
    """The expansion service; ``expansion_address`` is what ReadFromKafka takes as ``expansion_service``."""

    name: str = "expansion"
    patience_s: float = 120.0

    @property
    def default_ports(self) -> Mapping[str, int]:
        return {"grpc": 8097}

    def launch(self, folder: Path, ports: Mapping[str, int]) -> Launch:
        options = ("--javaClassLookupAllowlistFile=*", "--alsoStartLoopbackWorker")
        java = str(ensure_java(*_JAVA))
        return Launch((java, *_HEAP, "-cp", classpath("beam-kafka"), _MAIN, str(ports["grpc"]), *options), {})

    def probe(self, ports: Mapping[str, int]) -> None:
        connect(ports["grpc"])
        _ask_for_transforms(self.addresses(ports)["expansion_address"])

    def addresses(self, ports: Mapping[str, int]) -> dict[str, str]:
        return {"expansion_address": f"{HOST}:{ports['grpc']}"}


def _ask_for_transforms(address: str) -> None:
    """Raises :class:`NotReady` unless the service answers and knows KafkaIO."""
    try:
        import grpc  # type: ignore[import-untyped]
    except ImportError as error:
        raise PlatformError("the expansion service needs the Python package grpcio: pip install grpcio") from error
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer: bytes = channel.unary_unary(_DISCOVER)(b"", timeout=_PROBE_S)
        except grpc.RpcError as error:
            raise NotReady(f"{address} does not answer: {error}") from error
    if _KAFKA_READ not in answer:
        raise NotReady(f"{address} answers, but does not know KafkaIO")
