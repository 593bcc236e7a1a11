"""Prism as a local server that takes jobs: for ``--runner=PortableRunner --job_endpoint=ADDRESS``.

``--runner=PrismRunner`` needs no server: it starts the program that :mod:`k2beam.stack.prism` finds. The
job port accepts connections from other machines too and has no protection: it is for a developer's machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from k2beam.stack.prism import ensure_prism
from k2beam.stack.server import HOST, Launch, connect


@dataclass(frozen=True)
class PrismServer:
    """Prism; ``job_endpoint`` takes jobs, ``web`` shows them."""

    name: str = "prism"
    patience_s: float = 30.0

    @property
    def default_ports(self) -> Mapping[str, int]:
        return {"job": 8073, "web": 8074}

    def launch(self, folder: Path, ports: Mapping[str, int]) -> Launch:
        del folder
        options = (f"--job_port={ports['job']}", f"--web_port={ports['web']}", "--log_kind=text")
        return Launch((str(ensure_prism()), *options), {})

    def probe(self, ports: Mapping[str, int]) -> None:
        connect(ports["job"])

    def addresses(self, ports: Mapping[str, int]) -> dict[str, str]:
        return {"job_endpoint": f"{HOST}:{ports['job']}", "web": f"http://{HOST}:{ports['web']}"}
