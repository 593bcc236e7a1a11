"""What a run of files settles beside its rows: which files they are, what they replace, what becomes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from k2beam.config import WriteConfig
from k2beam.coverage import Coverage
from k2beam.lake.catalog import Catalog
from k2beam.lake.holes import cover_holes, record_holes
from k2beam.lake.recorded import read_beginnings, record_beginnings
from k2beam.lake.retire import retire_sources

_ALL = 1 << 62


@runtime_checkable
class VerifiedSource(Protocol):
    """A source that can tell whether it is the one that was taken before."""

    def verified(self, known: Mapping[str, str]) -> tuple[dict[str, str], set[str]]:
        """What its sources begin with, by source, and the sources that are retired for them.

        Raises K2BeamError where it is not what is ``known``.
        """

    def left_out(self) -> Coverage:
        """The offsets that are to become nothing."""


@dataclass
class TakenFiles:
    """The files of a source, verified; of a source that can't be verified there is nothing to settle."""

    catalog: Catalog
    namespace: str
    source: VerifiedSource | None = None
    beginnings: Mapping[str, str] = field(default_factory=dict)
    retired: frozenset[str] = frozenset()
    without_rows: Coverage = field(default_factory=Coverage)

    @classmethod
    def of(cls, catalog: Catalog, namespace: str, source: Any) -> TakenFiles:
        """Compare the source with what is recorded. Raises K2BeamError where it is another."""
        if not isinstance(source, VerifiedSource):
            return cls(catalog, namespace)
        beginnings, retired = source.verified(read_beginnings(catalog, namespace))
        return cls(catalog, namespace, source, beginnings, frozenset(retired))

    def record(self, covered: Coverage) -> None:
        """Write down, before anything is taken, which files they are, and the offsets without a row as legal holes.

        ``covered`` by retired sources: what they had has no rows from now on.
        """
        if self.source is None:
            return
        record_beginnings(self.catalog, self.namespace, self.beginnings)
        of_retired = Coverage({key: covered[key] for key in covered if key.source in self.retired})
        self.without_rows = self.source.left_out() | of_retired
        record_holes(self.catalog, self.namespace, self.without_rows, log_compacted=False)

    def written_with(self, write: WriteConfig) -> WriteConfig:
        """The options of writing: what is retired goes in one commit with all that takes its place."""
        if not self.retired:
            return write
        return replace(write, retired=self.retired, commit_rows=_ALL, commit_bytes=_ALL)

    def settle(self, run_id: str) -> None:
        """After the rows: take out what the commits did not, such as dead letters, and cover what became nothing."""
        if self.retired:
            retire_sources(self.catalog, self.namespace, self.retired, run_id)
        cover_holes(self.catalog, self.namespace, self.without_rows)
