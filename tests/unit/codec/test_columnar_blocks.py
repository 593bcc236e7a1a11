"""Container blocks in columns: as the reference reads them, block by block."""

from __future__ import annotations

import json
import random
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.codec.columnar.blocks import path_of, record_ends
from k2beam.codec.columnar.decoder import MIN_ROWS, ColumnarDecoder
from k2beam.codec.reference import ReferenceDecoder
from k2beam.codec.writer_schema import WriterSchema
from tests.codec_samples import (
    EVENT_SCHEMAS,
    MAKERS,
    encode_as,
    evolved,
    mutated,
    text,
    trade,
    trade_bytes,
    varint,
    writer,
)
from tests.columnar_helpers import Spy, assert_same

REFERENCE = ReferenceDecoder()
COLUMNAR = ColumnarDecoder(min_rows=0)
TRADE = writer("trade_v2")
GOOD = [encode_as("trade_v2", trade(i)) for i in range(30)]


def blocks_given_to_reference(blocks: list[tuple[bytes, int]], schema: WriterSchema = TRADE) -> list[tuple[bytes, int]]:
    spy = Spy()
    assert_same(ColumnarDecoder(spy, min_rows=0).decode_blocks(blocks, schema), REFERENCE.decode_blocks(blocks, schema))
    return spy.blocks


@pytest.mark.parametrize("name", EVENT_SCHEMAS)
def test_blocks_of_every_schema_are_taken_without_the_reference(name: str) -> None:
    bodies = [encode_as(name, MAKERS[name](i)) for i in range(30)]
    blocks = [(b"".join(bodies[:4]), 4), (bodies[4], 1), (b"".join(bodies[5:]), 25)]
    assert blocks_given_to_reference(blocks, writer(name)) == []


@pytest.mark.parametrize("name", EVENT_SCHEMAS)
def test_the_pattern_and_the_hops_pass_the_same_records(name: str) -> None:
    path = path_of(writer(name).tree)
    bodies = [encode_as(name, MAKERS[name](i)) for i in range(30)]
    assert path.pattern is not None
    assert all(path.pattern.fullmatch(body) for body in bodies)
    ends = list(accumulate(map(len, bodies)))
    assert record_ends(b"".join(bodies), 30, path) == ends
    assert record_ends(b"".join(bodies), 30, path._replace(pattern=None)) == ends


def test_what_the_pattern_does_not_know_is_passed_by_hops() -> None:
    path = path_of(TRADE.tree)
    blocks = (varint(1) + text("a")) * 2 + varint(-2) + varint(4) + text("b") * 2 + varint(0)
    bodies = [
        trade_bytes(symbol=text("x" * 64)),
        trade_bytes(symbol=text("x" * 9000)),
        trade_bytes(trade_conditions=varint(4) + text("a") * 4 + varint(0)),
        trade_bytes(trade_conditions=blocks),
    ]
    assert not any(path.pattern.match(body) for body in bodies if path.pattern)
    assert record_ends(b"".join(bodies), 4, path) == list(accumulate(map(len, bodies)))


def test_a_walk_does_not_read_on_in_endless_numbers() -> None:
    assert record_ends(trade_bytes(symbol=varint(3, overlong=8) + b"BHP"), 1, path_of(TRADE.tree)) is not None
    assert record_ends(trade_bytes(symbol=varint(3, overlong=12) + b"BHP"), 1, path_of(TRADE.tree)) is None


def test_a_walk_that_is_far_beyond_its_block_ends() -> None:
    body = encode_as("reference_data", MAKERS["reference_data"]())
    assert body.endswith(b"\x00")  # the null branch of the last field
    block = body[:-1] + varint(1) + varint(-(2**63)) + body
    assert blocks_given_to_reference([(block, 2)], writer("reference_data")) == [(block, 2)]


def test_a_schema_of_very_many_fields_has_no_pattern() -> None:
    fields = {f"f{i}": {"name": f"f{i}", "type": "string"} for i in range(400)}
    schema = evolved("trade_v2", **fields)
    parsed = WriterSchema.parse(json.dumps(schema))
    assert path_of(parsed.tree).pattern is None
    body = GOOD[0] + text("x") * 400
    assert blocks_given_to_reference([(body * 20, 20)], parsed) == []


@pytest.mark.parametrize(
    ("block", "count"),
    [
        (GOOD[0] + GOOD[1][:-1], 2),
        (GOOD[0] + b"\x00", 1),
        (GOOD[0] * 2, 1),
        (GOOD[0], 2),
        (GOOD[0] + trade_bytes(side=varint(-1)), 2),
        (GOOD[0] + trade_bytes(side=varint(9), symbol=b"\x02\xff") + GOOD[2], 3),
        (GOOD[0] + trade_bytes(symbol=varint(-1)), 2),
        (GOOD[0] + trade_bytes(price=varint(0)) + GOOD[2], 3),
        (GOOD[0] + trade_bytes(trade_conditions=(varint(1) + text("a")) * 2 + varint(0)) + GOOD[2], 3),
        (GOOD[0] + trade_bytes(trade_conditions=varint(2**62)), 2),
        (trade_bytes(symbol=b"\x80" * 12), 1),
    ],
)
def test_a_block_with_an_odd_row_is_the_reference_s(block: bytes, count: int) -> None:
    good = (b"".join(GOOD), len(GOOD))
    assert blocks_given_to_reference([good, (block, count), good]) == [(block, count)]


@pytest.mark.parametrize("block", [(b"", 0), (GOOD[0], 0), (GOOD[0], -1), (GOOD[0], 2**40)])
def test_blocks_with_a_count_that_can_t_be_are_the_reference_s(block: tuple[bytes, int]) -> None:
    blocks = [(GOOD[0] * 3, 3), block, (GOOD[1], 1)]
    assert blocks_given_to_reference(blocks) == blocks


def test_a_false_count_of_items_that_no_byte_is_read_of_comes_to_an_end() -> None:
    schema = evolved("trade_v2", extra={"name": "extra", "type": {"type": "array", "items": "double"}})
    block = GOOD[0] + varint(2**62) + bytes(40)
    assert blocks_given_to_reference([(block, 1)], WriterSchema.parse(json.dumps(schema))) == [(block, 1)]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(EVENT_SCHEMAS), st.randoms(use_true_random=False))
def test_mutated_blocks_decode_as_in_the_reference(name: str, rng: random.Random) -> None:
    seeds = [encode_as(name, MAKERS[name](i)) for i in range(4)]
    blocks = []
    for _ in range(rng.randint(1, 12)):
        count = rng.randint(1, 6)
        block = b"".join(rng.choice(seeds) for _ in range(count))
        blocks.append((mutated(block, rng) if rng.random() < 0.4 else block, count))
    schema = writer(name)
    assert_same(COLUMNAR.decode_blocks(blocks, schema), REFERENCE.decode_blocks(blocks, schema))


def test_a_few_records_go_to_the_reference_at_once() -> None:
    spy = Spy()
    decoder = ColumnarDecoder(spy)
    decoder.decode_block(GOOD[0] * (MIN_ROWS - 1), MIN_ROWS - 1, TRADE)
    assert len(spy.blocks) == 1
    decoder.decode_block(GOOD[0] * MIN_ROWS, MIN_ROWS, TRADE)
    assert len(spy.blocks) == 1
