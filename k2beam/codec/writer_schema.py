"""What a decoder takes and gives: what every implementation keeps to.

A decoder turns the payloads of one writer schema into one Arrow batch. Each input row comes out
exactly once, either as a row of the columns or as a :class:`RowError`; no payload raises.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import fastavro
import pyarrow as pa

from k2beam.arrays import Ints
from k2beam.codec.avro_schema import Array, AvroType, Field, Map, Primitive, Record, Union, record_type
from k2beam.codec.columns import is_columnar
from k2beam.codec.extras import plain_type
from k2beam.codec.resolve import ColumnRule, resolve
from k2beam.errors import SchemaError
from k2beam.model import PROVENANCE_FIELDS
from k2beam.schemas import KnownSchema, identify, payload_arrow_schema

BROKEN_BLOCK = "broken_block"
"""Error class of a block in which it is not known where its records end; its row is the block's first."""

MAX_SCHEMA_CHARS = 1_000_000
_OURS = frozenset(field.name for field in PROVENANCE_FIELDS)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class WriterSchema:
    """A writer's schema, checked, identified and resolved to ours; one object for each text.

    ``tree`` describes the bytes; logical types are left only on the fields that become columns.
    ``rules`` has one entry for each column: ours, and then the fields that ours lacks: ``added``, columns of their own
    type, and ``extras``, which are text. ``columnar`` says whether fast paths know every type.
    """

    text: str
    known: KnownSchema
    tree: Record
    rules: tuple[ColumnRule, ...]
    columnar: bool
    added: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()

    @staticmethod
    def parse(text: str, evolve: bool = False) -> WriterSchema:
        """The writer schema of JSON ``text``; cached, so that a batch costs a look-up.

        With ``evolve`` fields of plain types that ours lacks are columns, and not text. Raises SchemaError where it is
        not JSON or not Avro, unsafe (recursive, or items of no bytes), not a market-data event, or can't be resolved to
        the project's schema.
        """
        return _parse(text, evolve)

    @property
    def arrow_schema(self) -> pa.Schema:
        """The columns that a decoder gives: the Arrow schema of ours, as ``known`` names it, and the others."""
        own = payload_arrow_schema(self.known.name)
        further = self.rules[len(own) :]
        return pa.schema([*own, *(pa.field(rule.name, rule.data_type) for rule in further)]) if further else own


@functools.lru_cache(maxsize=256)
def _parse(text: str, evolve: bool) -> WriterSchema:
    schema = _load(text)
    # First, because it is bounded in depth and size; the checks after it rely on that.
    tree = record_type(schema)
    known = identify(schema)
    if known.kind is None:
        raise SchemaError(f"schema {known.name} is an envelope, not an event; open it with the archive reader")
    _check_conformance(schema)
    rules = resolve(tree, known.name)
    wanted = {rule.field for rule in rules}
    further = {field.name: field.type for field in tree.fields if field.name not in wanted}
    types = {name: plain_type(kind) for name, kind in further.items() if evolve and name not in _OURS}
    added = {name: data_type for name, data_type in types.items() if data_type is not None}
    extras = {name: kind for name, kind in further.items() if name not in added}
    fields = tuple(_unread(field) if field.name in extras else field for field in tree.fields)
    return WriterSchema(
        text=text,
        known=known,
        tree=replace(tree, fields=fields),
        rules=(
            *rules,
            *(ColumnRule(name, data_type, True, name) for name, data_type in added.items()),
            *(ColumnRule(name, pa.string(), True, name, text_of=kind) for name, kind in extras.items()),
        ),
        columnar=all(is_columnar(field.type) for field in fields),
        added=tuple(added),
        extras=tuple(extras),
    )


def _load(text: str) -> Any:
    if len(text) > MAX_SCHEMA_CHARS:
        raise SchemaError(f"the schema has {len(text)} characters; at most {MAX_SCHEMA_CHARS} are read")
    try:
        schema = json.loads(text)
        # Names go into messages and headers, which are UTF-8; JSON can escape what is not.
        json.dumps(schema, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise SchemaError("the schema has half a character (a surrogate without its other half)") from None
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"the schema is not JSON: {error!r:.200}") from None
    return schema


def _check_conformance(schema: Any) -> None:
    """Names, defaults and whatever else fastavro knows of the specification."""
    try:
        fastavro.parse_schema(schema)
    except (
        fastavro.schema.SchemaParseException,
        fastavro.schema.UnknownType,
        ValueError,
        TypeError,
        KeyError,
    ) as error:
        raise SchemaError(f"the text is not a valid Avro schema: {error!r:.200}") from None


def _unread(field: Field) -> Field:
    return Field(field.name, _physical(field.type))


def _physical(avro_type: AvroType) -> AvroType:
    """The type without its logical types: what becomes text needs no value in range."""
    match avro_type:
        case Primitive(name=name):
            return Primitive(name)
        case Array(items=items):
            return Array(_physical(items))
        case Map(values=values):
            return Map(_physical(values))
        case Union(branches=branches):
            return Union(tuple(_physical(branch) for branch in branches))
        case Record(name=name, fields=fields):
            return Record(name, tuple(_unread(field) for field in fields))
    return avro_type


@dataclass(frozen=True, slots=True)
class RowError:
    """A row that gave no event: its class, message and bytes (those of the block for a broken block).

    ``record`` (plain values, Decimals and datetimes) is there where the bytes decoded.
    """

    row: int
    error_class: str
    message: str
    payload: bytes
    record: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """The good rows as columns, the input row of each, and the errors of the others, by row."""

    columns: pa.RecordBatch
    rows: Ints
    errors: tuple[RowError, ...]


class Decoder(Protocol):
    """Decodes payloads of one writer schema. Implementations keep no state between calls."""

    def decode(self, payloads: pa.BinaryArray | Sequence[bytes], body_offset: int, schema: WriterSchema) -> Decoded:
        """One record from each payload (none null), after its first ``body_offset`` bytes."""

    def decode_block(self, block: bytes, count: int, schema: WriterSchema) -> Decoded:
        """``count`` records that fill one container block (decompressed).

        A record with a bad value whose end is known (:mod:`k2beam.codec.strict`) is an error of its row, with its own
        bytes. A block with any other error is one :data:`BROKEN_BLOCK` error and no rows.
        """

    def decode_blocks(self, blocks: Sequence[tuple[bytes, int]], schema: WriterSchema) -> Decoded:
        """As :meth:`decode_block` for many; rows count through all blocks, by their announced counts."""
