"""The command with ten minutes' patience for a registry: one that is slow to start must not end a test's job."""

from __future__ import annotations

from k2beam.cli.main import main
from k2beam.cli.registry_options import RegistryLogin
from k2beam.registry.client import RegistryConfig

PATIENCE_S = 600.0
_at = RegistryLogin.at


def _patient(self: RegistryLogin, url: str, wait_s: float = PATIENCE_S) -> RegistryConfig:
    return _at(self, url, wait_s)


if __name__ == "__main__":
    RegistryLogin.at = _patient  # type: ignore[method-assign]
    main()
