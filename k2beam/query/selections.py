"""What a query may ask for, as values, without pyiceberg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

from k2beam.errors import UsageError
from k2beam.query.times import Instant

if TYPE_CHECKING:
    from k2beam.model import Kind


@dataclass(frozen=True, slots=True)
class Snapshots:
    """The snapshot of each table that is read, by the table's name; None for a table that was empty."""

    ids: Mapping[str, int | None]


AsOf = int | datetime | date | str | Snapshots
"""A snapshot id, a tag, or an instant: the snapshot that was current then; or a snapshot of each table."""

Names = str | Sequence[str] | None
"""One name, or any of several; None does not limit."""


def names_of(names: Names, what: str) -> tuple[str, ...]:
    """The names, each once; none where None does not limit. Raises UsageError for an empty list of ``what``."""
    if names is None:
        return ()
    found = tuple(dict.fromkeys((names,) if isinstance(names, str) else names))
    if not found:
        raise UsageError(f"no {what} is named: name one, or leave {what} away to have all")
    return found


@dataclass(frozen=True, slots=True)
class EventSelection:
    """Which rows: ``start`` is included and ``end`` is not; a naive time is UTC; None does not limit.

    Symbols and exchanges, one or several, are compared as they are, never parsed.

    Examples:
        >>> from k2beam import EventSelection, Lake
        >>> asked = EventSelection(symbol="BTCUSDT", start="2026-01-05T00:10", end="2026-01-05T00:11")
        >>> schema, batches = Lake("warehouse").events("trades", asked, columns=["price"])
        >>> sum(batch.num_rows for batch in batches)
        25
    """

    symbol: Names = None
    exchange: Names = None
    start: Instant | None = None
    end: Instant | None = None
    as_of: AsOf | None = None


@dataclass(frozen=True, slots=True)
class GapSelection:
    """Which gaps: of symbols, exchanges, a kind; ``filled`` adds closed ones, ``history`` all revisions."""

    symbol: Names = None
    exchange: Names = None
    kind: Kind | None = None
    filled: bool = False
    history: bool = False


@dataclass(frozen=True, slots=True)
class DeadLetterSelection:
    """Which dead letters: of error classes, stages and sources, at most ``limit`` of them.

    They failed from ``start`` on and before ``end``.

    Examples:
        >>> from k2beam import DeadLetterSelection, LakeConfig, preview_dead_letters
        >>> counts = preview_dead_letters(LakeConfig("warehouse"), DeadLetterSelection(stage=["frame", "schema"]))
        >>> sum(one.letters for one in counts)
        6
    """

    error_class: Names = None
    stage: Names = None
    source: Names = None
    limit: int | None = None
    start: Instant | None = None
    end: Instant | None = None


DEAD_LETTER_COLUMNS: tuple[str, ...] = (
    "source",
    "partition",
    "offset",
    "offset_last",
    "stage",
    "error_class",
    "message",
    "failed_at",
)
"""The columns of a list of dead letters."""
