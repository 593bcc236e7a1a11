"""A Schema Registry over its REST API (Confluent, "Schema Registry API Reference"), with errors of our own.

What may pass (no connection, 5xx, 429, 408) is waited for; what does not exist is told from what can't be
reached, since the first may become a dead letter and the second never.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import httpx2 as httpx
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from k2beam.codec.frame import ref_name
from k2beam.errors import NotRegistered, RegistryError, RegistryUnavailable, UsageError
from k2beam.logs import get_logger
from k2beam.model import SchemaRef
from k2beam.registry.config import RegistryConfig

AVRO = "AVRO"

_NOT_FOUND = frozenset({40401, 40402, 40403})  # subject, version, schema
_PASSING = frozenset({408, 425, 429})
_REFUSED = frozenset({401, 403})

_T = TypeVar("_T")
Sleep = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Registered:
    """One version of a subject: its number, the schema's id and its JSON text."""

    subject: str
    version: int
    id: int
    text: str


class Registry:
    """A client of one registry. Not picklable; open it where it is used, and close it.

    Each call raises RegistryUnavailable after ``wait_s`` without an answer, NotRegistered for what does not
    exist, and RegistryError for every other refusal.
    """

    def __init__(self, config: RegistryConfig, sleep: Sleep = time.sleep) -> None:
        self.config = config
        self._sleep = sleep
        try:
            self.client = SchemaRegistryClient(config.client_options())
        except (OSError, ValueError) as error:
            # A certificate that can't be read, say; the options are ours, and hold no secret in this text.
            raise UsageError(f"the registry {config.url} can't be used with these options: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def call(self, doing: str, request: Callable[[], _T]) -> _T:
        """The answer to ``request``, waited for as the class says; ``doing`` is for the error's text."""
        retrying = Retrying(
            retry=retry_if_exception(_may_pass),
            wait=wait_random_exponential(multiplier=0.2, max=5.0),
            stop=stop_waiting(self.config.wait_s),
            sleep=self._sleep,
            before_sleep=lambda state: self._say(doing, state),
            reraise=True,
        )
        try:
            return retrying(request)
        except (SchemaRegistryError, httpx.HTTPError) as error:
            raise self._named(error, doing) from error
        except json.JSONDecodeError as error:
            raise RegistryError(f"{self._where(doing)}: the answer is not JSON; {_CHECK_PATH}") from error

    def schema(self, ref: SchemaRef) -> Schema:
        """The schema of an id, or of a GUID, of whatever type."""
        if isinstance(ref, str):
            return self.call(f"looking up schema {ref_name(ref)}", lambda: self.client.get_schema_by_guid(ref))
        return self.call(f"looking up schema {ref_name(ref)}", lambda: self.client.get_schema(ref))

    def referred(self, subject: str, version: int) -> Schema:
        """The schema of a version of a subject, with what it refers to itself."""
        return self.call(
            f"reading version {version} of {subject}", lambda: self.client.get_version(subject, version).schema
        )

    def subjects(self) -> list[str]:
        """The names of all subjects, sorted."""
        return sorted(self.call("listing the subjects", self.client.get_subjects))

    def versions(self, subject: str) -> list[int]:
        """The version numbers of a subject, ascending; none where there is no such subject."""
        try:
            return sorted(self.call(f"listing the versions of {subject}", lambda: self.client.get_versions(subject)))
        except NotRegistered:
            return []

    def version(self, subject: str, version: int) -> Registered:
        """One version of a subject."""
        found = self.call(f"reading version {version} of {subject}", lambda: self.client.get_version(subject, version))
        return Registered(subject, version, int(found.schema_id or 0), str(found.schema.schema_str))

    def find(self, subject: str, text: str) -> Registered | None:
        """The version of ``subject`` that is this schema; None where there is none."""
        schema = Schema(text, AVRO)
        try:
            found = self.call(f"looking up a schema in {subject}", lambda: self.client.lookup_schema(subject, schema))
        except NotRegistered:
            return None
        return Registered(subject, int(found.version or 0), int(found.schema_id or 0), text)

    def allows(self, subject: str, text: str) -> bool:
        """Whether the registry's own rule for ``subject`` lets this schema become its next version."""
        schema = Schema(text, AVRO)
        return self.call(
            f"checking a schema against {subject}", lambda: self.client.test_compatibility(subject, schema)
        )

    def register(self, subject: str, text: str) -> int:
        """Register a schema, and give its id. Of a schema that is there already it is the id that it has."""
        schema = Schema(text, AVRO)
        return self.call(f"registering a schema in {subject}", lambda: self.client.register_schema(subject, schema))

    def _say(self, doing: str, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        get_logger("registry").warning(
            "the Schema Registry does not answer and is waited for",
            url=self.config.url,
            doing=doing,
            waited_s=round(state.seconds_since_start or 0.0, 1),
            gives_up_after_s=self.config.wait_s,
            error=_shown(error),
        )

    def _where(self, doing: str) -> str:
        return f"{doing} at the Schema Registry {self.config.url}"

    def _named(self, error: SchemaRegistryError | httpx.HTTPError, doing: str) -> RegistryError:
        where = self._where(doing)
        if _may_pass(error):
            return RegistryUnavailable(
                f"{where}: no answer within {self.config.wait_s:g} s ({_shown(error)}); start it or check its"
                " address, and run this again"
            )
        if not isinstance(error, SchemaRegistryError):
            return RegistryError(f"{where}: {_shown(error)}; {_CHECK_PATH}")
        if error.error_code in _NOT_FOUND:
            return NotRegistered(f"{where}: {error.error_message}")
        if error.http_status_code in _REFUSED:
            return RegistryError(f"{where}: HTTP {error.http_status_code}; check the user and password references")
        if error.error_code in (None, -1, error.http_status_code) and error.http_status_code in (404, 405):
            return RegistryError(f"{where}: HTTP {error.http_status_code}; {_CHECK_PATH}")
        return RegistryError(f"{where}: {_shown(error)}")


_CHECK_PATH = "is it a Schema Registry, and is the path right (Apicurio's is /apis/ccompat/v7)?"


def stop_waiting(limit_s: float) -> Callable[[RetryCallState], bool]:
    """Stop when the time since the start, or the time slept (which tests can fake), reaches ``limit_s`` seconds."""
    by_clock = stop_after_delay(limit_s)
    return lambda state: by_clock(state) or state.idle_for >= limit_s


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, SchemaRegistryError):
        return error.http_status_code >= 500 or error.http_status_code in _PASSING
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)


def _shown(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"[:300]
