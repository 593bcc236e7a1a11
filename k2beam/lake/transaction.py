"""One commit to one table, and the loop around it.

pyiceberg's retries are off (see :mod:`k2beam.lake.tables`), and so is its clean-up of manifests
after a conflict: a commit that is reported as a conflict may have landed, and then deleting its
manifests would make the table unreadable. Whatever happens, the loop refreshes the table, asks
the caller again what is left to do, and goes by that.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, RESTError
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from sqlalchemy.exc import DBAPIError

from k2beam.errors import CommitConflict, CommitUnknown

UNKNOWN_OUTCOME = (CommitStateUnknownException, RESTError, DBAPIError, OSError)
"""Errors after which a commit may or may not have landed."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a commit is tried, and how long it waits in between (seconds, doubling, jittered)."""

    attempts: int = 20
    first_wait: float = 0.05
    longest_wait: float = 5.0

    def wait(self, attempt: int) -> None:
        """Sleep before the attempt after ``attempt`` (counted from 1)."""
        longest = min(self.first_wait * 2 ** (attempt - 1), self.longest_wait)
        time.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret


@dataclass(frozen=True, slots=True)
class Append:
    """What one snapshot adds: files, changed table properties and entries of the summary."""

    files: Sequence[DataFile]
    properties: Mapping[str, str] = field(default_factory=dict)
    summary: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the loop ended: the table as it is now, the tries, and whether anything was appended."""

    table: Table
    snapshot_before: int | None
    attempts: int
    appended: Append | None


def append(table: Table, change: Append) -> None:
    """Append in one snapshot; the properties change in the same commit.

    Raises CommitFailedException when another writer won, and one of :data:`UNKNOWN_OUTCOME` when
    the outcome isn't known. No file is deleted either way.
    """
    transaction = table.transaction()
    if change.properties:
        transaction.set_properties(dict(change.properties))
    with transaction.update_snapshot(snapshot_properties=dict(change.summary)).fast_append() as snapshot:
        for data_file in change.files:
            snapshot.append_data_file(data_file)
    # With the producers gone pyiceberg has nothing to delete after a conflict.
    transaction._snapshot_producers = []
    transaction.commit_transaction()


def commit_loop(
    open_table: Callable[[], Table],
    plan: Callable[[Table], Append | None],
    policy: RetryPolicy,
    on_retry: Callable[[str], None] = lambda reason: None,
) -> Outcome:
    """Refresh, plan, append; on a conflict or an unknown outcome once more, from the refresh on.

    ``plan`` looks at the fresh table and says what is left to append; None ends the loop. It
    must find out by itself what an earlier try has landed (by the coverage, by the ledger's rows).

    Raises CommitConflict or CommitUnknown when ``policy.attempts`` are used up.
    """
    last: Exception
    for attempt in range(1, policy.attempts + 1):
        try:
            table = open_table()
            before = table.metadata.current_snapshot_id
            change = plan(table)
            if change is None:
                return Outcome(table, before, attempt, None)
            append(table, change)
            return Outcome(table, before, attempt, change)
        except CommitFailedException as error:
            reason, last = "conflict", error
        except UNKNOWN_OUTCOME as error:
            reason, last = "unknown", error
        on_retry(reason)
        if attempt < policy.attempts:
            policy.wait(attempt)
    raise _exhausted(reason, policy.attempts, last) from last


def _exhausted(reason: str, attempts: int, error: Exception) -> CommitConflict | CommitUnknown:
    if reason == "conflict":
        return CommitConflict(
            f"another writer won {attempts} times in a row ({error}); nothing of this commit landed, run it again"
        )
    return CommitUnknown(
        f"the outcome of a commit is unknown after {attempts} tries ({error}); no file was deleted: "
        "run the job again, the coverage in the table decides what is left to do"
    )
