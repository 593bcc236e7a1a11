"""Secrets by reference: a configuration names an environment variable or a file, and never holds the value.

Configurations are pickled to workers, printed by runners and kept by job servers; a reference may be
seen there, a value may not. The whole value is a reference, ``${env:NAME}`` or ``${file:PATH}``, in the form
of Kafka's own clients (KIP-297); one within other text is not looked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from k2beam.errors import UsageError

_REFERENCE = re.compile(r"\$\{(env|file):([^}]+)\}")
_SECRET = re.compile(r"password|secret|jaas|\.pem$|keystore\.key$|user\.info|auth\.token", re.IGNORECASE)


_USERINFO = re.compile(r"(?:[a-zA-Z][a-zA-Z0-9+.\-]*://)?[^/?#]*@")
"""The part of a URL before its host; names of servers are often given without a scheme."""


class Reference(NamedTuple):
    """What is referred to: ``kind`` is env or file, ``name`` the variable or path."""

    kind: str
    name: str


def parse_reference(text: str) -> Reference | None:
    """What ``text`` refers to; None where it is no reference."""
    found = _REFERENCE.fullmatch(text)
    return None if found is None else Reference(found[1], found[2])


def is_reference(text: str) -> bool:
    """Whether ``text`` is ``${env:NAME}`` or ``${file:PATH}``."""
    return parse_reference(text) is not None


def check_reference(text: str, option: str) -> None:
    """Raises UsageError, without the text itself, where it is not a reference."""
    if not is_reference(text):
        raise UsageError(_no_reference(option))


def _no_reference(option: str) -> str:
    return f"{option} takes a reference, ${{env:NAME}} or ${{file:PATH}}, and not the secret itself"


def dereference(text: str, option: str) -> str:
    """The value that ``${env:NAME}`` or ``${file:PATH}`` (without its last line break) stands for, read now.

    Raises UsageError where it is no reference, or what it names is not there or empty.
    """
    found = parse_reference(text)
    if found is None:
        raise UsageError(_no_reference(option))
    if found.kind == "env":
        value = os.environ.get(found.name, "")
        if not value:
            raise UsageError(f"{option}: the environment variable {found.name} is not set here; set it where this runs")
        return value
    value = file_content(found.name, option).removesuffix("\n").removesuffix("\r")
    if not value:
        raise UsageError(f"{option}: the file {found.name} is empty")
    return value


def file_content(path: str, option: str) -> str:
    """All of a file that a reference names, line breaks as they are. Raises UsageError where it can't be read."""
    try:
        return Path(path).expanduser().read_bytes().decode("utf-8")
    except OSError as error:
        raise UsageError(f"{option}: the file {path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError:
        # Without the cause: its text quotes a byte of the secret.
        raise UsageError(f"{option}: the file {path} can't be read: it is not UTF-8") from None


def has_userinfo(url: str) -> bool:
    """Whether a URL, or an address without a scheme, has a name or password before its host."""
    return _USERINFO.match(url) is not None


def check_client_config(config: Mapping[str, str]) -> None:
    """Raises UsageError for a secret option of a Kafka client, such as sasl.password, that holds a value."""
    for option, text in config.items():
        if _SECRET.search(option):
            check_reference(str(text), option)


def client_config(config: Mapping[str, str]) -> dict[str, str]:
    """Options of a Kafka client with every reference replaced by its value; call it where the client is opened.

    Raises UsageError as :func:`check_client_config` and :func:`dereference` do.
    """
    check_client_config(config)
    return {
        option: dereference(str(text), option) if is_reference(str(text)) else text for option, text in config.items()
    }
