"""Faults of a feed, and where in a simulated feed they are put.

Every fault gets a cell of its own: eight consecutive messages of one key, with the fault in the
middle. So no two faults touch, each shows exactly as often as it was asked for, and the true gaps
and resets follow from the plan alone.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from k2beam.arrays import Ints
from k2beam.errors import UsageError

MALFORMED = (
    "bad_magic",
    "unknown_schema_id",
    "truncated",
    "trailing_bytes",
    "tombstone",
    "decimal_overflow",
    "negative_price",
    "empty_symbol",
    "timestamp_in_future",
)
"""Ways in which a payload can be bad, by the ``error_class`` of the dead letter it becomes."""

MALFORMED_RECORDS = MALFORMED[5:]
"""Those that are in the record's values, and so can stand in a plain container too."""

DUPLICATE, LATE, OUT_OF_ORDER, FIRST_MALFORMED = 1, 2, 3, 16
"""Codes of the faults of single messages; ``FIRST_MALFORMED + i`` is ``MALFORMED[i]``."""

_CELL = 8
_LARGEST_GAP = 500


@dataclass(frozen=True, slots=True)
class Faults:
    """How many of each fault. ``malformed`` is one error_class for each bad payload.

    gaps: missing sequence numbers, half of them 1 to 10 long, half 11 to 500.
    duplicates: a message sent again. resets: numbering that starts anew at a low number.
    late: a message that arrives long after its event time, out_of_order: one that a later
    message overtakes; neither leaves a gap.
    """

    gaps: int = 0
    duplicates: int = 0
    resets: int = 0
    late: int = 0
    out_of_order: int = 0
    malformed: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return self.gaps + self.duplicates + self.resets + self.late + self.out_of_order + len(self.malformed)

    @property
    def extra_messages(self) -> int:
        """Messages that exist only because of faults."""
        return self.duplicates + len(self.malformed)

    def share(self, part: int, parts: int) -> Faults:
        """The faults of one of several feeds; the first feeds get what does not divide."""
        counts = {
            name: getattr(self, name) // parts + (part < getattr(self, name) % parts)
            for name in ("gaps", "duplicates", "resets", "late", "out_of_order")
        }
        return Faults(**counts, malformed=self.malformed[part::parts])


def parse_faults(text: str) -> Faults:
    """Read ``gaps=20,duplicates=30,malformed=15``; names may be written with - or _.

    ``malformed=N`` takes the classes of :data:`MALFORMED` in turn; a class can also be named by
    itself (``negative_price=3``). Raises UsageError for an unknown name or a bad number.
    """
    counts = dict.fromkeys((f.name for f in dataclasses.fields(Faults)), 0)
    named: list[str] = []
    for item in filter(None, (item.strip() for item in text.split(","))):
        name, _, number = item.partition("=")
        name = name.strip().replace("-", "_")
        if not number.strip().isdecimal():
            raise UsageError(f"--faults {item!r}: write NAME=COUNT with a whole number, such as gaps=20")
        if name in counts:
            counts[name] += int(number)
        elif name in MALFORMED:
            named += [name] * int(number)
        else:
            known = ", ".join([*counts, *MALFORMED])
            raise UsageError(f"--faults {item!r}: there is no fault {name!r}; known are {known}")
    in_turn = tuple(MALFORMED[i % len(MALFORMED)] for i in range(counts.pop("malformed")))
    return Faults(**counts, malformed=(*in_turn, *named))


class PlannedGap(NamedTuple):
    """A gap of a key (by number), both ends included."""

    key: int
    epoch: int
    first_missing: int
    last_missing: int


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """Where the faults of one feed are. A position is (round, key): each key has one message a round.

    The sequence of a message is its round + ``starts[key]`` + the sum of the shifts of that key
    up to and including its round. All arrays are sorted by round.
    """

    starts: Ints
    shift_rounds: Ints
    shift_keys: Ints
    shifts: Ints
    fault_rounds: Ints
    fault_keys: Ints
    fault_codes: Ints
    gaps: tuple[PlannedGap, ...]
    resets: tuple[int, ...]
    """The key of each reset."""


def plan_faults(faults: Faults, events: int, keys: int, rng: np.random.Generator) -> FaultPlan:
    """Place ``faults`` in a feed of ``events`` messages (without extras) over ``keys`` keys.

    Raises UsageError where the feed is too short to keep the faults apart.
    """
    cells_a_key = max(events, 0) // keys // _CELL
    if faults.total > cells_a_key * keys or faults.late > cells_a_key * keys // 2:
        raise UsageError(
            f"{faults.total} faults need a cell of {_CELL} messages each (late ones in the first half), but"
            f" {events} messages of {keys} symbols have {cells_a_key * keys}: ask for more rows or for fewer faults"
        )
    cells = _choose_cells(faults, cells_a_key * keys, rng)
    rounds, cell_keys = cells // keys * _CELL + _CELL // 2, cells % keys
    shifting = faults.gaps + faults.resets
    is_reset = np.arange(shifting) >= faults.gaps
    starts = rng.integers(20_000_000, 30_000_000, keys)
    shifts = _Shifts(starts, rng)
    for index in np.argsort(rounds[:shifting], kind="stable"):
        place = shifts.reset if is_reset[index] else shifts.gap
        place(int(rounds[index]), int(cell_keys[index]))
    order = np.argsort(rounds[shifting:], kind="stable") + shifting
    codes = [DUPLICATE] * faults.duplicates + [OUT_OF_ORDER] * faults.out_of_order
    codes += [FIRST_MALFORMED + MALFORMED.index(name) for name in faults.malformed] + [LATE] * faults.late
    placed = np.array(shifts.placed, dtype=np.int64).reshape(-1, 3)
    return FaultPlan(
        starts=starts,
        shift_rounds=placed[:, 0],
        shift_keys=placed[:, 1],
        shifts=placed[:, 2],
        fault_rounds=rounds[order],
        fault_keys=cell_keys[order],
        fault_codes=np.array(codes, dtype=np.int64)[order - shifting],
        gaps=tuple(sorted(shifts.gaps)),
        resets=tuple(shifts.resets),
    )


def _choose_cells(faults: Faults, cells: int, rng: np.random.Generator) -> Ints:
    """A cell for each fault, late messages last: theirs are in the first half, so that late is late."""
    late = rng.choice(cells // 2, faults.late, replace=False) if faults.late else np.empty(0, np.int64)
    others = rng.choice(cells, faults.total, replace=False) if faults.total else late
    others = others[~np.isin(others, late)]
    return np.concatenate([others[: faults.total - faults.late], late])


class _Shifts:
    """Follows the numbering of every key while gaps and resets are placed in order of rounds."""

    def __init__(self, starts: Ints, rng: np.random.Generator) -> None:
        self._rng = rng
        self._offset = [int(start) for start in starts]
        self._first = [int(start) for start in starts]
        self._epoch = [0] * len(starts)
        self.placed: list[tuple[int, int, int]] = []
        self.gaps: list[PlannedGap] = []
        self.resets: list[int] = []

    def gap(self, round_: int, key: int) -> None:
        large = len(self.gaps) % 2 == 1
        missing = int(self._rng.integers(11, _LARGEST_GAP + 1) if large else self._rng.integers(1, 11))
        first = self._offset[key] + round_
        self.gaps.append(PlannedGap(key, self._epoch[key], first, first + missing - 1))
        self._shift(round_, key, missing)

    def reset(self, round_: int, key: int) -> None:
        # A quarter of the last start, or less: with the numbers that were given out since, the
        # first three of the new epoch are always below half of the old epoch's highest.
        divisor = int(self._rng.integers(16, 48)) if self._epoch[key] == 0 else 4
        restart = max(1, self._first[key] // divisor)
        self._epoch[key] += 1
        self._first[key] = restart
        self.resets.append(key)
        self._shift(round_, key, restart - round_ - self._offset[key])

    def _shift(self, round_: int, key: int, by: int) -> None:
        self._offset[key] += by
        self.placed.append((round_, key, by))
