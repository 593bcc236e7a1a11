"""The command with ten minutes' patience for a registry: one that is slow to start must not end a test's job."""

from __future__ import annotations

from k2beam.cli.main import main
from k2beam.registry.config import RegistryConfig

PATIENCE_S = 600.0
_at = RegistryConfig.at


def _patient(self: RegistryConfig, url: str, wait_s: float | None = None) -> RegistryConfig:
    return _at(self, url, PATIENCE_S if wait_s is None else wait_s)


if __name__ == "__main__":
    RegistryConfig.at = _patient  # type: ignore[method-assign]
    main()
