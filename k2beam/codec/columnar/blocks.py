"""Where the records of a container block end: what must be known before they can be read in lanes.

This only hops from one length to the next, and believes what it finds. The lanes then read each record strictly
from its start to its end, and a chain of records that begins with the block, ends with it and holds at every link is
the right one. So a wrong hop costs time, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from k2beam.arrays import Ints
from k2beam.codec.avro_schema import NULL, Array, AvroType, Fixed, Map, Primitive, Record, Union, without_null

_SPAN, _VARINT, _FIXED, _GROUP = range(4)
_SIZES = {"boolean": 1, "float": 4, "double": 8}

# Alternatives begin with different bytes and numbers are possessive, so that a pattern never goes back to try again.
_NUMBER = rb"[\x80-\xff]*+[\x00-\x7f]"
_SHORT_SPAN = b"(?:%s)" % b"|".join(b"\\x%02x.{%d}" % (2 * length, length) for length in range(64))
_PATTERN_ITEMS = 3
_LONGEST_PATTERN = 1 << 17


class Hop(NamedTuple):
    """How to pass a value: its kind, the byte of its null branch (-1: none), its size if fixed, its items' hops."""

    kind: int
    null: int = -1
    size: int = 0
    items: tuple[Hop, ...] = ()


class RecordPath(NamedTuple):
    """The hops over a record, and the same as a pattern, which passes most records five times as fast."""

    hops: tuple[Hop, ...]
    pattern: re.Pattern[bytes] | None


def path_of(record: Record) -> RecordPath:
    """The path over a record whose types are all columnar."""
    hops = tuple(_hop(field.type) for field in record.fields)
    pattern = _pattern(hops)
    # Compiling takes its time: a thousand fields are not worth it.
    return RecordPath(hops, re.compile(pattern, re.DOTALL) if len(pattern) <= _LONGEST_PATTERN else None)


class Walk(NamedTuple):
    """The records of the blocks that could be walked, one after the other.

    ``data`` is those blocks, ``offsets`` where its records start, and the end; of each record, the number of its
    block and its place in it.
    """

    data: bytes
    offsets: Ints
    numbers: Ints
    places: Ints


def walk_blocks(blocks: Sequence[tuple[bytes, int]], path: RecordPath) -> Walk:
    """The records of ``blocks``, each with its count. Blocks that do not come out even are left out."""
    parts: list[bytes] = []
    offsets = [np.zeros(1, dtype=np.int64)]
    numbers = [np.zeros(0, dtype=np.int64)]
    places = [np.zeros(0, dtype=np.int64)]
    size = 0
    for number, (block, count) in enumerate(blocks):
        ends = record_ends(block, count, path)
        if ends is None:
            continue
        parts.append(block)
        offsets.append(np.array(ends, dtype=np.int64) + size)
        numbers.append(np.full(count, number, dtype=np.int64))
        places.append(np.arange(count, dtype=np.int64))
        size += len(block)
    return Walk(b"".join(parts), np.concatenate(offsets), np.concatenate(numbers), np.concatenate(places))


def record_ends(block: bytes, count: int, path: RecordPath) -> list[int] | None:
    """Where each of ``count`` records ends; None where they do not fill the block."""
    ends: list[int] = []
    match = path.pattern.match if path.pattern else _no_match
    at = 0
    try:
        for _ in range(count):
            found = match(block, at)
            at = found.end() if found else _passed(block, at, path.hops)
            if at > len(block):
                return None
            ends.append(at)
    except IndexError:
        return None
    return ends if at == len(block) else None


def _no_match(block: bytes, at: int) -> None:
    """What a path without a pattern finds."""


def _passed(data: bytes, at: int, hops: tuple[Hop, ...]) -> int:
    """The position after the values of ``hops``. Raises IndexError where that is beyond the bytes."""
    for kind, null, size, items in hops:
        if null >= 0:
            branch = data[at]
            at += 1
            if branch == null:
                continue
        if kind == _SPAN:
            length = data[at]
            at += 1
            if length >= 0x80:
                length, at = _varint(data, at - 1)
            at += length >> 1
        elif kind == _VARINT:
            while data[at] >= 0x80:
                at += 1
            at += 1
        elif kind == _FIXED:
            at += size
        else:
            at = _group_passed(data, at, items)
    return at


def _group_passed(data: bytes, at: int, items: tuple[Hop, ...]) -> int:
    """As :func:`_passed`, for an array or map in any number of blocks; their byte sizes are not used."""
    while True:
        count, at = _varint(data, at)
        if not count:
            return at
        if count & 1:
            _, at = _varint(data, at)
        for _ in range((count + 1) >> 1):
            at = _passed(data, at, items)
            if at > len(data):  # Items of a fixed size are not looked at, so a false count would go on for ever.
                raise IndexError("the items go beyond the block")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint, zig-zag as it is, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift >= 70:
            raise IndexError("no number has more than ten bytes")


def _pattern(hops: tuple[Hop, ...]) -> bytes:
    """The common encodings of values in a row: strings of up to 63 bytes, arrays and maps of up to three items."""
    return b"".join(map(_pattern_of, hops))


def _pattern_of(hop: Hop) -> bytes:
    if hop.kind == _SPAN:
        value = _SHORT_SPAN
    elif hop.kind == _VARINT:
        value = _NUMBER
    elif hop.kind == _FIXED:
        value = b".{%d}" % hop.size
    else:
        item = _pattern(hop.items)
        groups = (b"\\x%02x%s\\x00" % (2 * count, item * count) for count in range(1, _PATTERN_ITEMS + 1))
        value = b"(?:\\x00|%s)" % b"|".join(groups)
    return value if hop.null < 0 else b"(?:\\x%02x|\\x%02x%s)" % (hop.null, 2 - hop.null, value)


def _hop(avro_type: AvroType) -> Hop:
    inner, nullable = without_null(avro_type)
    null = 2 * avro_type.branches.index(NULL) if nullable and isinstance(avro_type, Union) else -1
    match inner:
        case Array(items=items):
            return Hop(_GROUP, null, items=(_hop(items),))
        case Map(values=values):
            return Hop(_GROUP, null, items=(Hop(_SPAN), _hop(values)))
        case Fixed(size=size):
            return Hop(_FIXED, null, size)
        case Primitive(name=name) if name in _SIZES:
            return Hop(_FIXED, null, _SIZES[name])
        case Primitive(name="string" | "bytes"):
            return Hop(_SPAN, null)
    return Hop(_VARINT, null)
