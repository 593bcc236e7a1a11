"""The options that say how to reach a Schema Registry, shared by the commands that do."""

from __future__ import annotations

from typing import Annotated

import typer

from k2beam.errors import UsageError
from k2beam.registry.config import RegistryConfig

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


def registry_login(
    registry_username: _Username = "",
    registry_password: _Password = "",
    registry_ca: _Ca = "",
    registry_certificate: _Certificate = "",
    registry_key: _Key = "",
) -> RegistryConfig:
    """How a client shows itself to a registry; the command says at which URL (:meth:`RegistryConfig.at`).

    A group of options, for :func:`k2beam.cli.option_groups.with_options`. Raises UsageError for what can't be.
    """
    return RegistryConfig(
        user=registry_username,
        password=registry_password,
        ca_file=registry_ca,
        certificate_file=registry_certificate,
        key_file=registry_key,
    )


def optional_registry(url: str | None, login: RegistryConfig) -> RegistryConfig | None:
    """The registry, if there is a URL. Raises UsageError for credentials without one."""
    if url:
        return login.at(url)
    if login != RegistryConfig():
        raise UsageError("the --registry-… options have no effect without --registry URL")
    return None
