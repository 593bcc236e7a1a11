"""Columns to Avro, read back by fastavro."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.csv.encode import encode_events
from k2beam.model import KINDS, Kind
from k2beam.schemas import avro_schema, latest_name, payload_arrow_schema, v2_name

MICROS = st.integers(-(10**15), 4 * 10**15)


def values(avro_type: Any, data_type: pa.DataType) -> st.SearchStrategy[Any]:
    if isinstance(avro_type, list):
        return st.none() | values(avro_type[1], data_type)
    if pa.types.is_decimal(data_type):
        return st.decimals(-(10**20) + 1, 10**20 - 1, places=18)
    if pa.types.is_timestamp(data_type):
        return MICROS
    if pa.types.is_list(data_type):
        return st.lists(st.text(max_size=5), max_size=3)
    if pa.types.is_map(data_type):
        return st.dictionaries(st.text(max_size=5), st.text(max_size=80), max_size=3)
    if isinstance(avro_type, dict):
        return st.sampled_from(avro_type["symbols"])
    return {"string": st.text(max_size=80), "long": st.integers(-(2**63), 2**63 - 1), "boolean": st.booleans()}[
        avro_type
    ]


def read(kind: Kind, record: bytes) -> Any:
    stream = io.BytesIO(record)
    found = fastavro.schemaless_reader(stream, fastavro.parse_schema(avro_schema(latest_name(kind))), None)
    assert not stream.read()
    return found


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_is_written_is_read_back(kind: Kind, data: st.DataObject) -> None:
    schema = payload_arrow_schema(v2_name(kind))
    fields = {one["name"]: one["type"] for one in avro_schema(latest_name(kind))["fields"]}
    one = st.fixed_dictionaries({name: values(avro, schema.field(name).type) for name, avro in fields.items()})
    rows = data.draw(st.lists(one, max_size=4))
    columns = [pa.array([row[field.name] for row in rows], field.type, from_pandas=False) for field in schema]
    events = pa.RecordBatch.from_arrays(columns, schema=schema)

    found = encode_events(kind, events.slice(1) if len(rows) > 1 else events).to_pylist()

    wanted = events.to_pylist(maps_as_pydicts="strict")
    assert [read(kind, record) for record in found] == (wanted[1:] if len(rows) > 1 else wanted)
