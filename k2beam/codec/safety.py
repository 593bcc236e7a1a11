"""Which Avro schemas are safe to decode with.

Avro puts no bound on what a few bytes may stand for: a recursive schema lets a short message nest until
the stack is gone, and an array of items that take no bytes lets five bytes stand for billions of items.
Both are refused before any byte is decoded.
"""

from __future__ import annotations

from typing import Any

from k2beam.errors import SchemaError

MAX_DEPTH = 64
"""How deep types may be nested, inline or by name."""

MAX_TYPES = 10_000
"""How many types one datum may be made of when every named type is written out in its place."""

_PRIMITIVE_BYTES = {
    "null": 0,
    "boolean": 1,
    "int": 1,
    "long": 1,
    "float": 4,
    "double": 8,
    "bytes": 1,
    "string": 1,
}
"""The least bytes that a primitive takes (Avro 1.11 specification, "Binary Encoding")."""


def check_schema_safety(schema: Any) -> None:
    """Refuse a schema, given as parsed JSON, under which a short payload can become a huge datum.

    Raises SchemaError for: recursion, arrays or maps of items that take no bytes (null, fixed of size 0,
    records of these), more than 64 levels or 10,000 types, and anything that is no Avro schema
    (unknown or doubly defined names, missing parts).
    """
    _Checker().walk(schema, "", 1)


class _Size:
    """What one type can take: ``least`` bytes, ``types`` and ``depth`` when written out."""

    __slots__ = ("depth", "least", "types")

    def __init__(self, least: int, types: int = 1, depth: int = 1) -> None:
        self.least = least
        self.types = types
        self.depth = depth


class _Checker:
    """One walk over one schema; ``_named`` is None for a name that is still being defined."""

    def __init__(self) -> None:
        self._named: dict[str, _Size | None] = {}

    def walk(self, schema: Any, namespace: str, depth: int) -> _Size:
        if depth > MAX_DEPTH:
            raise SchemaError(f"schema is nested more than {MAX_DEPTH} levels deep")
        size = self._dispatch(schema, namespace, depth)
        if depth + size.depth - 1 > MAX_DEPTH:
            raise SchemaError(f"schema is nested more than {MAX_DEPTH} levels deep")
        if size.types > MAX_TYPES:
            raise SchemaError(f"schema stands for more than {MAX_TYPES} types when its names are written out")
        return size

    def _dispatch(self, schema: Any, namespace: str, depth: int) -> _Size:
        if isinstance(schema, str):
            return self._reference(schema, namespace)
        if isinstance(schema, list):
            return self._union(schema, namespace, depth)
        if not isinstance(schema, dict) or "type" not in schema:
            raise SchemaError(f"{_short(schema)} is not an Avro type")
        name = schema["type"]
        if not isinstance(name, str):
            return self.walk(name, namespace, depth + 1)
        if name in ("record", "error", "enum", "fixed"):
            return self._definition(schema, name, namespace, depth)
        if name in ("array", "map"):
            return self._container(schema, name, namespace, depth)
        return self._reference(name, namespace)

    def _reference(self, name: str, namespace: str) -> _Size:
        if name in _PRIMITIVE_BYTES:
            return _Size(_PRIMITIVE_BYTES[name])
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        key = full if full in self._named else name
        if key not in self._named:
            raise SchemaError(f"schema names a type {_short(name)} that it does not define")
        size = self._named[key]
        if size is None:
            raise SchemaError(
                f"schema is recursive: {_short(full)} contains itself, so a short message could nest for ever"
            )
        return size

    def _union(self, branches: list[Any], namespace: str, depth: int) -> _Size:
        if not branches or any(isinstance(branch, list) for branch in branches):
            raise SchemaError("a union must have branches, and no union among them")
        return _sum(1, [self.walk(branch, namespace, depth + 1) for branch in branches], least=1)

    def _container(self, schema: dict[str, Any], name: str, namespace: str, depth: int) -> _Size:
        part = "items" if name == "array" else "values"
        if part not in schema:
            raise SchemaError(f"{name} without {part}")
        item = self.walk(schema[part], namespace, depth + 1)
        if item.least == 0:
            raise SchemaError(f"{name} of {part} that take no bytes: a few bytes could stand for billions of them")
        return _sum(1, [item], least=1)

    def _definition(self, schema: dict[str, Any], name: str, namespace: str, depth: int) -> _Size:
        full, inner = _full_name(schema, namespace)
        if full in self._named or full in _PRIMITIVE_BYTES:
            raise SchemaError(f"schema defines {_short(full)} twice")
        self._named[full] = None
        if name == "enum":
            size = _enum(schema, full)
        elif name == "fixed":
            size = _fixed(schema, full)
        else:
            size = self._record(schema, full, inner, depth)
        self._named[full] = size
        return size

    def _record(self, schema: dict[str, Any], full: str, namespace: str, depth: int) -> _Size:
        fields = schema.get("fields")
        if not isinstance(fields, list):
            raise SchemaError(f"record {_short(full)} has no list of fields")
        sizes = []
        for field in fields:
            if not isinstance(field, dict) or not isinstance(field.get("name"), str) or "type" not in field:
                raise SchemaError(f"record {_short(full)} has a field without name or type")
            sizes.append(self.walk(field["type"], namespace, depth + 1))
        return _sum(1, sizes, least=sum(size.least for size in sizes))


def _sum(own: int, parts: list[_Size], least: int) -> _Size:
    return _Size(least, own + sum(part.types for part in parts), 1 + max((part.depth for part in parts), default=0))


def _full_name(schema: dict[str, Any], namespace: str) -> tuple[str, str]:
    """The full name, and the namespace for the types inside it (Avro specification, "Names")."""
    name, own = schema.get("name"), schema.get("namespace", namespace)
    if not isinstance(name, str) or not name or not isinstance(own, str | None):
        raise SchemaError(f"a {schema['type']} has no name")
    if "." in name:
        return name, name.rpartition(".")[0]
    return (f"{own}.{name}" if own else name), own or ""


def _enum(schema: dict[str, Any], full: str) -> _Size:
    symbols = schema.get("symbols")
    if not isinstance(symbols, list) or not symbols or not all(isinstance(symbol, str) for symbol in symbols):
        raise SchemaError(f"enum {_short(full)} has no list of symbols")
    return _Size(1)


def _fixed(schema: dict[str, Any], full: str) -> _Size:
    size = schema.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise SchemaError(f"fixed {_short(full)} has no size")
    return _Size(size)


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, dict | list) else type(value).__name__
    return text if len(text) <= 120 else f"{text[:120]}…"
