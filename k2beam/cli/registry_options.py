"""The options that say how to reach a Schema Registry, shared by the commands that do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from k2beam.errors import UsageError

if TYPE_CHECKING:
    from k2beam.registry.client import RegistryConfig

LOCAL_REGISTRY = "http://localhost:8081/apis/ccompat/v7"
WAIT_S = 60.0
"""How long a registry that does not answer is waited for, seconds, unless a command says otherwise."""

_URL = typer.Option(
    "--registry", metavar="URL", envvar="K2BEAM_REGISTRY", help="The Schema Registry (Confluent's API)."
)
RegistryOption = Annotated[str, _URL]
OptionalRegistryOption = Annotated[str | None, _URL]

_Username = Annotated[
    str, typer.Option("--registry-username", metavar="REF", help="A reference: ${env:NAME} or ${file:PATH}.")
]
_Password = Annotated[
    str, typer.Option("--registry-password", metavar="REF", help="A reference: ${env:NAME} or ${file:PATH}.")
]
_Ca = Annotated[str, typer.Option("--registry-ca", metavar="FILE", help="Certificates of its authority, PEM.")]
_Certificate = Annotated[
    str, typer.Option("--registry-certificate", metavar="FILE", help="Certificate of this client, PEM.")
]
_Key = Annotated[str, typer.Option("--registry-key", metavar="FILE", help="Key of that certificate, PEM.")]


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """How a client shows itself to a registry, as the options say."""

    username: str = ""
    password: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""

    def at(self, url: str, wait_s: float = WAIT_S) -> RegistryConfig:
        """The registry at this URL, waited for ``wait_s`` seconds. Raises UsageError for what can't be."""
        # The client takes a third of a second to import; --help must not wait for it.
        from k2beam.registry.client import RegistryConfig

        return RegistryConfig(
            url, self.username, self.password, self.ca_file, self.certificate_file, self.key_file, wait_s=wait_s
        )

    def at_optional(self, url: str | None) -> RegistryConfig | None:
        """The registry, if there is a URL. Raises UsageError for credentials without one."""
        if url:
            return self.at(url)
        if self != RegistryLogin():
            raise UsageError("the --registry-… options have no effect without --registry URL")
        return None


def registry_login(
    registry_username: _Username = "",
    registry_password: _Password = "",
    registry_ca: _Ca = "",
    registry_certificate: _Certificate = "",
    registry_key: _Key = "",
) -> RegistryLogin:
    """The group of options, for :func:`k2beam.cli.option_groups.with_options`."""
    return RegistryLogin(registry_username, registry_password, registry_ca, registry_certificate, registry_key)
