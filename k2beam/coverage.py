"""Coverage: the offsets of each source partition that a table accounts for.

A :class:`Coverage` is a set of (source, partition, offset), held as one 64-bit Roaring bitmap
for each source partition, so that a contiguous feed costs a few bytes for 65,536 offsets. It is
the only token of exactly-once: a commit carries the coverage of its rows, and whatever is covered
already is left out.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from pyroaring import BitMap64

from k2beam.arrays import Ints, Mask
from k2beam.errors import LakeError

PROPERTY_PREFIX = "k2.coverage."
"""Table properties with this prefix hold the coverage; the rest is ``<partition>.<source>``."""

LEFT_OUT_PREFIX = "k2.left-out."
"""The same of offsets that were left out by choice: their events were in the tables from elsewhere."""

FILL_PREFIX = "fill:"
"""Of sources from which only what was missing elsewhere was taken: their offsets need not follow each other."""

MOST_OFFSETS = 1 << 36
"""The longest stretch that :func:`span` builds: some 80 MB, years of the busiest partition."""


class SourcePartition(NamedTuple):
    """Where offsets count: a source and one of its partitions."""

    source: str
    partition: int


class Coverage:
    """A set of (source, partition, offset). Mutable; :meth:`copy` before sharing."""

    def __init__(self, bitmaps: Mapping[SourcePartition, BitMap64] | None = None) -> None:
        self._bitmaps: dict[SourcePartition, BitMap64] = {
            key: bitmap for key, bitmap in (bitmaps or {}).items() if bitmap
        }

    def __len__(self) -> int:
        return sum(len(bitmap) for bitmap in self._bitmaps.values())

    def __bool__(self) -> bool:
        return any(self._bitmaps.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Coverage) and self._bitmaps == other._bitmaps

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Coverage({len(self)} offsets of {len(self._bitmaps)} source partitions)"

    def __iter__(self) -> Iterator[SourcePartition]:
        return iter(sorted(self._bitmaps))

    def __getitem__(self, key: tuple[str, int]) -> BitMap64:
        """The bitmap of a source partition; empty where nothing is covered. Do not change it."""
        return self._bitmaps.get(SourcePartition(*key), BitMap64())

    def copy(self) -> Coverage:
        return Coverage({key: BitMap64(bitmap) for key, bitmap in self._bitmaps.items()})

    def add_range(self, source: str, partition: int, first: int, last: int) -> None:
        """Add the offsets ``first`` to ``last``, both included."""
        self._bitmap(source, partition).add_range(first, last + 1)

    def add_many(self, source: str, partition: int, offsets: Iterable[int]) -> None:
        """Add offsets of one source partition (an int64 array is fastest)."""
        if isinstance(offsets, np.ndarray):
            offsets = offsets.astype(np.uint64)
        self._bitmap(source, partition).update(BitMap64(offsets))

    def add_ranges(self, source: str, partition: int, firsts: Ints, lasts: Ints) -> None:
        """Add many ranges, each from its first to its last offset, both included."""
        bitmap, single = self._bitmap(source, partition), firsts == lasts
        bitmap.update(BitMap64(firsts[single].astype(np.uint64)))
        for first, last in zip(firsts[~single].tolist(), lasts[~single].tolist(), strict=True):
            bitmap.add_range(first, last + 1)

    def covered(self, source: str, partition: int, offsets: Ints) -> Mask:
        """Which of ``offsets`` are covered: a boolean array of the same length."""
        mine = self._bitmaps.get(SourcePartition(source, partition))
        if not mine or not len(offsets):
            return np.zeros(len(offsets), dtype=np.bool_)
        theirs = BitMap64(offsets.astype(np.uint64))
        both = mine & theirs
        if not both:
            return np.zeros(len(offsets), dtype=np.bool_)
        if len(both) == len(theirs):
            return np.ones(len(offsets), dtype=np.bool_)
        hits = np.fromiter(both, dtype=np.int64, count=len(both))
        return np.isin(offsets, hits)

    def update(self, other: Coverage) -> None:
        """Add all of ``other``."""
        for key, bitmap in other._bitmaps.items():
            self._bitmap(*key).update(bitmap)

    def __or__(self, other: Coverage) -> Coverage:
        result = self.copy()
        result.update(other)
        return result

    def __and__(self, other: Coverage) -> Coverage:
        shared = self._bitmaps.keys() & other._bitmaps.keys()
        return Coverage({key: self._bitmaps[key] & other._bitmaps[key] for key in shared})

    def __sub__(self, other: Coverage) -> Coverage:
        return Coverage(
            {
                key: bitmap - other._bitmaps[key] if key in other._bitmaps else BitMap64(bitmap)
                for key, bitmap in self._bitmaps.items()
            }
        )

    def issubset(self, other: Coverage) -> bool:
        return all(bitmap.issubset(other[key]) for key, bitmap in self._bitmaps.items())

    def intersects(self, other: Coverage) -> bool:
        return any(bitmap.intersect(other[key]) for key, bitmap in self._bitmaps.items())

    def digest(self) -> str:
        """SHA-256 over the sorted content, shortened to 32 hex digits: for snapshot summaries."""
        sha = hashlib.sha256()
        for key in self:
            sha.update(f"{key.partition}.{key.source}\0".encode())
            sha.update(_canonical(self._bitmaps[key]))
        return sha.hexdigest()[:32]

    def to_properties(self, only: Coverage | None = None, prefix: str = PROPERTY_PREFIX) -> dict[str, str]:
        """Table properties, one a source partition; with ``only``, just the ones that it touches."""
        keys = self if only is None else [key for key in only if key in self._bitmaps]
        return {
            f"{prefix}{key.partition}.{key.source}": base64.b85encode(
                zlib.compress(_canonical(self._bitmaps[key]), 6)
            ).decode("ascii")
            for key in keys
        }

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], prefix: str = PROPERTY_PREFIX) -> Coverage:
        """Read what :meth:`to_properties` wrote; other properties are passed over.

        Raises LakeError when a property with the prefix does not parse: going on without it
        would take offsets twice.
        """
        bitmaps: dict[SourcePartition, BitMap64] = {}
        for name, text in properties.items():
            if not name.startswith(prefix):
                continue
            partition, _, source = name.removeprefix(prefix).partition(".")
            try:
                bitmap = BitMap64.deserialize(zlib.decompress(base64.b85decode(text)))
                bitmaps[SourcePartition(source, int(partition))] = bitmap
            except (ValueError, zlib.error) as error:
                raise LakeError(
                    f"coverage property {name!r} is damaged ({error}); "
                    "`k2beam maintain coverage --rebuild --apply` makes it anew from the rows"
                ) from error
        return cls(bitmaps)

    def to_bytes(self) -> dict[tuple[str, int], bytes]:
        """A picklable form, for what crosses a shuffle."""
        return {(key.source, key.partition): _canonical(self._bitmaps[key]) for key in self}

    @classmethod
    def from_bytes(cls, data: Mapping[tuple[str, int], bytes]) -> Coverage:
        return cls({SourcePartition(*key): BitMap64.deserialize(raw) for key, raw in data.items()})

    def _bitmap(self, source: str, partition: int) -> BitMap64:
        return self._bitmaps.setdefault(SourcePartition(source, partition), BitMap64())


def _canonical(bitmap: BitMap64) -> bytes:
    copy = BitMap64(bitmap)
    copy.run_optimize()
    copy.shrink_to_fit()
    return bytes(copy.serialize())


def runs(bitmap: BitMap64) -> Iterator[tuple[int, int]]:
    """The maximal runs (first, last) of a bitmap, without walking through their offsets."""
    return zip(*_ends_of_runs(bitmap), strict=True)


def run_bounds(bitmap: BitMap64) -> tuple[Ints, Ints]:
    """The first and the last offsets of the maximal runs of a bitmap, in order: two arrays of the same length."""
    firsts, lasts = _ends_of_runs(bitmap)
    return (
        np.fromiter(firsts, dtype=np.int64, count=len(firsts)),
        np.fromiter(lasts, dtype=np.int64, count=len(lasts)),
    )


def _ends_of_runs(bitmap: BitMap64) -> tuple[BitMap64, BitMap64]:
    return bitmap - bitmap.shift(1), bitmap - bitmap.shift(-1)


def span(first: int, end: int) -> BitMap64:
    """The offsets from ``first`` up to ``end``, which is not included.

    Raises LakeError for more than :data:`MOST_OFFSETS`: the ends come from outside, and memory is by their distance.
    """
    if end - first > MOST_OFFSETS:
        raise LakeError(
            f"offsets {first} to {end - 1} of one partition are more than the {MOST_OFFSETS:,} that can be compared "
            "with what was taken; look for an offset that does not belong to it"
        )
    offsets = BitMap64()
    offsets.add_range(first, end)
    return offsets


def holes(bitmap: BitMap64, first: int, last: int) -> Iterator[tuple[int, int]]:
    """The maximal runs (first, last) of what lies between ``first`` and ``last``, both included, and not in a bitmap.

    A hole of any length costs the same: nothing is built of it.
    """
    while first <= last:
        if first in bitmap:
            first = end_of_run(bitmap, first) + 1
            continue
        beyond = next(bitmap.iter_equal_or_larger(first), last + 1)
        yield first, min(beyond - 1, last)
        first = beyond


def end_of_run(bitmap: BitMap64, first: int) -> int:
    """The last offset of the run that ``first``, which is in the bitmap, belongs to: gallop, then halve."""
    step = 1
    while bitmap.contains_range(first, first + 2 * step):
        step *= 2
    inside, outside = step, 2 * step
    while outside - inside > 1:
        middle = (inside + outside) // 2
        inside, outside = (middle, outside) if bitmap.contains_range(first, first + middle) else (inside, middle)
    return first + inside - 1
