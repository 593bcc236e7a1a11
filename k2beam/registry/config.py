"""How to reach a Schema Registry, with every secret as a reference; quick to import."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from k2beam.errors import UsageError
from k2beam.references import check_reference, dereference, has_userinfo

DEFAULT_URL = "http://localhost:8081/apis/ccompat/v7"
"""Where the local stack's registry answers; Confluent's own has no path."""


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """Where a registry is and how to log in.

    ``user`` and ``password`` are references: ``${env:NAME}`` or ``${file:PATH}``.
    ``wait_s``: how long a registry that can't be reached is waited for, seconds. ``timeout_s``: one request.
    Raises UsageError for a URL that is not http(s), or has a password in it.

    Examples:
        >>> from k2beam import RegistryConfig
        >>> registry = RegistryConfig("https://registry:8081", user="${env:NAME}", password="${file:password.txt}")
        >>> registry.password, registry.wait_s
        ('${file:password.txt}', 60.0)
    """

    url: str = DEFAULT_URL
    user: str = ""
    password: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    wait_s: float = 60.0
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if has_userinfo(self.url):
            raise UsageError("the URL of the registry has credentials in it; give them by reference, as ${env:NAME}")
        if not _is_http(self.url):
            raise UsageError(f"{self.url!r} is not the URL of a Schema Registry; write it as {DEFAULT_URL}")
        if bool(self.user) != bool(self.password):
            raise UsageError(
                "a registry needs both a user and a password (--registry-username, --registry-password), or neither"
            )
        for option, text in (("--registry-username", self.user), ("--registry-password", self.password)):
            if text:
                check_reference(text, option)

    def at(self, url: str, wait_s: float | None = None) -> RegistryConfig:
        """The same login at another URL, waited for so long. Raises UsageError."""
        return replace(self, url=url, wait_s=self.wait_s if wait_s is None else wait_s)

    def client_options(self) -> dict[str, str | int | float]:
        """Options for SchemaRegistryClient, with secrets read now. Raises UsageError where one is not there."""
        # Retries are ours: the client's own would multiply with them.
        options: dict[str, str | int | float] = {"url": self.url, "timeout": self.timeout_s, "max.retries": 0}
        if self.user:
            user = dereference(self.user, "--registry-username")
            password = dereference(self.password, "--registry-password")
            options["basic.auth.user.info"] = f"{user}:{password}"
        files = {
            "ssl.ca.location": self.ca_file,
            "ssl.certificate.location": self.certificate_file,
            "ssl.key.location": self.key_file,
        }
        return options | {name: path for name, path in files.items() if path}


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # such as an open bracket
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)
