"""What the tests of all feeds ask of a record."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import fastavro

import k2beam.sequence
from k2beam import schemas
from k2beam.feeds.feed import Market
from k2beam.produce.records import checked
from k2beam.sequence.rules import SequenceRules

RECEIVED = 1_767_571_200_000_000
"""2026-01-05T00:00:00Z in microseconds."""


def known_rules() -> SequenceRules:
    """How exchanges number, as ``--sequences known`` takes it."""
    path = Path(k2beam.sequence.__file__).with_name("known.toml")
    return SequenceRules.parse(path.read_text(encoding="utf-8"), path.name)


def round_trip(market: Market) -> Any:
    """The record after a way through Avro. Asserts that it is valid, and that the producer takes it."""
    schema = fastavro.parse_schema(schemas.avro_schema("trade_v2" if market.kind == "trades" else "quote_v2"))
    assert fastavro.validate(market.record, schema, strict=True)
    assert checked(market.kind, market.record, RECEIVED) == market.record
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, market.record)
    return fastavro.schemaless_reader(io.BytesIO(out.getvalue()), schema, None)
