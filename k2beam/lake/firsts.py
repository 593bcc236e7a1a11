"""Where the first job of a warehouse was to begin with each source partition.

Coverage tells what was taken, and so not what was lost of a partition before anything of it was taken: retention may
empty it first. The offset that is recorded here, before that job reads, makes such a loss visible.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from k2beam.coverage import SourcePartition
from k2beam.lake.expectation import FIRST_PREFIX, recorded_firsts
from k2beam.lake.scan import find_readable
from k2beam.lake.tables import DEAD_LETTERS, open_table
from k2beam.lake.transaction import COMMIT_ID, Append, RetryPolicy, commit_loop


def read_firsts(catalog: Catalog, namespace: str) -> dict[SourcePartition, int]:
    """The recorded first offsets; none where no live job has run. Raises LakeError for a damaged one."""
    table = find_readable(catalog, namespace, DEAD_LETTERS)
    return {} if table is None else recorded_firsts(table.properties)


def record_firsts(
    catalog: Catalog, namespace: str, firsts: Mapping[tuple[str, int], int], policy: RetryPolicy | None = None
) -> None:
    """Record the offsets from which a job is to read, where none or a higher one is recorded yet.

    They are properties of the dead letters, the one table that every source may write to; it's made if need be. The
    change comes with a snapshot, though it has no file: so it is under the compare-and-swap, and of two jobs the
    lower offset stays. Repeating it changes nothing. Raises CommitConflict and CommitUnknown.
    """

    def plan(table: Table) -> Append | None:
        known = recorded_firsts(table.properties)
        news = {
            f"{FIRST_PREFIX}{partition}.{source}": str(first)
            for (source, partition), first in firsts.items()
            if first < known.get(SourcePartition(source, partition), first + 1)
        }
        return Append([], news, {COMMIT_ID: uuid.uuid4().hex}) if news else None

    commit_loop(lambda: open_table(catalog, namespace, DEAD_LETTERS), plan, policy or RetryPolicy())
