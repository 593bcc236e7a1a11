"""A digest of rows that does not depend on their order: what a rewrite of files must leave as it was.

A row's hash has 128 bits, in two lanes that are counted apart; the digest of rows is the sum of their hashes, so that a
row which is there twice counts twice. It tells whether two sets of rows are the same unless somebody chose them to
deceive it; :mod:`k2beam.audit.compare` has a cryptographic one, a hundred times slower. Pins keep it for years, so what
it is of the same rows must never change: a number counts as it does with eight places, which columns had first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2beam.arrays import Ints, Mask, mask_of
from k2beam.codec.decimals import words_of

HashWords = npt.NDArray[np.uint64]
"""Any 64 bits each."""
HashLanes = tuple[HashWords, HashWords]
"""The two halves of the hashes of some rows."""

ORIGIN_COLUMNS = ("_source", "_partition", "_offset", "_offset_last")
"""Where a row comes from; tables without offsets have none of them."""

_FACTORS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93))
_SEEDS = (np.uint64(0x243F6A8885A308D3), np.uint64(0x13198A2E03707344))
_NULL = np.uint64(0xA4093822299F31D0)
_HALF = np.uint64(32)
_MODULUS = 1 << 64
_PLACES = 8
_MORE_PLACES = np.uint64(0x452821E638D01377)
_SLICE_ROWS = 1 << 14
"""Rows hashed at once: what is computed for them stays in the processor's cache."""
_LONG = 256
"""Bytes from which a value is hashed by itself: the others of its column are not to wait for its end."""
_TAILS = np.array([(1 << (8 * size)) - 1 for size in range(9)], dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class RowDigest:
    """How many rows, and the sums of the hashes of all their columns and of their origins (32 hex digits each)."""

    rows: int = 0
    content: tuple[int, int] = (0, 0)
    origins: tuple[int, int] = (0, 0)

    def __add__(self, other: RowDigest) -> RowDigest:
        return RowDigest(
            self.rows + other.rows, _added(self.content, other.content), _added(self.origins, other.origins)
        )

    def __str__(self) -> str:
        return f"{self.content[0]:016x}{self.content[1]:016x}"


def digest_rows(rows: pa.Table | pa.RecordBatch) -> RowDigest:
    """The digest of some rows. Names of columns count, their order does not, nor how a text is encoded in memory.

    Raises TypeError for a type of column that no table has.
    """
    digest = RowDigest()
    for batch in rows.to_batches(_SLICE_ROWS) if isinstance(rows, pa.Table) else [rows]:
        for start in range(0, batch.num_rows, _SLICE_ROWS):
            digest += _digest(batch.slice(start, _SLICE_ROWS))
    return digest


def _digest(batch: pa.RecordBatch) -> RowDigest:
    columns = {name: _hashed(batch.column(name)) for name in sorted(batch.schema.names)}
    origins = [columns[name] for name in ORIGIN_COLUMNS if name in columns]
    return RowDigest(
        batch.num_rows, _sum(_combined(list(columns.values()))), _sum(_combined(origins)) if origins else (0, 0)
    )


def _sum(lanes: HashLanes) -> tuple[int, int]:
    return int(lanes[0].sum()), int(lanes[1].sum())


def _added(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return (one[0] + other[0]) % _MODULUS, (one[1] + other[1]) % _MODULUS


def _combined(columns: list[HashLanes]) -> HashLanes:
    lanes = _seeded(len(columns[0][0]))
    for column in columns:
        _absorb(lanes, column)
    # Once more, so that the last column reaches all bits.
    for lane, factor in zip(lanes, _FACTORS, strict=True):
        np.multiply(lane, factor, out=lane)
        np.bitwise_xor(lane, lane >> _HALF, out=lane)
    return lanes


def _seeded(count: int) -> HashLanes:
    return np.full(count, _SEEDS[0]), np.full(count, _SEEDS[1])


def _absorb(lanes: HashLanes, words: HashLanes) -> None:
    """Take a word more into each hash, in place. For a given hash, no two words give the same."""
    for lane, word, factor in zip(lanes, words, _FACTORS, strict=True):
        np.bitwise_xor(lane, word, out=lane)
        np.multiply(lane, factor, out=lane)
        np.bitwise_xor(lane, lane >> _HALF, out=lane)


def _hashed(column: pa.Array) -> HashLanes:
    """The hash of each value of a column."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        values = _hashed(column.dictionary)
        codes = np.asarray(column.indices.fill_null(0))
        lanes: HashLanes = (values[0][codes], values[1][codes]) if len(values[0]) else _seeded(len(column))
    else:
        lanes = _seeded(len(column))
        _absorb_values(lanes, column, kind)
    if column.null_count:
        valid = mask_of(column.is_valid())
        for lane in lanes:
            lane[~valid] = _NULL
    return lanes


def _absorb_values(lanes: HashLanes, column: pa.Array, kind: pa.DataType) -> None:
    if pa.types.is_struct(kind):
        for child in column.flatten():
            _absorb(lanes, _hashed(child))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        _absorb_lists(lanes, column, kind)
    elif kind in (pa.string(), pa.binary(), pa.large_string(), pa.large_binary()):
        _absorb_texts(lanes, column)
    elif pa.types.is_fixed_size_binary(kind) and not pa.types.is_decimal(kind):
        _absorb_texts(lanes, column.cast(pa.binary()))
    else:
        for word in _fixed(column, kind):
            _absorb(lanes, (word, word))


def _fixed(column: pa.Array, kind: pa.DataType) -> list[HashWords]:
    """The words of values that all take as many bytes."""
    if pa.types.is_null(kind):
        return []
    if pa.types.is_decimal(kind) and kind.scale > _PLACES:
        return _decimals(column)
    if pa.types.is_boolean(kind):
        return [mask_of(column.fill_null(False)).astype(np.uint64)]
    if not kind.bit_width % 8 and kind.bit_width in (8, 16, 32, 64, 128):
        size = kind.bit_width // 8
        data = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * size : (column.offset + len(column)) * size]
        if size < 8:
            # Signed, so that a number has the same hash in 32 and in 64 bits.
            return [data.view(f"<i{size}").astype(np.int64).view(np.uint64)]
        words = data.view("<u8").reshape(len(column), size // 8)
        return [words[:, position] for position in range(size // 8)]
    raise TypeError(f"a column of {kind} has no hash")


def _decimals(column: pa.Array) -> list[HashWords]:
    """The two words of numbers with eight places; of one that has more, those that it has, marked."""
    column = column.fill_null(0)
    short = column.cast(pa.decimal128(column.type.precision, _PLACES), safe=False)
    more = mask_of(pc.not_equal(short.cast(column.type), column))
    return [
        np.where(more, whole ^ _MORE_PLACES, eight)
        for whole, eight in zip(words_of(column).view("<u8").T, words_of(short).view("<u8").T, strict=True)
    ]


def _ends(column: pa.Array) -> tuple[Ints, Ints]:
    """Where the values of a column of texts or lists begin in its data, and how long they are; a null has none."""
    wide = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
    wide = wide or pa.types.is_large_list(column.type)
    buffer = column.buffers()[1]
    offsets = np.frombuffer(buffer, np.int64 if wide else np.int32)[column.offset : column.offset + len(column) + 1]
    starts, lengths = offsets[:-1].astype(np.int64), np.diff(offsets).astype(np.int64)
    if column.null_count:
        lengths[~mask_of(column.is_valid())] = 0
    return starts, lengths


def _absorb_texts(lanes: HashLanes, column: pa.Array) -> None:
    if not len(column):
        return
    starts, lengths = _ends(column)
    data = column.buffers()[2]
    first, last = int(starts[0]), int((starts + lengths).max())
    held = np.zeros(max(last - first, 0) + 8, dtype=np.uint8)
    if data is not None:
        held[: max(last - first, 0)] = np.frombuffer(data, np.uint8)[first:last]
    starts = starts - first
    # The eight bytes from each byte on, as one word.
    words: HashWords = np.ndarray((len(held) - 7,), "<u8", held, strides=(1,))
    _absorb(lanes, (lengths.view(np.uint64), lengths.view(np.uint64)))
    long = lengths > _LONG
    _absorb_long(lanes, held, starts, lengths, long)
    lengths[long] = 0

    def word(position: int, active: Any) -> HashLanes:
        left = np.minimum(lengths[active] - 8 * position, 8)
        found = words[starts[active] + 8 * position] & _TAILS[left]
        return found, found

    _absorb_positions(lanes, -(-lengths // 8), word)


def _absorb_long(lanes: HashLanes, held: npt.NDArray[np.uint8], starts: Ints, lengths: Ints, long: Mask) -> None:
    for row in np.flatnonzero(long).tolist():
        value = held[starts[row] : starts[row] + lengths[row]]
        halves = np.frombuffer(hashlib.blake2b(value.tobytes(), digest_size=16).digest(), "<u8")
        _absorb((lanes[0][row : row + 1], lanes[1][row : row + 1]), (halves[:1], halves[1:]))


def _absorb_lists(lanes: HashLanes, column: pa.Array, kind: pa.DataType) -> None:
    starts, counts = _ends(column)
    _absorb(lanes, (counts.view(np.uint64), counts.view(np.uint64)))
    if not counts.any():
        return
    first, last = int(starts[0]), int((starts + counts).max())
    if pa.types.is_map(kind):
        parts = [column.keys.slice(first, last - first), column.items.slice(first, last - first)]
        items = _combined([_hashed(part) for part in parts])
    else:
        items = _hashed(column.values.slice(first, last - first))
    starts = starts - first

    def item(position: int, active: Any) -> HashLanes:
        where = starts[active] + position
        return items[0][where], items[1][where]

    _absorb_positions(lanes, counts, item)


def _absorb_positions(lanes: HashLanes, counts: Ints, word: Callable[[int, Any], HashLanes]) -> None:
    """Take the words of each row in, one after the other; rows have different numbers of them."""
    least, most = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
    for position in range(least):
        _absorb(lanes, word(position, slice(None)))
    active = np.flatnonzero(counts > least)
    for position in range(least, most):
        active = active[counts[active] > position]
        part: HashLanes = (lanes[0][active], lanes[1][active])
        _absorb(part, word(position, active))
        lanes[0][active], lanes[1][active] = part
