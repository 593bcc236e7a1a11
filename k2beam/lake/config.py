"""How rows are written: windows, file sizes, when to commit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from k2beam.errors import UsageError
from k2beam.lake.transaction import RetryPolicy


class SourceGuard(Protocol):
    """Says whether the sources of a job are still what they were; picklable."""

    def check(self) -> None:
        """Raises K2BeamError when nothing of this job may be committed any more."""


@dataclass(frozen=True, slots=True)
class WriteConfig:
    """The options of writing, checked.

    ``window_seconds``: rows of different windows never share a file. ``target_file_bytes``:
    Parquet size at which a file is closed. ``memory_bytes``: Arrow bytes that a worker buffers.
    A commit is due at ``commit_rows`` or ``commit_bytes``, at the end of a bounded run and, only
    when ``bounded`` is off, ``commit_age_seconds`` after the first file. ``run_id`` marks the
    run's snapshots. ``guard`` is asked before each commit.
    """

    run_id: str
    bounded: bool = True
    window_seconds: int = 86_400
    target_file_bytes: int = 64 << 20
    memory_bytes: int = 96 << 20
    commit_rows: int = 5_000_000
    commit_bytes: int = 1 << 30
    commit_age_seconds: float = 10.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    guard: SourceGuard | None = None

    def __post_init__(self) -> None:
        for name in ("window_seconds", "target_file_bytes", "memory_bytes", "commit_rows", "commit_bytes"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be above 0, not {getattr(self, name)}")

    @property
    def window_us(self) -> int:
        return self.window_seconds * 1_000_000
