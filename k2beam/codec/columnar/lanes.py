"""Many payloads read at once: one cursor a payload, moved together by numpy.

A *lane* is one payload with its cursor. Each step reads the same item of every lane (Avro 1.11 specification,
"Binary Encoding"). What a step can't read, or won't, makes the lane ``bad``; the cursor of such a lane stands at
its end from then on, so that whatever is read of it later is inside the buffer and never used.

The invariant that keeps every read inside: a step begins with cursors that are not beyond their lane's end, and the
buffer has :data:`PADDING` bytes more than its lanes, which is more than any step looks ahead before it has checked.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from k2beam.arrays import Bytes, Ints, Mask

PADDING = 32

Words = npt.NDArray[np.uint64]

_CONTINUE = 0x80
_ONE = np.uint64(1)
_STOPS = np.uint64(0x8080_8080_8080_8080)
_GROUPS = np.uint64(0x7F7F_7F7F_7F7F_7F7F)
_SQUEEZE = (
    (np.uint64(0x007F_007F_007F_007F), np.uint64(0x7F00_7F00_7F00_7F00), np.uint64(1)),
    (np.uint64(0x0000_3FFF_0000_3FFF), np.uint64(0x3FFF_0000_3FFF_0000), np.uint64(2)),
    (np.uint64(0x0000_0000_0FFF_FFFF), np.uint64(0x0FFF_FFFF_0000_0000), np.uint64(4)),
)
"""Eight groups of seven bits to 56 bits: pairs, then pairs of pairs, then halves are pushed together."""


class Buffer:
    """The bytes of some payloads and their padding, as bytes and as the little-endian word at each byte."""

    __slots__ = ("data", "words")

    def __init__(self, data: memoryview) -> None:
        self.data: Bytes = np.zeros(len(data) + PADDING, dtype=np.uint8)
        self.data[: len(data)] = np.frombuffer(data, dtype=np.uint8)
        self.words: Words = np.ndarray((len(data) + PADDING - 7,), dtype="<u8", buffer=self.data, strides=(1,))


class Lanes:
    """Cursors (``position``) over ``buffer``, where each lane ends, and which lanes are bad."""

    __slots__ = ("bad", "buffer", "end", "position")

    def __init__(self, buffer: Buffer, position: Ints, end: Ints) -> None:
        self.buffer = buffer
        self.position = position
        self.end = end
        self.bad: Mask = np.zeros(len(position), dtype=np.bool_)

    def __len__(self) -> int:
        return len(self.position)

    def subset(self, lanes: npt.NDArray[np.intp]) -> Lanes:
        """Some of the lanes, to be moved on their own and given back by :meth:`join`."""
        return Lanes(self.buffer, self.position[lanes], self.end[lanes])

    def join(self, lanes: npt.NDArray[np.intp], moved: Lanes) -> None:
        """Takes over where the cursors of a subset stand."""
        self.position[lanes] = moved.position
        self.bad[lanes] |= moved.bad

    def drop(self, mask: Mask) -> bool:
        """Makes lanes bad, their cursors at their ends; says whether there were any."""
        if not mask.any():
            return False
        self.bad |= mask
        self.position = np.where(mask, self.end, self.position)
        return True

    def close(self) -> None:
        """Drops the lanes that have bytes left."""
        self.drop(self.position != self.end)

    def unsigned(self) -> Words:
        """A varint of each lane, one to ten bytes; overlong and overflowing ones and cut ones are dropped."""
        word = self.buffer.words[self.position]
        stop = ~word & _STOPS
        stop &= ~stop + _ONE  # the lowest: where the varint ends; 0 where eight bytes don't hold it
        below = stop - _ONE
        value = word & below & _GROUPS
        bad = value < (stop >> np.uint64(7) & ~_ONE)  # the last group is zero, and not the only one
        size = (np.bitwise_count(below) >> 3) + 1
        for low, high, shift in _SQUEEZE:
            value = value & low | (value & high) >> shift
        if not stop.all():
            self._add_long_ones(np.flatnonzero(stop == 0), value, size, bad)
        self.position = self.position + size
        bad |= self.position > self.end
        self.drop(bad)
        return value

    def _add_long_ones(self, lanes: npt.NDArray[np.intp], value: Words, size: Bytes, bad: Mask) -> None:
        """Varints of nine and ten bytes, of which ``value`` has 56 bits; the tenth byte can only be 1."""
        at = self.position[lanes] + 8
        ninth, tenth = self.buffer.data[at], self.buffer.data[at + 1]
        ends = ninth < _CONTINUE
        value[lanes] |= (ninth & 0x7F).astype(np.uint64) << 56 | np.where(ends, 0, tenth).astype(np.uint64) << 63
        size[lanes] = np.where(ends, 9, 10)
        bad[lanes] = np.where(ends, ninth == 0, tenth != 1)

    def longs(self) -> Ints:
        """A long of each lane."""
        return _signed(self.unsigned())

    def small(self) -> Ints:
        """A long of each lane, quick where it takes one byte, as lengths and indices do.

        The cursor is *not* checked against the end of the lane, which it may have passed: the caller must.
        """
        byte = self.buffer.data[self.position]
        value = (byte >> 1 ^ -(byte & 1)).view(np.int8).astype(np.int64)
        long = byte >= _CONTINUE
        if not long.any():
            self.position = self.position + 1
            return value
        lanes = np.flatnonzero(long)
        rest = self.subset(lanes)
        value[lanes] = rest.longs()
        self.position = self.position + 1
        self.join(lanes, rest)
        # The longs that were cut stand at their lane's end, where their value would pass for a length.
        value[lanes[rest.bad]] = -1
        return value

    def sizes(self, most: int | None = None) -> Ints:
        """A length of each lane, from 0 to the bytes left (and to ``most``); others are 0, and dropped."""
        return self.within(self.small(), most)

    def within(self, value: Ints, most: int | None = None) -> Ints:
        """``value`` where it is a length or count as :meth:`sizes` gives it; others are 0, and dropped."""
        bad = (value < 0) | (value > self.end - self.position)
        if most is not None:
            bad |= value > most
        return np.where(bad, 0, value) if self.drop(bad) else value

    def indices(self, count: int) -> Ints:
        """An index of each lane in 0 to ``count`` - 1; others are 0, and dropped."""
        value = self.small()
        bad = (value < 0) | (value >= count) | (self.position > self.end)
        return np.where(bad, 0, value) if self.drop(bad) else value

    def spans(self, length: Ints) -> Ints:
        """Passes over ``length`` bytes (checked by :meth:`sizes`) of each lane; gives where they start."""
        start = self.position
        self.position = start + length
        return start

    def take(self, size: int) -> tuple[Ints, Ints]:
        """Start and length of ``size`` bytes of each lane; a lane that has fewer is dropped, and its length 0."""
        length = np.full(len(self), size, dtype=np.int64)
        bad = self.end - self.position < size
        if self.drop(bad):
            length[bad] = 0
        return self.spans(length), length


def _signed(value: Words) -> Ints:
    """Zig-zag undone."""
    return (value >> 1).view(np.int64) ^ -(value & 1).view(np.int64)
