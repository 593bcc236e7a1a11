"""The legal holes of a running job: looked for again and again, and written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from pyroaring import BitMap64

from k2beam.config import LakeConfig, WriteConfig
from k2beam.coverage import Coverage
from k2beam.errors import K2BeamError, Stopped
from k2beam.kafka.holes import HoleProbe
from k2beam.lake.catalog import Catalog
from k2beam.lake.commit import read_coverage
from k2beam.lake.holes import cover_holes, record_holes
from k2beam.lake.transaction import UNREACHABLE
from k2beam.logs import get_logger

LOOK_SECONDS = 600.0
"""How often a running job looks for holes. What was missing at two looks that follow each other is asked for."""
ASKING_SECONDS = 20.0
"""How long one look asks the broker at most; the next goes on."""

_Missing = Mapping[tuple[str, int], BitMap64]


class HoleKeeper:
    """Writes down the holes that a probe finds, and lets event tables cover them.

    Only holes of ``kept`` sources are covered, whose logs keep every message: a compacted log has lost messages that an
    archive of it may still have, and bring. ``known`` holes are in the table already.
    """

    def __init__(
        self,
        probe: HoleProbe,
        catalog: Catalog,
        lake: LakeConfig,
        write: WriteConfig,
        kept: Collection[str],
        known: Coverage,
    ) -> None:
        self._probe = probe
        self._catalog = catalog
        self._namespace = lake.namespace
        self._write = write
        self._kept = kept
        self._recorded = known
        self._covered = Coverage()
        self._before: _Missing = {}
        self._due = time.monotonic() + LOOK_SECONDS

    @property
    def is_due(self) -> bool:
        """Whether it is time for another :meth:`look`."""
        return time.monotonic() >= self._due

    def look(self, missing_within: Callable[[Coverage], _Missing]) -> None:
        """Ask the broker about what is missing within the coverage and was at the last look too.

        What was not, may still be on its way. What can't be asked or written now is left for the next look, with a
        warning; one that took too long is gone on with at once.
        """
        until = time.monotonic() + ASKING_SECONDS
        try:
            missing = self._probe.known(missing_within(read_coverage(self._catalog, self._namespace)))
            for place, offsets in missing.items():
                self._probe.probe(*place, offsets & self._before.get(place, BitMap64()), until)
            self.save()
        except Stopped:
            return
        except (K2BeamError, *UNREACHABLE) as error:
            get_logger("live").warning("holes can't be looked for now, and will be later", error=str(error))
        else:
            if time.monotonic() >= until:
                return
            self._before = missing
        self._due = time.monotonic() + LOOK_SECONDS

    def save(self) -> None:
        """Record what was found since the last time, then cover it. Raises what the commits of both raise."""
        found, retention = self._probe.holes, self._write.retention
        if fresh := found - self._recorded:
            record_holes(self._catalog, self._namespace, fresh, self._write.retry, retention)
            self._recorded = found.copy()
        final = Coverage({key: found[key] for key in found if key.source in self._kept})
        if fresh := final - self._covered:
            cover_holes(self._catalog, self._namespace, fresh, self._write.retry, retention)
            self._covered = final.copy()
