"""Fields that our schemas do not know become entries of vendor_data, as text; whatever the variant, nothing is lost."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import fastavro
import pytest

from k2beam.codec.batches import BatchDecoder
from k2beam.codec.columnar.decoder import ColumnarDecoder
from k2beam.codec.reference import ReferenceDecoder
from k2beam.codec.writer_schema import Decoder, WriterSchema
from k2beam.errors import SchemaError
from k2beam.model import Block, BlockBatch
from k2beam.schemas import avro_schema
from tests.codec_samples import encode, evolved, quote, trade, trade_v1

ROWS = 20
"""More than the columnar decoder leaves to the reference."""
DECODERS = {"reference": ReferenceDecoder, "columnar": ColumnarDecoder}


def read(schema: Any, records: list[dict[str, Any]], decoder: Decoder | None = None) -> list[dict[str, Any]]:
    """The events of some records of a writer, as the tables get them."""
    payload = b"".join(encode(schema, record) for record in records)
    batch = BlockBatch("archive:a", 0, "a.avro", json.dumps(schema), (Block(0, len(records), 0, payload),))
    events, dead_letters = BatchDecoder(decoder or ColumnarDecoder(), lambda: 0).decode(batch)
    assert dead_letters == ()
    found: list[dict[str, Any]] = events[0].data.to_pylist(maps_as_pydicts="strict")
    return found


INSTANT = datetime(2026, 1, 5, 12, 30, 15, 123000, tzinfo=UTC)
CASES: list[tuple[Any, Any, str | None]] = [
    ("string", "é", "é"),
    ("string", "", ""),
    (["null", "string"], None, None),
    (["null", "long"], 7, "7"),
    ("int", -5, "-5"),
    ("boolean", True, "true"),
    ("double", 1.5, "1.5"),
    ("float", 0.25, "0.25"),
    ("bytes", b"\x00\xff", "AP8="),
    ({"type": "fixed", "name": "F", "size": 2}, b"ab", "YWI="),
    ({"type": "enum", "name": "E", "symbols": ["X", "Y"]}, "Y", "Y"),
    ({"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 3}, Decimal("-1.500"), "-1.5"),
    ({"type": "long", "logicalType": "timestamp-micros"}, INSTANT, "2026-01-05T12:30:15.123000Z"),
    ({"type": "long", "logicalType": "timestamp-millis"}, INSTANT, "2026-01-05T12:30:15.123000Z"),
    ({"type": "long", "logicalType": "timestamp-micros"}, 2**62, str(2**62)),
    ({"type": "array", "items": "string"}, ["a", "b"], '["a", "b"]'),
    ({"type": "map", "values": "long"}, {"a": 1}, '{"a": 1}'),
    ({"type": "record", "name": "R", "fields": [{"name": "n", "type": ["null", "int"]}]}, {"n": 3}, '{"n": 3}'),
    (["null", "string", "long"], 5, "5"),
    (["null", "string", "long"], "x", "x"),
    ("null", None, None),
]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("avro_type", "value", "text"), CASES)
def test_an_unknown_field_is_kept_as_text(decoder: str, avro_type: Any, value: Any, text: str | None) -> None:
    schema = evolved("trade_v2", flag={"name": "flag", "type": avro_type})
    records = [{**trade(number), "flag": value, "vendor_data": {"own": "1"}} for number in range(ROWS)]
    records[1]["vendor_data"] = None
    found = read(schema, records, DECODERS[decoder]())
    own = {} if text is None else {"flag": text}
    assert [row["vendor_data"] for row in found[:3]] == [{"own": "1"} | own, own or None, {"own": "1"} | own]
    assert [row["price"] for row in found] == [record["price"] for record in records]


def test_each_schema_is_logged_once_and_values_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    schema = evolved(
        "trade_v2", flag={"name": "flag", "type": ["null", "int"]}, unit={"name": "unit", "type": "string"}
    )
    payload = b"".join(encode(schema, {**trade(number), "flag": None, "unit": "kg"}) for number in range(ROWS))
    batch = BlockBatch("archive:a", 0, "a.avro", json.dumps(schema), (Block(0, ROWS, 0, payload),))
    counted: list[tuple[str, int]] = []
    decoder = BatchDecoder(ColumnarDecoder(), lambda: 0, None, lambda kind, values: counted.append((kind, values)))
    with caplog.at_level("WARNING", "k2beam"):
        for _ in range(2):
            decoder.decode(batch)
    assert counted == [("trades", ROWS)] * 2
    (record,) = caplog.records
    assert record.getMessage().startswith("the schema of a.avro has fields that no column has: flag, unit; they are")


def test_an_entry_of_the_same_name_stays_and_the_field_has_another() -> None:
    schema = evolved("trade_v2", flag={"name": "flag", "type": "int"})
    own: list[dict[str, str]] = [{}, {"flag": "own"}]
    records = [{**trade(number), "flag": number, "vendor_data": own[number % 2]} for number in range(ROWS)]
    found = [row["vendor_data"] for row in read(schema, records)]
    assert found[:2] == [{"flag": "0"}, {"flag": "own", "flag.field": "1"}]


def test_fields_of_version_1_are_kept_beside_what_has_no_column() -> None:
    schema = evolved("trade", flag={"name": "flag", "type": "int"})
    (first, *_) = read(schema, [{**trade_v1(number), "flag": 3} for number in range(ROWS)])
    assert first["vendor_data"]["flag"] == "3"
    assert first["vendor_data"]["company_id"] == "7078"


def test_a_field_that_once_had_our_name_is_ours() -> None:
    schema = evolved("trade_v2", price=None, px={"name": "px", "type": decimal(12, 4), "aliases": ["price"]})
    records = [{**trade(number), "px": Decimal("1.25")} for number in range(ROWS)]
    found = read(schema, records)
    assert {row["price"] for row in found} == {Decimal("1.25")}
    assert all("px" not in (row["vendor_data"] or {}) for row in found)


def test_a_field_can_not_be_two_of_ours() -> None:
    px = {"name": "px", "type": decimal(18, 8), "aliases": ["price", "quantity"]}
    schema = evolved("trade_v2", price=None, quantity=None, px=px)
    with pytest.raises(SchemaError, match="the writer's field 'px' has, by name and aliases, 2 fields of trade_v2"):
        WriterSchema.parse(json.dumps(schema))


def decimal(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


class Variant:
    """A random variant of one of our schemas that Avro's rules resolve, and records of it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.name = self.random.choice(["trade_v2", "quote_v2"])
        self.schema = avro_schema(self.name)
        self.reader = avro_schema(self.name)
        self.renamed: dict[str, str] = {}
        self.added: dict[str, Any] = {}
        changes = [self._leave_out, self._rename, self._narrow, self._add, self._add, self._scale]
        for change in self.random.sample(changes, self.random.randint(1, len(changes))):
            change()
        if self.random.random() < 0.5:
            self.random.shuffle(self.schema["fields"])

    def _fields(self) -> list[dict[str, Any]]:
        return [one for one in self.schema["fields"] if one["name"] not in self.added]

    def _leave_out(self) -> None:
        optional = [one for one in self._fields() if "default" in one and one["name"] not in self.renamed.values()]
        if optional:
            self.schema["fields"].remove(self.random.choice(optional))

    def _rename(self) -> None:
        field = self.random.choice(self._fields())
        if field["name"] in self.renamed.values():
            return
        new = f"x_{field['name']}"
        self.renamed[field["name"]] = new
        next(one for one in self.reader["fields"] if one["name"] == field["name"])["aliases"] = [new]
        field["aliases"] = [field["name"]]
        field["name"] = new

    def _narrow(self) -> None:
        """A writer from before a type was widened, or one that never writes null."""
        for field in self._fields():
            if field["type"] == ["null", "long"]:
                field["type"] = self.random.choice([["null", "int"], "long", "int", ["long", "null"]])
                field.pop("default", None)

    def _scale(self) -> None:
        for field in self._fields():
            if isinstance(field["type"], dict) and field["type"].get("logicalType") == "decimal":
                field["type"] = decimal(*self.random.choice([(18, 8), (12, 2), (30, 10), (38, 18)]))

    def _add(self) -> None:
        name = f"new_{len(self.added)}"
        avro_type = copy.deepcopy(self.random.choice([kind for kind, _, _ in CASES if kind != "null"]))
        if isinstance(avro_type, dict) and "name" in avro_type:
            avro_type["name"] += str(len(self.added))
        self.added[name] = avro_type
        place = self.random.randint(0, len(self.schema["fields"]))
        self.schema["fields"].insert(place, {"name": name, "type": avro_type})

    def records(self) -> list[dict[str, Any]]:
        make = trade if self.name == "trade_v2" else quote
        found = []
        for number in range(ROWS):
            record = {self.renamed.get(key, key): value for key, value in make(number).items()}
            record |= {name: self._value(avro_type) for name, avro_type in self.added.items()}
            for field in self.schema["fields"]:
                if record.get(field["name"]) is None and field["type"] in ("long", "int"):
                    record[field["name"]] = number
                if isinstance(field["type"], dict) and field["name"] not in self.added and "scale" in field["type"]:
                    record[field["name"]] = round(record[field["name"]], field["type"]["scale"])
            found.append(record)
        return found

    def _value(self, avro_type: Any) -> Any:
        same = [value for kind, value, _ in CASES if _kind_of(kind) == _kind_of(avro_type)]
        return self.random.choice(same)


def _kind_of(avro_type: Any) -> Any:
    if isinstance(avro_type, dict):
        return {key: value for key, value in avro_type.items() if key != "name"}
    return avro_type


def resolver(variant: Variant) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What fastavro reads of a record with our schema. Its decimals must have the writer's scale: they are set."""
    reader = copy.deepcopy(variant.reader)
    types = {one["name"]: one["type"] for one in variant.schema["fields"]}
    for field in reader["fields"]:
        if isinstance(field["type"], dict) and field["type"].get("logicalType") == "decimal":
            field["type"] = types[variant.renamed.get(field["name"], field["name"])]
    schemas = fastavro.parse_schema(variant.schema), fastavro.parse_schema(reader)

    def resolved(record: dict[str, Any]) -> dict[str, Any]:
        found: Any = fastavro.schemaless_reader(io.BytesIO(encode(schemas[0], record)), *schemas)
        return dict(found)

    return resolved


def texts_of(variant: Variant, record: dict[str, Any]) -> dict[str, str]:
    """The entries that the added fields are to have, by the table of cases."""
    found = {}
    for name, avro_type in variant.added.items():
        same = ((value, text) for kind, value, text in CASES if _kind_of(kind) == _kind_of(avro_type))
        text = next(text for value, text in same if type(value) is type(record[name]) and value == record[name])
        if text is not None:
            found[name] = text
    return found


@pytest.mark.parametrize("hundred", range(10))
def test_a_thousand_variants_are_read_as_fastavro_reads_them_and_lose_nothing(hundred: int) -> None:
    for seed in range(100 * hundred, 100 * hundred + 100):
        variant = Variant(seed)
        records = variant.records()
        found, resolved = read(variant.schema, records), resolver(variant)
        for record, row in zip(records, found, strict=True):
            expected = resolved(record)
            texts = texts_of(variant, record)
            vendor = expected.pop("vendor_data")
            assert (row["vendor_data"] or {}) == (vendor or {}) | texts, (seed, variant.schema)
            assert {name: row[name] for name in expected} == expected, (seed, variant.schema)
