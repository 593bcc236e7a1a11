"""Raw and block batches to event batches and dead letters."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from k2beam.codec.batches import BatchDecoder, DecodedBatch, dead_letters_of_events
from k2beam.codec.columnar.decoder import ColumnarDecoder
from k2beam.codec.dead_letters import Failure
from k2beam.codec.frame import HEADER_BYTES, SCHEMA_HEADER
from k2beam.codec.reference import ReferenceDecoder
from k2beam.codec.writer_schema import Decoder
from k2beam.errors import SchemaError, UnsupportedSchema
from k2beam.lake.rows import dead_letter_rows
from k2beam.model import RAW_BATCH_SCHEMA, Block, BlockBatch, DeadLetterBatch, RawBatch
from k2beam.schemas import avro_schema, event_arrow_schema
from tests.codec_samples import (
    MAKERS,
    START,
    encode_as,
    encode_event,
    framed,
    quote,
    reference,
    reference_v1,
    text,
    trade,
    trade_bytes,
    varint,
)

NOW = 1_700_000_000_000_000
KAFKA = "kafka:c/trades/t"
IDS = {1: "trade", 2: "quote", 3: "reference_data", 4: "trade_v2", 5: "quote_v2", 6: "reference_data_v2"}
SCHEMAS = tuple((schema_id, json.dumps(avro_schema(name))) for schema_id, name in IDS.items())


def raw(values: list[bytes | None], *, source: str = KAFKA, path: str = "", **changes: Any) -> RawBatch:
    columns: dict[str, list[Any]] = {
        "source": [source] * len(values),
        "partition": [2] * len(values),
        "offset": [10 * i for i in range(len(values))],
        "timestamp": [START + timedelta(seconds=i) for i in range(len(values))],
        "key": [b"key"] * len(values),
        "value": values,
        "headers": [[{"key": "h", "value": b"1"}, {"key": "n", "value": None}]] * len(values),
        **changes,
    }
    arrays = [pa.array(columns[field.name], type=field.type) for field in RAW_BATCH_SCHEMA]
    return RawBatch(pa.RecordBatch.from_arrays(arrays, schema=RAW_BATCH_SCHEMA), path, SCHEMAS)


DECODER: Decoder = ReferenceDecoder()


@pytest.fixture(autouse=True, params=[ReferenceDecoder(), ColumnarDecoder(min_rows=0)], ids=["reference", "columnar"])
def _each_decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.DECODER", request.param)


def decode(batch: RawBatch | BlockBatch, lookup: Any = None) -> DecodedBatch:
    decoded = BatchDecoder(DECODER, lambda: NOW, lookup).decode(batch)
    for events in decoded.events:
        events.data.validate(full=True)
        assert events.data.schema == event_arrow_schema(events.kind)
    return decoded


def body(schema_id: int, i: int = 0, **changes: Any) -> bytes:
    name = IDS[schema_id]
    return framed(encode_as(name, MAKERS[name](i, **changes)), schema_id)


def test_a_mixed_batch_gives_one_event_batch_a_kind_in_the_order_of_the_rows() -> None:
    order = [4, 1, 6, 5, 1, 4, 2, 3, 4]
    decoded = decode(raw([body(schema_id, i) for i, schema_id in enumerate(order)]))
    assert decoded.dead_letters == ()
    offsets = {events.kind: events.data.column("_offset").to_pylist() for events in decoded.events}
    assert offsets == {"trades": [0, 10, 40, 50, 80], "quotes": [30, 60], "reference_data": [20, 70]}
    trades = next(events for events in decoded.events if events.kind == "trades").data
    assert trades.column("message_id").to_pylist()[::3] == ["m-0", "m-5"]
    assert trades.column("trade_id").to_pylist() == ["t-0", "1", "4", "t-5", "t-8"]


def test_provenance_is_in_the_columns() -> None:
    (events,) = decode(raw([body(4), body(4, 1)])).events
    last = events.data.slice(1).to_pylist(maps_as_pydicts="strict")[0]
    assert {name: last.pop(name) for name in ("_source", "_partition", "_offset")} == {
        "_source": KAFKA,
        "_partition": 2,
        "_offset": 10,
    }
    assert last.pop("_ingested_at").timestamp() * 1e6 == NOW
    assert last == trade(1)


def test_live_rows_have_the_time_of_the_log_and_replayed_ones_that_of_the_event() -> None:
    times: list[Any] = [START + timedelta(hours=1), None]
    values: list[bytes | None] = [body(4), body(4)]
    (live,) = decode(raw(values, timestamp=times)).events
    assert live.element_time is not None
    assert live.element_time.to_pylist() == [START + timedelta(hours=1), START]
    for batch in (raw(values, path="a.avro"), raw(values, source="archive:x")):
        assert decode(batch).events[0].element_time is None


@pytest.mark.parametrize(
    ("value", "stage", "error_class", "schema_id"),
    [
        (None, "frame", "tombstone", None),
        (b"", "frame", "empty_payload", None),
        (b'{"price": 1}', "frame", "bad_magic", None),
        (b"\x00\x00", "frame", "short_frame", None),
        (framed(b"x", 99), "schema", "unknown_schema_id", 99),
        (framed(trade_bytes()[:-3], 4), "decode", "truncated", 4),
        (framed(trade_bytes() + b"\x00", 4), "decode", "trailing_bytes", 4),
        (framed(trade_bytes(source_sequence=varint(-1) + varint(1)), 4), "decode", "bad_union_index", 4),
        (framed(trade_bytes(symbol=varint(2**40)), 4), "decode", "truncated", 4),
        (framed(trade_bytes(trade_conditions=varint(2**40)), 4), "decode", "truncated", 4),
        (framed(trade_bytes(price=varint(0)), 4), "decode", "bad_decimal", 4),
        (body(3, start_date="x"), "normalise", "bad_date", 3),
    ],
)
def test_each_bad_message_is_one_letter_with_all_that_came_with_it(
    value: bytes | None, stage: str, error_class: str, schema_id: int | None
) -> None:
    decoded = decode(raw([body(4), value, body(4)]))
    (dead_letter,) = decoded.dead_letters
    assert (dead_letter.stage, dead_letter.error_class, dead_letter.schema_id) == (stage, error_class, schema_id)
    assert (dead_letter.source, dead_letter.partition, dead_letter.offset, dead_letter.last) == (KAFKA, 2, 10, 10)
    assert dead_letter.timestamp == int((START + timedelta(seconds=1)).timestamp() * 1e6)
    assert (dead_letter.key, dead_letter.payload, dead_letter.failed_at) == (b"key", value, NOW)
    assert dead_letter.headers == (("h", b"1"), ("n", None))
    assert (dead_letter.record_json is not None) == (stage == "normalise" or error_class == "bad_decimal")
    assert decoded.events[0].data.column("_offset").to_pylist() == [0, 20]


def test_the_record_is_kept_where_it_was_decoded() -> None:
    bad_value = framed(trade_bytes(price=varint(9) + (10**18).to_bytes(9, "big")), 4)
    dead_letters = decode(raw([body(3, 7, end_date="x"), bad_value])).dead_letters
    assert json.loads(dead_letters[0].record_json or "") == reference_v1(7, end_date="x")
    record = json.loads(dead_letters[1].record_json or "")
    assert (record["price"], record["timestamp"]) == ("10000000000", "2023-11-14T22:13:20.000000Z")


def test_letters_are_in_the_order_of_the_rows() -> None:
    values = [framed(b"", 99), None, framed(trade_bytes() + b"0", 4), b"", framed(b"", 98), body(4)]
    assert [dead_letter.offset for dead_letter in decode(raw(values)).dead_letters] == [0, 10, 20, 30, 40]


def test_a_log_time_beyond_the_calendar_is_kept() -> None:
    batch = raw([None])
    far = pa.array([2**62], type=pa.int64()).cast(RAW_BATCH_SCHEMA.field("timestamp").type)
    data = batch.data.set_column(3, RAW_BATCH_SCHEMA.field("timestamp"), far)
    assert decode(RawBatch(data)).dead_letters[0].timestamp == 2**62


def test_schemas_that_came_along_win_over_the_registry() -> None:
    asked: list[int] = []

    def lookup(schema_id: int) -> str:
        asked.append(schema_id)
        if schema_id != 50:
            raise SchemaError(f"schema id {schema_id} is not in the registry")
        return json.dumps(avro_schema("quote_v2"))

    values = [body(4), framed(encode_as("quote_v2", quote()), 50), framed(b"", 51)]
    decoded = decode(raw(values), lookup)
    assert [events.kind for events in decoded.events] == ["trades", "quotes"]
    assert [dead_letter.error_message for dead_letter in decoded.dead_letters] == [
        "schema id 51 is not in the registry"
    ]
    assert asked == [50, 51]


def test_a_registry_that_is_away_makes_no_dead_letters() -> None:
    def lookup(schema_id: int) -> str:
        raise ConnectionError(f"no route for {schema_id}")

    with pytest.raises(ConnectionError):
        decode(raw([framed(b"", 50)]), lookup)


def test_an_unreadable_schema_is_told_with_its_id() -> None:
    decoded = decode(raw([framed(b"x", 7), body(4)]), lambda _: '{"type": "record", "name": "Cat", "fields": []}')
    (dead_letter,) = decoded.dead_letters
    assert (dead_letter.stage, dead_letter.error_class, dead_letter.schema_id) == ("schema", "schema_incompatible", 7)
    assert "schema id 7" in dead_letter.error_message
    assert "Cat" in dead_letter.error_message


def test_the_schema_may_be_named_in_a_header() -> None:
    guid = "12345678-1234-5678-1234-567812345678"
    text = json.dumps(avro_schema("trade_v2"))
    named = [{"key": SCHEMA_HEADER, "value": b"\x01" + uuid.UUID(guid).bytes}]
    by_id = [{"key": SCHEMA_HEADER, "value": body(4)[:HEADER_BYTES]}]
    wrong = [{"key": SCHEMA_HEADER, "value": b"?"}]
    bare = body(4)[HEADER_BYTES:]
    batch = raw([bare, body(4), bare, bare, bare, None], headers=[named, [], wrong, named, by_id, named])
    decoded = decode(batch, {guid: text}.__getitem__)
    assert [part.data.column("_offset").to_pylist() for part in decoded.events] == [[0, 10, 30, 40]]
    found = [(letter.offset, letter.stage, letter.error_class) for letter in decoded.dead_letters]
    assert found == [(20, "frame", "bad_schema_header"), (50, "frame", "tombstone")]
    (events,) = decoded.events
    assert events.origin is not None
    refused = dead_letters_of_events(events.origin, [Failure(row, "validate", "x", "m") for row in range(4)], NOW)
    assert [one.schema_id for one in refused] == [None, 4, None, 4]


def test_a_schema_of_another_type_has_a_class_of_its_own() -> None:
    def unsupported(ref: int | str) -> str:
        raise UnsupportedSchema(f"schema id {ref} is of type JSON")

    (letter,) = decode(raw([b"\x00\x00\x00\x00\x63x"]), unsupported).dead_letters
    assert (letter.error_class, letter.schema_id) == ("schema_unsupported", 99)


def test_an_empty_batch_gives_nothing() -> None:
    assert decode(raw([])) == DecodedBatch((), ())


def blocks(name: str, *parts: tuple[int, int, int, bytes], schema: str = "") -> BlockBatch:
    made = tuple(Block(first, count, position, payload) for first, count, position, payload in parts)
    return BlockBatch("archive:x", 1, "day.avro", schema or json.dumps(avro_schema(name)), made)


def test_blocks_give_events_with_the_offsets_of_their_records() -> None:
    part = [encode_as("trade_v2", trade(i)) for i in range(5)]
    batch = blocks("trade_v2", (100, 2, 0, part[0] + part[1]), (102, 0, 5, b""), (200, 3, 9, b"".join(part[2:])))
    (events,) = decode(batch).events
    assert events.element_time is None
    assert events.data.column("_offset").to_pylist() == [100, 101, 200, 201, 202]
    assert events.data.column("_partition").to_pylist() == [1] * 5
    assert events.data.column("message_id").to_pylist() == [f"m-{i}" for i in range(5)]


def test_a_broken_block_is_one_letter_for_its_offsets() -> None:
    good = trade_bytes()
    broken = good + good[:-1]
    decoded = decode(blocks("trade_v2", (0, 1, 10, good), (1, 2, 20, broken), (3, 1, 30, good)))
    (dead_letter,) = decoded.dead_letters
    assert (dead_letter.offset, dead_letter.last, dead_letter.stage, dead_letter.error_class) == (
        1,
        2,
        "decode",
        "broken_block",
    )
    assert dead_letter.payload == broken
    assert dead_letter.headers == (
        ("k2.path", b"day.avro"),
        ("k2.position", b"20"),
        ("k2.schema", b"com.k2.marketdata.TradeV2"),
    )
    assert "day.avro, block at byte 20" in dead_letter.error_message
    assert decoded.events[0].data.column("_offset").to_pylist() == [0, 3]


def test_bad_rows_of_good_blocks_are_letters_with_their_own_bytes() -> None:
    good = trade_bytes()
    bad = trade_bytes(symbol=text("BAD"), price=varint(0))
    decoded = decode(blocks("trade_v2", (0, 1, 10, good), (50, 3, 20, good + bad + good)))
    (dead_letter,) = decoded.dead_letters
    assert (dead_letter.offset, dead_letter.last, dead_letter.error_class, dead_letter.payload) == (
        51,
        51,
        "bad_decimal",
        bad,
    )
    assert json.loads(dead_letter.record_json or "")["symbol"] == "BAD"
    assert decoded.events[0].data.column("_offset").to_pylist() == [0, 50, 52]


def test_version_1_rows_that_do_not_fit_are_letters_with_their_own_bytes() -> None:
    part = [encode_as("reference_data", reference_v1(i, start_date="x" if i == 2 else "")) for i in range(4)]
    decoded = decode(blocks("reference_data", (0, 1, 0, part[0]), (7, 3, 9, b"".join(part[1:]))))
    (dead_letter,) = decoded.dead_letters
    assert (dead_letter.offset, dead_letter.stage, dead_letter.error_class) == (8, "normalise", "bad_date")
    assert dead_letter.payload == part[2]
    assert json.loads(dead_letter.record_json or "")["start_date"] == "x"
    assert decoded.events[0].data.column("_offset").to_pylist() == [0, 7, 9]


def test_one_bad_record_of_a_large_block_costs_itself() -> None:
    parts = [encode_as("trade_v2", trade(i)) for i in range(1000)]
    parts[500] = trade_bytes(side=varint(9))
    decoded = decode(blocks("trade_v2", (7000, 1000, 20, b"".join(parts))))
    (dead_letter,) = decoded.dead_letters
    assert (dead_letter.offset, dead_letter.last, dead_letter.stage, dead_letter.error_class) == (
        7500,
        7500,
        "decode",
        "bad_enum_index",
    )
    assert dead_letter.payload == parts[500]
    (events,) = decoded.events
    assert events.data.column("_offset").to_pylist() == [7000 + i for i in range(1000) if i != 500]
    assert events.data.column("message_id").to_pylist() == [f"m-{i}" for i in range(1000) if i != 500]


def test_blocks_of_an_unreadable_schema_are_a_letter_each() -> None:
    schema = json.dumps({"type": "record", "name": "x.Cat", "fields": []})
    decoded = decode(blocks("", (0, 5, 0, b"a"), (5, 1, 9, b"b"), schema=schema))
    assert [(dead_letter.offset, dead_letter.last, dead_letter.payload) for dead_letter in decoded.dead_letters] == [
        (0, 4, b"a"),
        (5, 5, b"b"),
    ]
    assert {dead_letter.error_class for dead_letter in decoded.dead_letters} == {"schema_incompatible"}
    assert decoded.dead_letters[0].headers[2] == ("k2.schema", b"x.Cat")


def test_an_event_is_encoded_as_it_was() -> None:
    for kind, name, record in (
        ("trades", "trade_v2", trade(1)),
        ("quotes", "quote_v2", quote(1)),
        ("reference_data", "reference_data_v2", reference(1)),
    ):
        assert encode_event(kind, record) == encode_as(name, record)  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["name", "field", "doc"])
def test_half_a_character_in_a_schema_makes_letters(place: str) -> None:
    schema = avro_schema("trade_v2")
    half = "\ud800"
    if place == "field":
        schema["fields"].append({"name": half, "type": "string"})
    else:
        schema[place] = f"com.k2.{half}"
    text, good = json.dumps(schema), encode_as("trade_v2", trade(0))
    for decoded in (
        decode(blocks("", (0, 2, 0, good * 2), schema=text)),
        decode(raw([framed(good, 50)]), lambda _: text),
    ):
        (dead_letter,) = decoded.dead_letters
        assert (dead_letter.stage, dead_letter.error_class) == ("schema", "schema_incompatible")
        assert "half a character" in dead_letter.error_message
        assert dead_letter_rows(DeadLetterBatch(decoded.dead_letters)).num_rows == 1


@pytest.mark.parametrize("broken", [b"junk", framed(b"x", 99)])
def test_an_event_that_is_refused_later_is_the_message_that_it_was(broken: bytes) -> None:
    values: list[bytes | None] = [broken, body(5, 1), body(4, 2), body(1, 3)]
    batch = raw(values)
    trades = next(events for events in decode(batch).events if events.kind == "trades")
    assert trades.origin is not None
    failures = [Failure(row, "validate", "empty_symbol", "symbol is empty", "{}") for row in (0, 1)]
    two, three = dead_letters_of_events(trades.origin, failures, NOW)
    assert (two.offset, two.schema_id, two.payload) == (20, 4, body(4, 2))
    assert (three.offset, three.schema_id, three.payload) == (30, 1, body(1, 3))
    assert (two.stage, two.error_class, two.record_json) == ("validate", "empty_symbol", "{}")


def test_a_record_that_is_refused_later_is_found_behind_a_bad_one() -> None:
    parts = [encode_as("trade_v2", trade(i)) for i in range(4)]
    parts[1] = trade_bytes(side=varint(9))
    batch = blocks("trade_v2", (5, 1, 10, parts[0]), (6, 3, 20, b"".join(parts[1:])))
    (events,) = decode(batch).events
    assert events.origin is not None
    (dead_letter,) = dead_letters_of_events(
        events.origin, [Failure(2, "validate", "empty_symbol", "symbol is empty")], NOW
    )
    assert (dead_letter.offset, dead_letter.last, dead_letter.payload) == (8, 8, parts[3])
    assert dict(dead_letter.headers)["k2.position"] == b"20"
