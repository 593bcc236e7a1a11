"""Avro schemas as small frozen trees, with every named type written out where it is used.

The tree is what the strict decoder walks, what the columns are planned from and what schema
resolution compares, so that names, namespaces and documentation are dealt with once, here
(Avro 1.11 specification, "Schema Declaration" and "Names").

Avro puts no bound on what a few bytes may stand for: under a recursive schema a short message nests until the stack
is gone, and an array of items that take no bytes lets five bytes stand for billions of them. Such schemas are
refused here, before any byte is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from k2beam.errors import SchemaError

_LEAST_BYTES = {"null": 0, "boolean": 1, "int": 1, "long": 1, "float": 4, "double": 8, "bytes": 1, "string": 1}
"""The least that a primitive takes (Avro 1.11 specification, "Binary Encoding")."""

PRIMITIVES = frozenset(_LEAST_BYTES)
MAX_DEPTH = 64
"""Schemas of more levels, the record being the first, are refused: decoders recurse as deep as the schema does."""
MAX_FIXED_BYTES = 16 << 20
"""Larger fixed types are refused: no message has as much, and a size has no bound of its own."""
MAX_NODES = 10_000
"""Larger schemas are refused: named types written out can double with each level."""


@dataclass(frozen=True, slots=True)
class Primitive:
    """A primitive type; ``logical`` is ``decimal(18,8)``, ``timestamp-micros``, ``timestamp-millis`` or empty."""

    name: str
    logical: str = ""


@dataclass(frozen=True, slots=True)
class Fixed:
    """``size`` bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class Enum:
    """An enum; ``name`` is unqualified, as resolution compares it."""

    name: str
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Array:
    """An array of ``items``."""

    items: AvroType


@dataclass(frozen=True, slots=True)
class Map:
    """A map from strings to ``values``."""

    values: AvroType


@dataclass(frozen=True, slots=True)
class Union:
    """A union of ``branches``, in order."""

    branches: tuple[AvroType, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record; ``default`` is JSON and counts only where ``has_default``. ``aliases``: former names."""

    name: str
    type: AvroType
    has_default: bool = False
    default: Any = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """A record with its fields in the order in which they are encoded."""

    name: str
    fields: tuple[Field, ...]


AvroType = Primitive | Fixed | Enum | Array | Map | Union | Record

NULL = Primitive("null")


def without_null(avro_type: AvroType) -> tuple[AvroType, bool]:
    """``(X, True)`` for a union of null and one X, in either order; otherwise the type itself and False."""
    if isinstance(avro_type, Union) and len(avro_type.branches) == 2 and NULL in avro_type.branches:
        first, second = avro_type.branches
        return (second if first == NULL else first), True
    return avro_type, False


def decimal_digits(logical: str) -> tuple[int, int]:
    """Precision and scale of a decimal, by its ``logical`` type."""
    precision, scale = logical.removeprefix("decimal(").removesuffix(")").split(",")
    return int(precision), int(scale)


def record_type(schema: Any) -> Record:
    """The tree of a record schema (parsed JSON).

    Raises SchemaError where it is no record, or is malformed, recursive, deeper than
    :data:`MAX_DEPTH` or, written out, larger than :data:`MAX_NODES`, and for arrays and maps of items
    that take no bytes (null, a fixed of size 0, records of these) and a fixed of more than
    :data:`MAX_FIXED_BYTES`.
    """
    tree = _Parser().parse(schema, "", 0)
    if not isinstance(tree, Record):
        raise SchemaError("the schema of a message must be a record")
    return tree


def least_bytes(avro_type: AvroType) -> int:
    """The least bytes that a value of the type takes (Avro 1.11 specification, "Binary Encoding")."""
    match avro_type:
        case Primitive(name=name):
            return _LEAST_BYTES[name]
        case Fixed(size=size):
            return size
        case Record(fields=fields):
            return sum(least_bytes(field.type) for field in fields)
    return 1


class _Parser:
    """Holds the definitions of named types while one schema is walked."""

    def __init__(self) -> None:
        self._defined: dict[str, tuple[AvroType, int]] = {}
        self._open: set[str] = set()
        self._nodes = 0

    def parse(self, schema: Any, namespace: str, depth: int) -> AvroType:
        self._grow(1, depth)
        if isinstance(schema, str):
            return Primitive(schema) if schema in PRIMITIVES else self._reference(schema, namespace, depth)
        if isinstance(schema, list):
            return self._union(schema, namespace, depth)
        if not isinstance(schema, dict) or "type" not in schema:
            raise SchemaError(f"{_shown(schema)} is not an Avro type")
        return self._complex(schema, namespace, depth)

    def _grow(self, nodes: int, depth: int) -> None:
        self._nodes += nodes
        if depth >= MAX_DEPTH:
            raise SchemaError(f"the schema is nested deeper than {MAX_DEPTH} types")
        if self._nodes > MAX_NODES:
            raise SchemaError(f"the schema has more than {MAX_NODES} types when its names are written out")

    def _union(self, branches: list[Any], namespace: str, depth: int) -> Union:
        union = Union(tuple(self.parse(branch, namespace, depth + 1) for branch in branches))
        if not union.branches or any(isinstance(branch, Union) for branch in union.branches):
            raise SchemaError("a union must have branches, and no union among them")
        return union

    def _items(self, schema: dict[str, Any], part: str, namespace: str, depth: int) -> AvroType:
        if part not in schema:
            raise SchemaError(f"a type of kind {schema['type']} has no {part}")
        items = self.parse(schema[part], namespace, depth + 1)
        if least_bytes(items) == 0:
            raise SchemaError(
                f"the schema has a type of kind {schema['type']} whose {part} take no bytes: a few bytes could stand "
                "for billions of them"
            )
        return items

    def _reference(self, name: str, namespace: str, depth: int) -> AvroType:
        # A name without a dot is one of the enclosing namespace, and never one without a namespace.
        qualified = name if "." in name or not namespace else f"{namespace}.{name}"
        if qualified in self._open:
            raise SchemaError(
                f"the schema is recursive: {_shown(name)} contains itself, so a short message could nest for ever"
            )
        if qualified not in self._defined:
            raise SchemaError(f"the schema uses the type {_shown(name)}, which it does not define")
        tree, nodes = self._defined[qualified]
        self._grow(nodes, depth + _height(tree))
        return tree

    def _complex(self, schema: dict[str, Any], namespace: str, depth: int) -> AvroType:
        kind = schema["type"]
        if kind == "array":
            return Array(self._items(schema, "items", namespace, depth))
        if kind == "map":
            return Map(self._items(schema, "values", namespace, depth))
        if kind in ("record", "error", "enum", "fixed"):
            return self._definition(schema, namespace, depth)
        if isinstance(kind, str) and kind in PRIMITIVES:
            return Primitive(kind, _logical(kind, schema))
        return self.parse(kind, namespace, depth + 1)

    def _definition(self, schema: dict[str, Any], namespace: str, depth: int) -> AvroType:
        name, own_namespace = _qualified(schema, namespace)
        if name in self._defined or name in self._open:
            raise SchemaError(f"the schema defines the type {_shown(name)} twice")
        if name.rpartition(".")[2] in PRIMITIVES:
            raise SchemaError(f"the schema defines the type {_shown(name)}, which is the name of a primitive type")
        nodes = self._nodes
        self._open.add(name)
        tree = self._named(schema, name, own_namespace, depth)
        self._open.discard(name)
        self._defined[name] = (tree, self._nodes - nodes + 1)
        return tree

    def _named(self, schema: dict[str, Any], name: str, namespace: str, depth: int) -> AvroType:
        if schema["type"] == "enum":
            return Enum(name.rpartition(".")[2], _symbols(schema))
        if schema["type"] == "fixed":
            size = schema.get("size")
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                raise SchemaError(f"the fixed type {_shown(name)} has no valid size")
            if size > MAX_FIXED_BYTES:
                raise SchemaError(f"the fixed type {_shown(name)} has {size} bytes; at most {MAX_FIXED_BYTES} are read")
            return Fixed(size)
        fields = tuple(self._field(field, namespace, depth) for field in _field_list(schema))
        if len({field.name for field in fields}) < len(fields):
            raise SchemaError(f"the record {_shown(name)} has two fields of one name")
        return Record(name, fields)

    def _field(self, field: Any, namespace: str, depth: int) -> Field:
        if not isinstance(field, dict) or not isinstance(field.get("name"), str) or "type" not in field:
            raise SchemaError(f"{_shown(field)} is not a field: it needs a name and a type")
        tree = self.parse(field["type"], namespace, depth + 1)
        aliases = field.get("aliases", [])
        if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
            raise SchemaError(f"the aliases of the field {_shown(field['name'])} are no list of names")
        return Field(field["name"], tree, "default" in field, field.get("default"), tuple(aliases))


def _height(avro_type: AvroType) -> int:
    """Levels below the type."""
    children: tuple[AvroType, ...] = ()
    match avro_type:
        case Array(items=inner) | Map(values=inner):
            children = (inner,)
        case Union(branches=branches):
            children = branches
        case Record(fields=fields):
            children = tuple(field.type for field in fields)
    return 1 + max(map(_height, children)) if children else 0


def _qualified(schema: dict[str, Any], namespace: str) -> tuple[str, str]:
    """Full name and namespace of a named type (specification, "Names")."""
    name, own = schema.get("name"), schema.get("namespace", namespace) or ""
    if not isinstance(name, str) or not name or not isinstance(own, str):
        raise SchemaError(f"a type of kind {schema['type']} has no name")
    if "." in name:
        return name, name.rpartition(".")[0]
    return (f"{own}.{name}" if own else name), own


def _field_list(schema: dict[str, Any]) -> list[Any]:
    fields = schema.get("fields")
    if not isinstance(fields, list):
        raise SchemaError(f"the record {_shown(schema.get('name'))} has no list of fields")
    return fields


def _symbols(schema: dict[str, Any]) -> tuple[str, ...]:
    symbols = schema.get("symbols")
    if not isinstance(symbols, list) or not symbols or not all(isinstance(symbol, str) for symbol in symbols):
        raise SchemaError(f"the enum {_shown(schema['name'])} has no list of symbols")
    if len(set(symbols)) < len(symbols):
        raise SchemaError(f"the enum {_shown(schema['name'])} has a symbol twice")
    return tuple(symbols)


def _logical(kind: str, schema: dict[str, Any]) -> str:
    """A logical type that columns know; others are ignored, as the specification asks ("Logical Types")."""
    logical = schema.get("logicalType")
    if kind == "long" and logical in ("timestamp-micros", "timestamp-millis"):
        return str(logical)
    if kind == "bytes" and logical == "decimal":
        precision, scale = schema.get("precision"), schema.get("scale", 0)
        if isinstance(precision, int) and isinstance(scale, int) and 0 <= scale <= precision and precision > 0:
            return f"decimal({precision},{scale})"
    return ""


def _shown(value: Any) -> str:
    # What is nested may be too deep, or too much, to be written out.
    text = f"a {type(value).__name__}" if isinstance(value, dict | list) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
