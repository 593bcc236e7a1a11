"""Secrets by reference: a configuration names an environment variable or a file, and never holds the value.

Configurations are pickled to workers, printed by runners and kept by job servers; a reference may be
seen there, a value may not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from k2beam.errors import UsageError

_REFERENCE = re.compile(r"\$\{(env|file):([^}]+)\}")
_SECRET = re.compile(r"password|secret|jaas|\.pem$|user\.info|auth\.token", re.IGNORECASE)


def is_reference(text: str) -> bool:
    """Whether ``text`` is ``${env:NAME}`` or ``${file:PATH}``, as Kafka's own clients write it (KIP-297)."""
    return _REFERENCE.fullmatch(text) is not None


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
    found = _REFERENCE.fullmatch(text)
    if found is None:
        raise UsageError(_no_reference(option))
    if found[1] == "env":
        value = os.environ.get(found[2], "")
        if not value:
            raise UsageError(f"{option}: the environment variable {found[2]} is not set here; set it where this runs")
        return value
    path = found[2]
    try:
        value = Path(path).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option}: the file {path} can't be read: {error}") from error
    if not value:
        raise UsageError(f"{option}: the file {path} is empty")
    return value


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
