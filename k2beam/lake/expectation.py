"""What there is to expect of each source partition: by the source itself, and by what its reader recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pyroaring import BitMap64

from k2beam.coverage import Coverage, SourcePartition
from k2beam.errors import LakeError
from k2beam.lake.tables import EXPECTED_PREFIX

End = Literal["source", "recorded", "unverified"]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source, and the offsets that there are in it."""

    path: str
    coverage: Coverage


@dataclass
class Expectation:
    """The offsets that must be in the tables.

    ``counted`` are those found in the source's own files, ``spans`` the stretches from the first to
    the last offset of each such file: a hole inside a span is the source's own, one outside is not
    explained by it. ``ends`` are recorded end offsets (exclusive).
    """

    counted: Coverage = field(default_factory=Coverage)
    spans: Coverage = field(default_factory=Coverage)
    ends: dict[SourcePartition, int] = field(default_factory=dict)

    def add_file(self, file: SourceFile) -> None:
        """Expect all offsets of ``file``."""
        self.counted.update(file.coverage)
        for key in file.coverage:
            offsets = file.coverage[key]
            self.spans.add_range(key.source, key.partition, offsets.min(), offsets.max())

    def add_recorded(self, ends: Mapping[SourcePartition, int]) -> None:
        """Expect the offsets up to recorded ends; of several ends the highest counts."""
        for key, end in ends.items():
            self.ends[key] = max(end, self.ends.get(key, 0))

    @property
    def keys(self) -> set[SourcePartition]:
        return {*self.counted, *self.ends}

    def end(self, key: SourcePartition) -> End:
        """How the end of ``key`` is known."""
        if self.counted[key]:
            return "source"
        return "recorded" if key in self.ends else "unverified"

    def of(self, key: SourcePartition, seen: BitMap64) -> BitMap64:
        """All that is expected of ``key``, given the offsets ``seen`` of it in the tables.

        That is what its files hold, what lies below its recorded end, and what lies between the
        first and the last offset seen, where no file of the source says that it never was.
        """
        expected = BitMap64()
        if seen:
            expected.add_range(seen.min(), seen.max() + 1)
            expected -= self.spans[key] - seen
        if key in self.ends:
            expected.add_range(0, self.ends[key])
        return expected | self.counted[key]


def recorded_ends(properties: Mapping[str, str]) -> dict[SourcePartition, int]:
    """The end offsets that readers recorded in a table's properties. Raises LakeError for a damaged one."""
    ends: dict[SourcePartition, int] = {}
    for name, text in properties.items():
        if not name.startswith(EXPECTED_PREFIX):
            continue
        partition, _, source = name.removeprefix(EXPECTED_PREFIX).partition(".")
        try:
            ends[SourcePartition(source, int(partition))] = int(text)
        except ValueError as error:
            raise LakeError(f"table property {name}={text!r} is damaged: an end offset was expected") from error
    return ends


def lost_files(files: Iterable[SourceFile], seen: Coverage) -> list[SourceFile]:
    """The files none of whose offsets were seen; an empty file is not lost."""
    return [file for file in files if file.coverage and not file.coverage.intersects(seen)]


def describe(spans: Sequence[tuple[int, int]], total: int) -> str:
    """Offset ranges in words: ``5, 8-12 and more``."""
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
    shown = sum(last - first + 1 for first, last in spans)
    return text if shown >= total else f"{text} and more"
