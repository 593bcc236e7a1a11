"""Schemas that refer to others in their registry, written out in one (Confluent, "Schema references")."""

from __future__ import annotations

import json
from typing import Any

from confluent_kafka.schema_registry import Schema

from k2beam.errors import SchemaError
from k2beam.registry.client import Registry
from k2beam.schemas import full_name

_MOST = 100
_NAMED = ("record", "error", "enum", "fixed")


def written_out(registry: Registry, schema: Schema) -> str:
    """The JSON text of ``schema``, in which each type that it refers to stands where it is named first.

    Raises SchemaError for a reference that is no JSON, and for more than a hundred; RegistryError as the registry does.
    """
    text = str(schema.schema_str)
    if not schema.references:
        return text
    named: dict[str, Any] = {}
    _gather(registry, schema, named)
    return json.dumps(_with(json.loads(text), "", named))


def _gather(registry: Registry, schema: Schema, named: dict[str, Any]) -> None:
    for reference in schema.references or ():
        name, subject, version = str(reference.name), str(reference.subject), int(reference.version or 0)
        if name in named:
            continue
        if len(named) >= _MOST:
            raise SchemaError(f"a schema refers to more than {_MOST} others; write it out in one")
        referred = registry.referred(subject, version)
        try:
            named[name] = json.loads(str(referred.schema_str))
        except ValueError as error:
            raise SchemaError(f"the schema {name} that another refers to is not JSON") from error
        _gather(registry, referred, named)


def _with(schema: Any, namespace: str, named: dict[str, Any]) -> Any:
    """The schema with the first use of each of ``named`` replaced by its definition, which is taken out of there."""
    if isinstance(schema, str):
        name = schema if schema in named or not namespace else f"{namespace}.{schema}"
        found = named.pop(name, None)
        return schema if found is None else _with(found, "", named)
    if isinstance(schema, list):
        return [_with(branch, namespace, named) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") in _NAMED:
        name = full_name(schema) or ""
        namespace = name.rpartition(".")[0] or namespace
    inner = {
        key: _with(schema[key], namespace, named)
        for key in ("type", "items", "values")
        if isinstance(schema.get(key), str | list | dict)
    }
    if isinstance(schema.get("fields"), list):
        inner["fields"] = [
            {**field, "type": _with(field["type"], namespace, named)}
            if isinstance(field, dict) and "type" in field
            else field
            for field in schema["fields"]
        ]
    return {**schema, **inner}
