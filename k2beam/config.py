"""Where the tables are and how they are written: frozen, checked, and quick to import.

Nothing here imports Beam, Iceberg or Arrow, so that the command line may use it before it knows what it has to do.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from k2beam.errors import UsageError

COMMIT_AGE_SECONDS = 10.0
"""How old a bundle may get before its rows are committed, where a job has no end."""

COMMIT_AGE_OF_GOAL_SECONDS = 2.0
"""The same in a job that ends by itself: the last rows of its goal are committed by age, and it waits for them."""

NAMESPACE = "market_data"


@dataclass(frozen=True, slots=True)
class LakeConfig:
    """Where the tables are: a warehouse folder, or the name of a configured catalog; never both.

    ``identity`` is what the workers of a job compare, so that none writes into another warehouse of the same name
    (:func:`k2beam.lake.identity.settled`; None: nothing is compared). Raises UsageError where both or neither of a
    warehouse and a catalog are given.

    Examples:
        >>> from k2beam import LakeConfig
        >>> LakeConfig(warehouse="warehouse").namespace
        'market_data'
        >>> LakeConfig(catalog="prod", namespace="ticks").describe()
        'catalog prod'
    """

    warehouse: str | None = None
    catalog: str | None = None
    namespace: str = NAMESPACE
    identity: str | None = None

    def __post_init__(self) -> None:
        if (self.warehouse is None) == (self.catalog is None):
            raise UsageError(
                "give either --warehouse DIR (embedded catalog) or --catalog NAME (configured in pyiceberg), not both"
            )

    def describe(self) -> str:
        """The place in a few words, for messages; holds no secret."""
        return f"warehouse {self.warehouse}" if self.warehouse else f"catalog {self.catalog}"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a commit is tried, and how long it waits in between (seconds, doubling, jittered).

    Examples:
        >>> from k2beam import RetryPolicy, WriteConfig
        >>> WriteConfig(retry=RetryPolicy(attempts=3)).retry
        RetryPolicy(attempts=3, first_wait=0.05, longest_wait=5.0)
    """

    attempts: int = 20
    first_wait: float = 0.05
    longest_wait: float = 5.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise UsageError(f"attempts must be at least 1, not {self.attempts}: a commit is tried")

    def wait(self, attempt: int) -> None:
        """Sleep before the attempt after ``attempt`` (counted from 1)."""
        longest = min(self.first_wait * 2 ** (attempt - 1), self.longest_wait)
        time.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret


@dataclass(frozen=True, slots=True)
class Retention:
    """Which snapshots a table keeps: the newest ``snapshots``, as far as they are not older than ``age_seconds``.

    The current one, tags and branches are kept in any case. By default 100 and seven days: some 100 kB of metadata,
    which each commit writes and each reader loads.
    Raises UsageError for less than one snapshot, or no age.

    Examples:
        >>> from k2beam import Retention
        >>> Retention(snapshots=500)
        Retention(snapshots=500, age_seconds=604800.0)
    """

    snapshots: int = 100
    age_seconds: float = 604_800.0

    def __post_init__(self) -> None:
        if self.snapshots < 1 or not self.age_seconds > 0:
            raise UsageError(
                f"a table keeps at least one snapshot, for some time, not {self.snapshots} for {self.age_seconds:g} s"
            )


class SourceGuard(Protocol):
    """Says whether the sources of a job are still what they were; picklable."""

    def check(self, sources: Collection[str] = ()) -> None:
        """Raises K2BeamError when nothing of this job may be committed any more.

        ``sources`` are those of what is to be committed, as far as it has any.
        """


@dataclass(frozen=True, slots=True)
class WriteConfig:
    """The options of writing, checked.

    ``window_seconds``: rows of different windows never share a file. ``target_file_bytes``:
    Parquet size at which a file is closed. ``memory_bytes``: Arrow bytes that a worker buffers.
    A commit is due at ``commit_rows`` or ``commit_bytes``, at the end of a bounded run and, only
    when ``bounded`` is off, ``commit_age_seconds`` after the bundle of its first file began (None: 10 s, or
    2 s in a live job that ends by itself). ``run_id`` marks the run's snapshots (empty: run_ingest
    and run_live give each run one of its own). ``guard`` is asked before each commit. ``retention``: which
    snapshots a commit leaves in its table (None: all; run_live then takes that of its LiveConfig). ``retired``: sources
    whose rows leave with the first commit. Raises UsageError for a size that is not above 0.

    Examples:
        >>> from k2beam import WriteConfig
        >>> WriteConfig(commit_rows=100_000, window_seconds=3600).window_us
        3600000000
        >>> WriteConfig(commit_rows=0)
        Traceback (most recent call last):
        ...
        k2beam.errors.UsageError: commit_rows must be above 0, not 0
    """

    run_id: str = ""
    bounded: bool = True
    window_seconds: int = 86_400
    target_file_bytes: int = 64 << 20
    memory_bytes: int = 96 << 20
    commit_rows: int = 5_000_000
    commit_bytes: int = 1 << 30
    commit_age_seconds: float | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    guard: SourceGuard | None = None
    retention: Retention | None = None
    retired: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in ("window_seconds", "target_file_bytes", "memory_bytes", "commit_rows", "commit_bytes"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be above 0, not {getattr(self, name)}")

    @property
    def commit_age(self) -> float:
        """How old a bundle may get before its rows are committed, seconds."""
        return COMMIT_AGE_SECONDS if self.commit_age_seconds is None else self.commit_age_seconds

    @property
    def window_us(self) -> int:
        return self.window_seconds * 1_000_000
