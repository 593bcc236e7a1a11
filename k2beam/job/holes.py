"""The legal holes of a running job: looked for again and again, and written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from pyroaring import BitMap64

from k2beam.config import LakeConfig, WriteConfig
from k2beam.coverage import Coverage
from k2beam.job.beside import few_tries, warned
from k2beam.kafka.holes import HoleProbe
from k2beam.lake.catalog import Catalog
from k2beam.lake.commit import read_coverage
from k2beam.lake.holes import cover_holes, read_holes, record_holes

LOOK_SECONDS = 600.0
"""How often a running job looks for holes. What was missing at two looks that follow each other is asked for."""
ASKING_SECONDS = 20.0
"""How long one look asks the broker at most; the next goes on."""
_LATER = "holes are not looked for or recorded now, but will be later"

_Missing = Mapping[tuple[str, int], BitMap64]


class HoleKeeper:
    """Writes down the holes that a probe finds, and lets event tables cover those that are final.

    ``kept`` asks which sources have a log that keeps every message: a compacted one has lost messages that an archive
    of it may still have, and bring. A hole is final where that was so before and after the probe.

    Holes can be found again: what fails here is a warning, and the job goes on.
    """

    def __init__(
        self, catalog: Catalog, lake: LakeConfig, write: WriteConfig, kept: Callable[[], Collection[str]]
    ) -> None:
        self._catalog = catalog
        self._namespace = lake.namespace
        self._retry = few_tries(write)
        self._retention = write.retention
        self._ask_kept = kept
        self._kept = frozenset(kept())
        self._recorded, self._final, self._covered = Coverage(), Coverage(), Coverage()
        self._before: _Missing = {}
        self._due = time.monotonic() + LOOK_SECONDS

    def read(self, within: Coverage) -> Coverage:
        """The holes that earlier jobs recorded, of offsets in ``within``; :meth:`save` covers those that are final."""
        with warned(_LATER):
            self._final = read_holes(self._catalog, self._namespace, within, log_compacted=False)
            self._recorded = self._final | read_holes(self._catalog, self._namespace, within, log_compacted=True)
        return self._recorded.copy()

    @property
    def is_due(self) -> bool:
        """Whether it is time for another :meth:`look`."""
        return time.monotonic() >= self._due

    def look(self, probe: HoleProbe, missing_within: Callable[[Coverage], _Missing]) -> None:
        """Ask the broker about what is missing within the coverage and was at the last look too.

        What was not, may still be on its way. One that found holes until its time was up is gone on with at once.
        """
        self._due = time.monotonic() + LOOK_SECONDS
        with warned(_LATER):
            missing = probe.known(missing_within(read_coverage(self._catalog, self._namespace)))
            before, self._before = self._before, missing
            until, known = time.monotonic() + ASKING_SECONDS, len(probe.holes)
            for place, offsets in missing.items():
                probe.probe(*place, offsets & before.get(place, BitMap64()), until)
            if time.monotonic() >= until and len(probe.holes) > known:
                self._due = time.monotonic()
            self._save(probe.holes)

    def save(self, found: Coverage) -> None:
        """Record what was ``found`` since the last time, then cover what is final."""
        with warned(_LATER):
            self._save(found)

    def _save(self, found: Coverage) -> None:
        if fresh := found - self._recorded:
            before, self._kept = self._kept, frozenset(self._ask_kept())
            final = Coverage({key: fresh[key] for key in fresh if key.source in before & self._kept})
            for part, log_compacted in ((final, False), (fresh - final, True)):
                record_holes(
                    self._catalog,
                    self._namespace,
                    part,
                    log_compacted=log_compacted,
                    policy=self._retry,
                    retention=self._retention,
                )
            self._recorded.update(fresh)
            self._final.update(final)
        # Recorded before they are covered: else the audit would find covered offsets without a reason.
        if uncovered := self._final - self._covered:
            cover_holes(self._catalog, self._namespace, uncovered, policy=self._retry, retention=self._retention)
            self._covered.update(uncovered)
