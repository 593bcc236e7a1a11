"""Writer schemas by Confluent id, from a registry: what DecodeAvro asks for live messages."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tenacity import Retrying, retry_if_exception_type, wait_random_exponential

from k2beam.codec.frame import ref_name
from k2beam.errors import NotRegistered, SchemaError, UnsupportedSchema
from k2beam.model import SchemaRef
from k2beam.registry.client import AVRO, Registry, Sleep, stop_waiting
from k2beam.registry.config import RegistryConfig
from k2beam.registry.references import written_out

MAX_ID = (1 << 31) - 1
"""Ids are signed 32-bit in a registry; a higher one comes from a payload that is no message."""

_WINDOW_S = 60.0
_WINDOW_WAITS = 2
_REMEMBERED_UNKNOWN = 10_000


class RegistryResolver:
    """Writer schemas by id, each asked for once. Picklable; :meth:`open` and :meth:`close` it on each worker.

    An id that the registry does not know is asked for again for ``unknown_wait_s`` seconds, since a replica may be
    behind the producer, and is then a SchemaError: its messages become dead letters. The answer is remembered for a
    minute, and all unknown ids together are waited for twice that long in a minute, so that a stretch of noise does
    not hold up the feed. A registry that can't be reached is waited for ``config.wait_s`` seconds, then
    RegistryUnavailable fails the bundle, which is tried again: it never makes a dead letter.

    ``registry`` is its URL with the options that follow, or a RegistryConfig, which has them all. ``user`` and
    ``password`` are references (``${env:NAME}``, ``${file:PATH}``); they are read in :meth:`open`.

    Examples:
        >>> import json
        >>> from k2beam import RegistryResolver
        >>> resolver = RegistryResolver(registry, wait_s=10)
        >>> resolver.open()
        >>> json.loads(resolver.resolve(schema_id))["name"]
        'TradeV2'
        >>> resolver.close()
    """

    def __init__(
        self,
        registry: str | RegistryConfig,
        *,
        user: str = "",
        password: str = "",
        ca_file: str = "",
        certificate_file: str = "",
        key_file: str = "",
        wait_s: float = 60.0,
        timeout_s: float = 10.0,
        unknown_wait_s: float = 3.0,
        sleep: Sleep = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = (
            registry
            if isinstance(registry, RegistryConfig)
            else RegistryConfig(registry, user, password, ca_file, certificate_file, key_file, wait_s, timeout_s)
        )
        self._unknown_wait_s = unknown_wait_s
        self._sleep = sleep
        self._clock = clock
        self._reset()

    def _reset(self) -> None:
        self._registry: Registry | None = None
        self._texts: dict[SchemaRef, str] = {}
        self._unknown: dict[SchemaRef, tuple[float, str]] = {}
        self._window_start = float("-inf")
        self._waited = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("config", "_unknown_wait_s", "_sleep", "_clock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def open(self) -> None:
        """Make the client; the registry is not asked yet. Raises UsageError where a secret is not there."""
        if self._registry is None:
            self._registry = Registry(self.config, self._sleep)

    def close(self) -> None:
        """Close the connections and forget the schemas."""
        if self._registry is not None:
            self._registry.close()
        self._reset()

    def resolve(self, ref: SchemaRef) -> str:
        """The JSON text of the writer schema of an id, or of a GUID; what it refers to is written out in it.

        Raises SchemaError for one that does not exist, UnsupportedSchema for a schema that is no Avro;
        RegistryUnavailable or another RegistryError where the registry can't tell.
        """
        text = self._texts.get(ref)
        if text is None:
            text = self._texts[ref] = self._first(ref)
        return text

    def _first(self, ref: SchemaRef) -> str:
        if isinstance(ref, int) and not 0 <= ref <= MAX_ID:
            raise SchemaError(f"schema id {ref} can't be in a registry: ids go to {MAX_ID}")
        until, message = self._unknown.get(ref, (float("-inf"), ""))
        if self._clock() < until:
            raise SchemaError(message)
        try:
            return self._ask(ref)
        except NotRegistered:
            message = f"schema {ref_name(ref)} is not in the Schema Registry {self.config.url}"
            if len(self._unknown) >= _REMEMBERED_UNKNOWN:
                self._unknown.clear()
            self._unknown[ref] = (self._clock() + _WINDOW_S, message)
            raise SchemaError(message) from None

    def _ask(self, ref: SchemaRef) -> str:
        if self._registry is None:
            raise RuntimeError("the resolver is not open: call open() first")
        retrying = Retrying(
            retry=retry_if_exception_type(NotRegistered),
            wait=wait_random_exponential(multiplier=0.1, max=1.0),
            stop=stop_waiting(self._patience()),
            sleep=self._sleep_for_unknown,
            reraise=True,
        )
        schema = retrying(self._registry.schema, ref)
        if (schema.schema_type or AVRO) != AVRO:
            raise UnsupportedSchema(f"schema {ref_name(ref)} is of type {schema.schema_type}; market data is {AVRO}")
        return written_out(self._registry, schema)

    def _patience(self) -> float:
        """Seconds that may still be waited for an unknown id in this minute."""
        now = self._clock()
        if now - self._window_start >= _WINDOW_S:
            self._window_start, self._waited = now, 0.0
        return max(0.0, min(self._unknown_wait_s, _WINDOW_WAITS * self._unknown_wait_s - self._waited))

    def _sleep_for_unknown(self, seconds: float) -> None:
        self._waited += seconds
        self._sleep(seconds)
