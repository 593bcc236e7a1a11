"""What the ids of a registry stood for, kept with the tables: an id that is given to another schema is noticed.

A registry that lost its data begins to count anew. Messages written before would then be read by schemas that are not
theirs, and often without an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pyiceberg.catalog import Catalog

from k2beam.config import LakeConfig
from k2beam.errors import RegistryError
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import DEAD_LETTERS, open_table
from k2beam.lake.transaction import change_properties
from k2beam.model import SchemaRef
from k2beam.registry.resolver import RegistryResolver

SCHEMA_PREFIX = "k2.schema."
"""Table properties ``k2.schema.<id>.<registry's URL>`` of the dead letters: SHA-256 over the schema as JSON."""


class KeptSchemas:
    """A resolver that keeps what each id was when it was first asked for, in the tables of ``lake``.

    Picklable; :meth:`open` and :meth:`close` it on each worker. A GUID is made of the schema, so it can't change.
    """

    def __init__(self, resolver: RegistryResolver, lake: LakeConfig) -> None:
        self._resolver = resolver
        self._lake = lake
        self._compared: set[SchemaRef] = set()

    def open(self) -> None:
        """Open the resolver."""
        self._resolver.open()

    def close(self) -> None:
        """Close the resolver."""
        self._resolver.close()

    def resolve(self, ref: SchemaRef) -> str:
        """As :meth:`k2beam.registry.resolver.RegistryResolver.resolve`.

        Raises RegistryError where the id was another schema before, and CommitConflict and CommitUnknown.
        """
        text = self._resolver.resolve(ref)
        if isinstance(ref, int) and ref not in self._compared:
            self._compare(ref, text)
            self._compared.add(ref)
        return text

    def _compare(self, schema_id: int, text: str) -> None:
        url = self._resolver.config.url
        name, now = f"{SCHEMA_PREFIX}{schema_id}.{url}", _digest(text)

        def change(properties: Mapping[str, str]) -> dict[str, str | None]:
            if properties.get(name, now) != now:
                raise RegistryError(
                    f"schema id {schema_id} of the Schema Registry {url} is another schema than when the tables were "
                    "written: was the registry emptied, or another one put in its place? Nothing more is taken, as old "
                    "messages would be read by the wrong schema. Bring the old schemas back; if all messages with old "
                    "ids are taken, `k2beam schemas forget` lets the new ones in"
                )
            return {name: now}

        catalog = open_catalog(self._lake)
        change_properties(lambda: open_table(catalog, self._lake.namespace, DEAD_LETTERS), change)


def keep_schemas(resolver: Any, lake: LakeConfig) -> Any:
    """A resolver that keeps what it is told, if it asks a registry; any other as it is."""
    return KeptSchemas(resolver, lake) if isinstance(resolver, RegistryResolver) else resolver


def forget_schemas(catalog: Catalog, namespace: str, url: str) -> int:
    """Forget what the ids of a registry were, and return of how many. Raises CommitConflict and CommitUnknown."""
    forgotten: dict[str, str | None] = {}

    def change(properties: Mapping[str, str]) -> dict[str, str | None]:
        ours = (name for name in properties if name.startswith(SCHEMA_PREFIX))
        forgotten.update((name, None) for name in ours if name.split(".", 3)[3] == url)
        return forgotten

    change_properties(lambda: open_table(catalog, namespace, DEAD_LETTERS), change)
    return len(forgotten)


def _digest(text: str) -> str:
    """SHA-256 over the schema, however its JSON is spaced or its keys are ordered."""
    # What is no JSON is no schema, as its messages will be told.
    with contextlib.suppress(ValueError):
        text = json.dumps(json.loads(text), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
