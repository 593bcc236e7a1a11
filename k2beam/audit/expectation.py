"""What there is to expect of each source partition: by the source itself, and by what its reader recorded."""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pyroaring import BitMap64

from k2beam.coverage import FILL_PREFIX, Coverage, SourcePartition, holes, runs

End = Literal["source", "recorded", "unverified", "chosen"]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source, and the offsets that there are in it."""

    path: str
    coverage: Coverage


Span = tuple[int, int]
"""The first and the last offset of a stretch, both included."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Offsets that are expected and not there: how many, and the first of their ranges."""

    count: int
    ranges: tuple[Span, ...]


@dataclass
class Expectation:
    """The offsets that must be in the tables.

    ``counted`` are those found in the source's own files, ``spans`` the stretches from the first to
    the last offset of each such file: a hole inside a span is the source's own, one outside is not
    explained by it. ``ends`` are recorded end offsets (exclusive), ``holes`` recorded legal holes, of which
    ``left_out`` were left out by choice.

    Offsets come from the data, so two that follow each other may be any distance apart: stretches are kept as their
    ends, and only what was received or counted is held one by one.
    """

    counted: Coverage = field(default_factory=Coverage)
    spans: dict[SourcePartition, list[Span]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[SourcePartition, int] = field(default_factory=dict)
    holes: Coverage = field(default_factory=Coverage)
    left_out: Coverage = field(default_factory=Coverage)

    def add_file(self, file: SourceFile) -> None:
        """Expect all offsets of ``file``."""
        self.counted.update(file.coverage)
        for key in file.coverage:
            offsets = file.coverage[key]
            self.spans[key].append((offsets.min(), offsets.max()))

    def add_recorded(self, ends: Mapping[SourcePartition, int]) -> None:
        """Expect the offsets up to recorded ends; of several ends the highest counts."""
        for key, end in ends.items():
            self.ends[key] = max(end, self.ends.get(key, 0))

    @property
    def keys(self) -> set[SourcePartition]:
        return {*self.counted, *self.ends}

    def end(self, key: SourcePartition) -> End:
        """How the end of ``key`` is known."""
        if key.source.startswith(FILL_PREFIX):
            return "chosen"
        if self.counted[key]:
            return "source"
        return "recorded" if key in self.ends else "unverified"

    def missing(self, key: SourcePartition, seen: BitMap64, shown: int) -> Missing:
        """What is expected of ``key`` beyond the offsets ``seen`` of it in the tables, with the first ``shown`` ranges.

        Expected is what its files hold, what lies below its recorded end, and what lies between the
        first and the last offset seen, where no file of the source says that it never was; recorded holes are not, but
        for those that a file has a message of which was not left out by choice.
        """
        stretches = self._stretches(key, seen)
        seen = seen | (self.holes[key] - self.counted[key]) | self.left_out[key]
        counted = self.counted[key] - seen
        for first, last in stretches:
            counted.remove_range(first, last + 1)
        gone = (last + 1 - first - seen.range_cardinality(first, last + 1) for first, last in stretches)
        within = itertools.chain.from_iterable(holes(seen, *stretch) for stretch in stretches)
        found = _joined(heapq.merge(within, runs(counted)))
        return Missing(len(counted) + sum(gone), tuple(itertools.islice(found, shown)))

    def _stretches(self, key: SourcePartition, seen: BitMap64) -> list[Span]:
        """Where every offset is expected: apart from each other, in order."""
        stretches: list[Span] = []
        if key.source.startswith(FILL_PREFIX):  # which of its numbers are there is for the ledger of gaps to say
            return stretches
        if seen:
            stretches += _outside(self.spans.get(key, ()), seen.min(), seen.max())
        if self.ends.get(key):
            stretches.append((0, self.ends[key] - 1))
        return list(_joined(sorted(stretches)))


def _outside(spans: Iterable[Span], first: int, last: int) -> Iterator[Span]:
    """What of ``first`` to ``last`` is in none of the ``spans``."""
    for start, end in sorted(spans):
        if first < start:
            yield first, min(start - 1, last)
        first = max(first, end + 1)
        if first > last:
            return
    yield first, last


def _joined(spans: Iterable[Span]) -> Iterator[Span]:
    """Sorted spans, with those that overlap or touch made one."""
    current: Span | None = None
    for first, last in spans:
        if current is not None and first <= current[1] + 1:
            current = current[0], max(current[1], last)
            continue
        if current is not None:
            yield current
        current = first, last
    if current is not None:
        yield current


def lost_files(files: Iterable[SourceFile], seen: Coverage) -> list[SourceFile]:
    """The files none of whose offsets were seen; an empty file is not lost."""
    return [file for file in files if file.coverage and not file.coverage.intersects(seen)]


def describe(spans: Sequence[tuple[int, int]], total: int) -> str:
    """Offset ranges in words: ``5, 8-12 and more``."""
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
    shown = sum(last - first + 1 for first, last in spans)
    return text if shown >= total else f"{text} and more"
