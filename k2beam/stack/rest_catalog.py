"""A catalog with Iceberg's REST interface as a local server: Project Nessie, over the local object store.

Its catalog is in memory: it is empty after each start, while the files of the tables stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from k2beam.stack.jars import ensure_jars
from k2beam.stack.java import ensure_java
from k2beam.stack.s3 import ACCESS_KEY, REGION, S3, SECRET_KEY
from k2beam.stack.server import HOST, Launch, answers, connect, ports_beside

_JAVA: Final = (21, 25)
_S3: Final = "nessie.catalog.service.s3.default-options"
_KEY: Final = "k2beam-store"


@dataclass(frozen=True)
class Nessie:
    """Nessie 0.99; ``rest_catalog_url`` is the URL of Iceberg's REST catalog."""

    name: str = "rest-catalog"
    patience_s: float = 180.0

    @property
    def default_ports(self) -> Mapping[str, int]:
        return {"http": 19120, "management": 19121}

    def launch(self, folder: Path, ports: Mapping[str, int]) -> Launch:
        store = ports_beside(folder, S3)
        (runner,) = ensure_jars("nessie")
        settings = {
            "quarkus.http.host": HOST,
            "quarkus.http.port": ports["http"],
            "quarkus.management.host": HOST,
            "quarkus.management.port": ports["management"],
            "nessie.version.store.type": "IN_MEMORY",
            "nessie.catalog.default-warehouse": "lake",
            "nessie.catalog.warehouses.lake.location": "s3://lake/rest/",
            f"{_S3}.endpoint": f"http://{HOST}:{store['http']}",
            f"{_S3}.path-style-access": "true",
            f"{_S3}.region": REGION,
            f"{_S3}.access-key": f"urn:nessie-secret:quarkus:{_KEY}",
            f"{_KEY}.name": ACCESS_KEY,
            f"{_KEY}.secret": SECRET_KEY,
        }
        options = (f"-D{name}={value}" for name, value in settings.items())
        java = str(ensure_java(*_JAVA))
        return Launch((java, "-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", *options, "-jar", str(runner)), {})

    def probe(self, ports: Mapping[str, int]) -> None:
        connect(ports["http"])
        answers(f"{self.addresses(ports)['rest_catalog_url']}v1/config")

    def addresses(self, ports: Mapping[str, int]) -> dict[str, str]:
        return {"rest_catalog_url": f"http://{HOST}:{ports['http']}/iceberg/"}
