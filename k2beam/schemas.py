"""The Avro schemas, and the Arrow and Iceberg schemas that are derived from them.

The ``.avsc`` files are the only place where fields are written down. Logical types follow the
Avro 1.11 specification: ``decimal`` on ``bytes``, ``timestamp-millis`` and ``timestamp-micros``
on ``long``.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from k2beam.errors import SchemaError
from k2beam.model import DECIMAL, KINDS, PROVENANCE_FIELDS, TIMESTAMP, Kind

if TYPE_CHECKING:
    from pyiceberg.schema import Schema as IcebergSchema

SCHEMA_NAMES = (
    "trade",
    "quote",
    "reference_data",
    "trade_v2",
    "quote_v2",
    "reference_data_v2",
    "trade_v3",
    "quote_v3",
    "raw_record",
)

_V2_NAMES: dict[Kind, str] = {"trades": "trade_v2", "quotes": "quote_v2", "reference_data": "reference_data_v2"}
_V3_NAMES: dict[Kind, str] = {"trades": "trade_v3", "quotes": "quote_v3"}
_V1_NAMES: dict[Kind, str] = {"trades": "trade", "quotes": "quote", "reference_data": "reference_data"}

EVENT_TIME_COLUMN: dict[Kind, str] = {
    "trades": "timestamp",
    "quotes": "timestamp",
    "reference_data": "ingestion_timestamp",
}
"""The column that partitions, sorts and windows a kind."""


class KnownSchema(NamedTuple):
    """A schema of the project: its file's name, event kind (None: raw_record) and version."""

    name: str
    kind: Kind | None
    version: int


def _schema_text(name: str) -> str:
    try:
        return (resources.files("k2beam._schemas") / f"{name}.avsc").read_text("utf-8")
    except ModuleNotFoundError:
        return (Path(__file__).resolve().parent.parent / "schemas" / f"{name}.avsc").read_text("utf-8")


@functools.cache
def _avro_schema(name: str) -> str:
    if name not in SCHEMA_NAMES:
        raise SchemaError(f"unknown schema {name!r}; known are {', '.join(SCHEMA_NAMES)}")
    return _schema_text(name)


def avro_schema(name: str) -> dict[str, Any]:
    """The Avro schema ``name`` as parsed JSON, a new object on each call.

    Raises SchemaError for a name that is not in :data:`SCHEMA_NAMES`.
    """
    schema: dict[str, Any] = json.loads(_avro_schema(name))
    return schema


def v2_name(kind: Kind) -> str:
    """The name of the v2 schema of ``kind``: ``trades`` is ``trade_v2``."""
    return _V2_NAMES[kind]


def latest_name(kind: Kind) -> str:
    """The name of the schema of ``kind`` that holds all that the columns do: ``trades`` is ``trade_v3``.

    It is v2 with wider decimals; reference data, which have none, stay at v2.
    """
    return _V3_NAMES.get(kind, v2_name(kind))


def full_name(schema: Any) -> str | None:
    """The Avro full name (namespace and name) of a record schema; None for anything else."""
    if not isinstance(schema, dict) or schema.get("type") != "record":
        return None
    name = str(schema.get("name", ""))
    namespace = schema.get("namespace")
    return name if "." in name or not namespace else f"{namespace}.{name}"


@functools.cache
def _known_by_full_name() -> dict[str, KnownSchema]:
    known: dict[str, KnownSchema] = {"com.k2.marketdata.RawRecord": KnownSchema("raw_record", None, 2)}
    for kind in KINDS:
        for version, names in enumerate((_V1_NAMES, _V2_NAMES, _V3_NAMES), 1):
            if name := names.get(kind):
                known[full_name(avro_schema(name)) or name] = KnownSchema(name, kind, version)
    return known


def identify(schema: Any) -> KnownSchema:
    """Which of the project's schemas a writer schema is a version of, by its full name.

    Raises SchemaError with the known names where it is none of them.
    """
    name = full_name(schema)
    found = _known_by_full_name().get(name or "")
    if found is None:
        known = ", ".join(sorted(_known_by_full_name()))
        raise SchemaError(f"schema {name or schema!r} is not a market-data schema; known are {known}")
    return found


def arrow_type(avro_type: Any) -> tuple[pa.DataType, bool]:
    """The Arrow type of an Avro type, and whether it is nullable. Raises SchemaError where none fits."""
    if isinstance(avro_type, list):
        branches = [branch for branch in avro_type if branch != "null"]
        if len(branches) != 1:
            raise SchemaError(f"union {avro_type} has no column type: only null and one other type has")
        return arrow_type(branches[0])[0], len(branches) < len(avro_type)
    if isinstance(avro_type, dict):
        return _complex_type(avro_type), False
    simple = {
        "string": pa.string(),
        "bytes": pa.binary(),
        "long": pa.int64(),
        "int": pa.int32(),
        "boolean": pa.bool_(),
        "double": pa.float64(),
        "float": pa.float32(),
    }
    if avro_type not in simple:
        raise SchemaError(f"Avro type {avro_type!r} has no column type")
    return simple[avro_type], False


def _complex_type(avro_type: dict[str, Any]) -> pa.DataType:
    logical = avro_type.get("logicalType")
    if logical == "decimal":
        return DECIMAL  # whatever the message has: a column takes in all that any writer's decimal holds
    if logical in ("timestamp-micros", "timestamp-millis"):
        return TIMESTAMP
    if avro_type["type"] == "enum":
        return pa.string()
    if avro_type["type"] == "array":
        item, nullable = arrow_type(avro_type["items"])
        return pa.list_(pa.field("element", item, nullable=nullable))
    if avro_type["type"] == "map":
        item, nullable = arrow_type(avro_type["values"])
        return pa.map_(pa.string(), pa.field("value", item, nullable=nullable))
    if avro_type["type"] == "record":
        return pa.struct([_arrow_field(field) for field in avro_type["fields"]])
    return arrow_type(avro_type["type"])[0]


def _arrow_field(field: dict[str, Any]) -> pa.Field:
    data_type, nullable = arrow_type(field["type"])
    return pa.field(field["name"], data_type, nullable=nullable)


@functools.cache
def payload_arrow_schema(name: str) -> pa.Schema:
    """The Arrow schema of the fields of the Avro schema ``name``."""
    return pa.schema([_arrow_field(field) for field in avro_schema(name)["fields"]])


@functools.cache
def event_arrow_schema(kind: Kind) -> pa.Schema:
    """The Arrow schema of an event table: the v2 fields and the provenance columns."""
    return pa.schema([*payload_arrow_schema(v2_name(kind)), *PROVENANCE_FIELDS])


def iceberg_schema(schema: pa.Schema) -> IcebergSchema:
    """The Iceberg schema of an Arrow schema, with field ids in the order of the columns."""
    from pyiceberg.io.pyarrow import _pyarrow_to_schema_without_ids
    from pyiceberg.schema import assign_fresh_schema_ids

    return assign_fresh_schema_ids(_pyarrow_to_schema_without_ids(schema))
