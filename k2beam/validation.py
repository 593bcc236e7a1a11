"""The rules that every event must keep, as data.

A rule that is broken sends the event to the dead letters with the rule's name as error class. A
bid above the ask is no error: crossed and locked markets exist.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import reduce
from urllib.parse import quote_plus

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2beam.arrays import Ints, Mask, mask_of, text_bytes
from k2beam.codec.decimals import without_room, words_of
from k2beam.model import DECIMAL, KINDS, Kind

LONGEST_EXCHANGE = 200
"""Bytes of an exchange in the folder of its partition, percent-encoded; file systems take names of 255."""

MOST_EXCHANGES = 1_000
"""Names of exchanges that a worker takes, of one kind: each is a folder, and a file in each commit."""

FUTURE_LIMIT = 24 * 3600 * 1_000_000
"""Microseconds that a timestamp may be ahead of the clock."""

PRICED_ABOVE_ZERO = ("equities", "crypto")
"""Asset classes whose prices can't be negative; futures' (crude oil, April 2020) and options' spreads can."""

Predicate = Callable[[pa.RecordBatch, str, int], Mask]
"""Of a batch, a column's name and the clock (microseconds, UTC): which rows break the rule."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its error class, what to tell of it, the kinds and columns it is about, and its predicate."""

    name: str
    message: str
    columns: tuple[str, ...]
    broken: Predicate
    kinds: tuple[Kind, ...] = KINDS


@dataclass(frozen=True, slots=True)
class Violation:
    """The first rule that a row breaks."""

    row: int
    error_class: str
    message: str


def _empty(batch: pa.RecordBatch, column: str, now: int) -> Mask:
    del now
    return mask_of(pc.equal(pc.binary_length(batch.column(column)), 0))


def _too_long(batch: pa.RecordBatch, column: str, now: int) -> Mask:
    del now
    texts = batch.column(column)
    # A byte takes up to three, so what is short enough by far needs no encoding.
    broken = text_bytes(texts) > LONGEST_EXCHANGE // 3
    for row in np.flatnonzero(broken).tolist():
        broken[row] = len(quote_plus(texts[row].as_py(), safe="")) > LONGEST_EXCHANGE
    return broken


def _negative(batch: pa.RecordBatch, column: str, now: int) -> Mask:
    del now
    return np.asarray(words_of(batch.column(column))[:, 1] < 0)


def _negative_price(batch: pa.RecordBatch, column: str, now: int) -> Mask:
    broken = _negative(batch, column, now)
    if not broken.any():
        return broken
    return broken & mask_of(pc.is_in(batch.column("asset_class"), pa.array(PRICED_ABOVE_ZERO)))


def _micros(batch: pa.RecordBatch, column: str) -> Ints:
    return np.asarray(batch.column(column).view(pa.int64()).to_numpy(), dtype=np.int64)


def _before_1970(batch: pa.RecordBatch, column: str, now: int) -> Mask:
    del now
    return np.asarray(_micros(batch, column) < 0)


def _in_future(batch: pa.RecordBatch, column: str, now: int) -> Mask:
    return np.asarray(_micros(batch, column) > now + FUTURE_LIMIT)


_QUOTE_PRICES = ("bid_price", "ask_price")
_QUOTE_QUANTITIES = ("bid_quantity", "ask_quantity")
_TIMES = ("timestamp", "ingestion_timestamp")
_MARKET: tuple[Kind, ...] = ("trades", "quotes")
_AGAINST_ZERO = "is negative"
_EARLY = "is before 1970"
_LATE = "is more than a day ahead of the clock"

_NO_ROOM = "has more digits than its column in the table, which `k2beam warehouse upgrade` widens:"


def _never(batch: pa.RecordBatch, column: str, now: int) -> Mask:
    del column, now
    return np.zeros(batch.num_rows, dtype=np.bool_)


def _narrower(columns: pa.Schema, stored: pa.Schema) -> list[tuple[str, pa.Decimal128Type]]:
    """The decimals that a table has less room for than a batch."""
    decimals = (field.name for field in columns if pa.types.is_decimal(field.type) and field.name in stored.names)
    return [(name, stored.field(name).type) for name in decimals if stored.field(name).type != DECIMAL]


RULES: tuple[Rule, ...] = (
    Rule("empty_symbol", "is empty", ("symbol",), _empty),
    Rule("empty_exchange", "is empty", ("exchange",), _empty),
    Rule("bad_exchange", f"has more than {LONGEST_EXCHANGE} bytes, percent-encoded", ("exchange",), _too_long),
    Rule("negative_price", _AGAINST_ZERO, ("price",), _negative_price, ("trades",)),
    Rule("negative_price", _AGAINST_ZERO, _QUOTE_PRICES, _negative_price, ("quotes",)),
    Rule("negative_quantity", _AGAINST_ZERO, ("quantity",), _negative, ("trades",)),
    Rule("negative_quantity", _AGAINST_ZERO, _QUOTE_QUANTITIES, _negative, ("quotes",)),
    Rule("timestamp_before_1970", _EARLY, _TIMES, _before_1970, _MARKET),
    Rule("timestamp_before_1970", _EARLY, ("ingestion_timestamp",), _before_1970, ("reference_data",)),
    Rule("timestamp_in_future", _LATE, _TIMES, _in_future, _MARKET),
    Rule("timestamp_in_future", _LATE, ("ingestion_timestamp",), _in_future, ("reference_data",)),
)
"""In the order in which they are told; listing dates are exempt from the rules on time."""


def violations(kind: Kind, batch: pa.RecordBatch, now: int, stored: pa.Schema | None = None) -> tuple[Violation, ...]:
    """The rows of ``batch`` (event columns of ``kind``) that break a rule, each with the first it breaks.

    ``now`` is the clock in microseconds, UTC; ``stored`` are the table's columns, if its decimals are narrower than
    those of a batch. Costs well below a microsecond a row where none does.
    """
    checks = [(rule, column) for rule in RULES if kind in rule.kinds for column in rule.columns]
    masks = [rule.broken(batch, column, now) for rule, column in checks]
    for column, data_type in () if stored is None else _narrower(batch.schema, stored):
        checks.append((Rule("decimal_overflow", f"{_NO_ROOM} {data_type}", (), _never), column))
        masks.append(without_room(batch.column(column), data_type))
    broken = reduce(np.logical_or, masks, np.zeros(batch.num_rows, dtype=np.bool_))
    if not broken.any():
        return ()
    found = []
    for row in np.flatnonzero(broken).tolist():
        rule, column = next(check for check, mask in zip(checks, masks, strict=True) if mask[row])
        found.append(Violation(row, rule.name, f"{column} {rule.message}"))
    return tuple(found)


class ExchangeBound:
    """The names of exchanges that were taken, and no more than ``most`` of a kind: garbage must not fill a warehouse.

    Which names those are depends on which come first, but for those that ``known`` gives of a kind, which is asked once
    there are too many. Reference data are not divided by exchange. Not safe for threads.
    """

    def __init__(self, known: Callable[[Kind], Collection[str]], most: int = MOST_EXCHANGES) -> None:
        self._known, self._most = known, most
        self._taken: dict[Kind, set[str]] = {kind: set() for kind in _MARKET}
        self._given: dict[Kind, frozenset[str]] = {}

    def refused(self, kind: Kind, exchanges: pa.StringArray) -> tuple[Violation, ...]:
        """The rows with a name that is one too many; a null is no name."""
        if kind not in self._taken:
            return ()
        beyond = [name for name in exchanges.unique().drop_null().to_pylist() if not self._takes(kind, name)]
        if not beyond:
            return ()
        rows = np.flatnonzero(mask_of(pc.is_in(exchanges, pa.array(beyond))))
        message = f"exchange is beyond the {self._most:,} names that a worker takes; is it one?"
        return tuple(Violation(row, "too_many_exchanges", message) for row in rows.tolist())

    def _takes(self, kind: Kind, name: str) -> bool:
        taken = self._taken[kind]
        if name in taken:
            return True
        if len(taken) < self._most:
            taken.add(name)
            return True
        if kind not in self._given:
            self._given[kind] = frozenset(self._known(kind))
        return name in self._given[kind]
