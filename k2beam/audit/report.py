"""What an audit found, as values: the audit report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from k2beam.audit.expectation import End
from k2beam.model import Kind


@dataclass(frozen=True, slots=True)
class SourceFinding:
    """One source partition. ``received`` and ``dead`` count distinct offsets, ``duplicate`` surplus rows.

    ``first`` and ``last`` are the first and the last offset in the tables (None: there is none).
    ``end`` says what ``expected`` rests on: the source itself, the end that a reader recorded, or
    nothing but the tables ("unverified": a lost tail can't be seen). ``missing_ranges`` are the
    first ten.
    """

    source: str
    partition: int
    first: int | None
    last: int | None
    end: End
    expected: int
    received: int
    dead: int
    missing: int
    duplicate: int
    missing_ranges: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class SymbolFinding:
    """One key. ``missing`` numbers were never sent or never seen: they are in the ledger, not a failure.

    ``expected`` is the sum over epochs of last - first + 1, ``received`` the distinct numbers,
    ``duplicate`` the numbered rows beyond them, ``unsequenced`` the rows without a number.
    """

    exchange: str
    symbol: str
    kind: Kind
    expected: int
    received: int
    missing: int
    duplicate: int
    unsequenced: int


@dataclass(frozen=True, slots=True)
class TableFinding:
    """One table: its size in the audited snapshot, and offsets where coverage and rows disagree."""

    table: str
    rows: int
    files: int
    bytes: int
    snapshot_id: int | None
    coverage_without_rows: int
    rows_without_coverage: int


@dataclass(frozen=True, slots=True)
class LedgerFinding:
    """The ledger against the recount: missing intervals that each has, and ledger rows that were ``stale``.

    ``mended`` rows were appended by the audit. ``checked`` is False where rows could not be read, so that
    a recount would have taken them for gaps.
    """

    checked: bool
    unfilled: int
    recounted: int
    stale: int
    mended: int


@dataclass(frozen=True, slots=True)
class DaysFinding:
    """The days (of one exchange in one table) of the recount: those believed as remembered, those whose rows were read.

    ``wrong`` of those that were read are remembered to hold something else than their rows say; only a full audit
    compares them.
    """

    remembered: int
    read: int
    wrong: int


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The whole report; ``problems`` is empty exactly when ``ok``.

    ``notes`` are what the reader should know and what is no failure: a source file's incomplete tail.
    """

    sources: tuple[SourceFinding, ...]
    symbols: tuple[SymbolFinding, ...]
    tables: tuple[TableFinding, ...]
    ledger: LedgerFinding
    days: DaysFinding
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``k2beam audit --output json`` (docs/reference/audit.md)."""
        return {"ok": self.ok, **asdict(self)}
