"""Deletes what expired snapshots leave in ``metadata``: their manifest lists, and manifests that were merged since.

Data files are never touched here; ``k2beam maintain`` looks after them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pyiceberg.table import Table

from k2beam.errors import LakeError
from k2beam.lake.foreign import refuse_foreign
from k2beam.lake.storage import TableFolder, manifests_of, referenced_metadata
from k2beam.logs import get_logger

GRACE_SECONDS = 3600.0
"""How long what no snapshot has is left where it is: a query that began before may read it still."""


class Sweeper:
    """Looks through a table's metadata once in a grace, and deletes what was of no use a grace ago and is of none now.

    What another writer's commit has written and not yet committed is of no use either: no commit takes a whole grace.
    Two sweepers of one table do no harm.
    """

    def __init__(self, grace_seconds: float = GRACE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace = grace_seconds
        self._clock = clock
        self._swept_at: dict[str, float] = {}
        self._unused: dict[str, frozenset[str]] = {}
        self._log = get_logger("sweep")

    def sweep(self, name: str, load: Callable[[], Table]) -> int:
        """Sweep the table ``name`` if that is due; how many files were deleted.

        What fails is logged, with the reason, and left to the next sweep: a job's commits don't depend on it.
        """
        now = self._clock()
        if now - self._swept_at.get(name, float("-inf")) < self._grace:
            return 0
        self._swept_at[name] = now
        try:
            return self._delete(name, load())
        except LakeError as error:
            self._log.warning("expired metadata not deleted", table=name, reason=str(error))
            return 0

    def _delete(self, name: str, table: Table) -> int:
        folder = TableFolder(table)
        listed = {file.path for file in folder.files("metadata") if file.path.endswith(".avro")}
        table = table.refresh()
        refuse_foreign(table)
        unused = frozenset(listed - referenced_metadata(table, manifests_of(table, table.metadata.snapshots)))
        due = self._unused.get(name, frozenset()) & unused
        self._unused[name] = unused - due
        for path in sorted(due):
            folder.delete(path)
        return len(due)
