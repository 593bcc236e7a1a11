"""What the tests of the columnar decoder share: a reference that notes its input, and encodings at random."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from hypothesis import strategies as st

from k2beam.codec.avro_schema import Array, AvroType, Enum, Map, Primitive, Union
from k2beam.codec.reference import ReferenceDecoder
from k2beam.codec.writer_schema import Decoded, WriterSchema
from tests.codec_samples import varint

MIN_INT64 = -(2**63)


class Spy(ReferenceDecoder):
    """Notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[bytes] = []
        self.blocks: list[tuple[bytes, int]] = []

    def decode(self, payloads: pa.BinaryArray | Sequence[bytes], body_offset: int, schema: WriterSchema) -> Decoded:
        self.rows.extend(payloads.to_pylist() if isinstance(payloads, pa.Array) else payloads)
        return super().decode(payloads, body_offset, schema)

    def decode_blocks(self, blocks: Sequence[tuple[bytes, int]], schema: WriterSchema) -> Decoded:
        self.blocks.extend(blocks)
        return super().decode_blocks(blocks, schema)


def assert_same(decoded: Decoded, expected: Decoded) -> None:
    decoded.columns.validate(full=True)
    assert decoded.columns.schema == expected.columns.schema
    assert decoded.rows.tolist() == expected.rows.tolist()
    assert decoded.columns.equals(expected.columns)
    assert repr(decoded.errors) == repr(expected.errors)  # NaN in a record is not equal to itself


Encodings = st.SearchStrategy[bytes]


def long_bytes(odd: bool, low: int = MIN_INT64, high: int = 2**63 - 1) -> Encodings:
    right = st.integers(low, high).map(varint)
    return st.one_of(right, st.integers(0, 9).map(lambda size: varint(5, overlong=size))) if odd else right


def index_bytes(odd: bool, count: int) -> Encodings:
    return st.sampled_from([*range(count), *((-1, count, -65) if odd else ())]).map(varint)


def span_bytes(content: Encodings) -> Encodings:
    return content.map(lambda data: varint(len(data)) + data)


def text_bytes(odd: bool) -> Encodings:
    right = st.text(max_size=70).map(str.encode)
    return span_bytes(st.one_of(right, st.sampled_from([b"\xff", b"a\xc3", b"\xed\xa0\x80"])) if odd else right)


def decimal_bytes(odd: bool) -> Encodings:
    numbers = st.one_of(st.integers(-9, 9), st.integers(-(10**18) + 1, 10**18 - 1))
    right = st.builds(lambda number, size: number.to_bytes(size, "big", signed=True), numbers, st.integers(8, 18))
    return span_bytes(st.one_of(right, st.binary(max_size=18)) if odd else right)


def item_blocks(odd: bool, items: Encodings) -> Encodings:
    """An array or map, in one block or several, with and without their sizes."""

    def block(parts: list[bytes], sized: bool, lie: int) -> bytes:
        data = b"".join(parts)
        return varint(-len(parts)) + varint(len(data) + lie) + data if sized else varint(len(parts)) + data

    lies = st.sampled_from([0, 0, 0, 1, -1] if odd else [0])
    one = st.builds(block, st.lists(items, min_size=1, max_size=4), st.booleans(), lies)
    return st.lists(one, max_size=2).map(lambda blocks: b"".join(blocks) + varint(0))


def primitive_bytes(odd: bool, primitive: Primitive) -> Encodings:
    match primitive:
        case Primitive(name="long", logical=logical) if logical:
            return long_bytes(odd, -62_135_596_800_000, 253_402_300_799_999)
        case Primitive(name="bytes"):
            return decimal_bytes(odd)
        case Primitive(name="string"):
            return text_bytes(odd)
        case Primitive(name="boolean"):
            return st.sampled_from([b"\x00", b"\x01", *([b"\x02"] if odd else [])])
        case Primitive(name="int"):
            return long_bytes(odd, -(2**31), 2**31 if odd else 2**31 - 1)
    return long_bytes(odd)


def encodings(odd: bool, avro_type: AvroType) -> Encodings:
    """Encodings of a type: right ones, or with ``odd`` also wrong ones."""
    match avro_type:
        case Enum(symbols=symbols):
            return index_bytes(odd, len(symbols))
        case Array(items=items):
            return item_blocks(odd, encodings(odd, items))
        case Map(values=values):
            # Keys may repeat: an error that needs no odd bytes.
            return item_blocks(odd, st.tuples(text_bytes(odd), encodings(odd, values)).map(b"".join))
        case Union(branches=(_, other)):
            there = encodings(odd, other).map(lambda data: varint(1) + data)
            return st.one_of(st.just(varint(0)), there, *([index_bytes(odd, 2)] if odd else []))
        case Primitive():
            return primitive_bytes(odd, avro_type)
    raise AssertionError(avro_type)


def rows_of(schema: WriterSchema, odd: bool) -> Encodings:
    return st.tuples(*(encodings(odd, field.type) for field in schema.tree.fields)).map(b"".join)
