"""A Schema Registry with Confluent's API as a local server: Apicurio, with its data in a file of H2.

Every change is on disk before it is answered, so that a registry that is killed and started again still has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from k2beam.stack.jars import ensure_unpacked
from k2beam.stack.java import ensure_java
from k2beam.stack.server import HOST, Launch, answers, connect

_JAVA: Final = (21, 25)
_API: Final = "/apis/ccompat/v7"
_HEAP: Final = (
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
)


@dataclass(frozen=True)
class Apicurio:
    """Apicurio Registry 3.3; ``registry_url`` is the base of Confluent's API."""

    name: str = "registry"
    patience_s: float = 180.0

    @property
    def default_ports(self) -> Mapping[str, int]:
        return {"http": 8081, "management": 9081}

    def launch(self, folder: Path, ports: Mapping[str, int]) -> Launch:
        java = str(ensure_java(*_JAVA))
        program = ensure_unpacked("apicurio") / "quarkus-run.jar"
        environment = {
            "QUARKUS_HTTP_HOST": HOST,
            "QUARKUS_HTTP_PORT": str(ports["http"]),
            # It can't be turned off, and would take port 9000 of every interface.
            "QUARKUS_MANAGEMENT_HOST": HOST,
            "QUARKUS_MANAGEMENT_PORT": str(ports["management"]),
            "APICURIO_STORAGE_KIND": "sql",
            "APICURIO_STORAGE_SQL_KIND": "h2",
            "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{folder / 'data' / 'registry'};WRITE_DELAY=0;FILE_LOCK=FS",
        }
        return Launch((java, *_HEAP, "-jar", str(program)), environment)

    def probe(self, ports: Mapping[str, int]) -> None:
        connect(ports["http"])
        answers(f"{self.addresses(ports)['registry_url']}/subjects")

    def addresses(self, ports: Mapping[str, int]) -> dict[str, str]:
        return {"registry_url": f"http://{HOST}:{ports['http']}{_API}"}
