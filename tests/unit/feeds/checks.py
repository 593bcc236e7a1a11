"""What the tests of all feeds ask of a record."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import fastavro

import k2beam.sequence
from k2beam.feeds.feed import Market
from k2beam.produce.records import checked, wide_field
from k2beam.schemas import avro_schema, latest_name, v2_name
from k2beam.sequence.rules import SequenceRules

RECEIVED = 1_767_571_200_000_000
"""2026-01-05T00:00:00Z in microseconds."""


def known_rules() -> SequenceRules:
    """How exchanges number, as ``--sequences known`` takes it."""
    path = Path(k2beam.sequence.__file__).with_name("known.toml")
    return SequenceRules.parse(path.read_text(encoding="utf-8"), path.name)


def round_trip(market: Market) -> Any:
    """The record after a way through Avro. Asserts that it is valid, and that the producer takes it.

    In version 2, or in version 3 where a number has more digits than that holds: as the producer writes it.
    """
    wide = wide_field(market.kind, market.record)
    name = v2_name(market.kind) if wide is None else latest_name(market.kind)
    schema = fastavro.parse_schema(avro_schema(name))
    assert fastavro.validate(market.record, schema, strict=True)
    assert checked(market.kind, market.record, RECEIVED) == market.record
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, market.record)
    return fastavro.schemaless_reader(io.BytesIO(out.getvalue()), schema, None)
