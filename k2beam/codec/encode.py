"""Events to Avro: the way back, for dead letters and producers."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping
from typing import Any

import fastavro

from k2beam.model import Kind
from k2beam.schemas import avro_schema, v2_name


@functools.cache
def _parsed(kind: Kind) -> Any:
    return fastavro.parse_schema(avro_schema(v2_name(kind)))


def encode_event(kind: Kind, record: Mapping[str, Any]) -> bytes:
    """The v2 Avro encoding (no framing) of a record of Python values: datetime, Decimal, list, dict.

    Raises ValueError where the record does not fit the schema.
    """
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, _parsed(kind), record)
    return stream.getvalue()
