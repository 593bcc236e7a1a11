"""How exchanges number their messages, where it is not by symbol and without end.

A rule says whose numbers are counted together (a symbol's, or a channel's), and when they begin anew. Numbers under a
rule with a restart are counted apart for each *session*, and within one a low number is late, never a reset. So such a
key has the session in its name, and its numbers are raised by :data:`RAISED`: none of them is less than half of another
then, which is what :mod:`k2beam.sequence.recount` takes for a fall. :meth:`KeyName.told_apart` undoes both.
"""

from __future__ import annotations

import json
import re
import tomllib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import time
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2beam.arrays import Ints
from k2beam.clock import MICROS_PER_DAY
from k2beam.errors import UsageError
from k2beam.model import KINDS, Kind
from k2beam.sequence.recount import Epoch
from k2beam.sequence.runs import Slice, slice_runs
from k2beam.topics import topic_of_source

RAISED = 1 << 62
"""Numbers under a rule with a restart are raised by it; those from it on can't be, and count as none."""

VENDOR_DATA = "vendor_data"
NO_NUMBER = -1

_SEPARATOR = "\x1f"
_EARLIEST = -62_135_596_800_000_000
_RESTARTS = ("guess", "never", "daily", "session")
_LARGEST_EPOCH = 2**31 - 1

Values = Callable[[str], pa.Array]
"""Gives a column of some rows, as texts or in a dictionary of texts, by its name or by a key of vendor_data."""


@dataclass(frozen=True, slots=True)
class SequenceRule:
    """The rule of an exchange's feed, or of the topics whose whole names match ``topic``.

    ``channel`` and ``session``: a column of the events, or a key of ``vendor_data``. ``restart``: ``guess`` (as without
    a rule), ``never``, ``daily`` at ``at`` by the clocks of ``zone``, or ``session``, when its value changes.
    ``first``: the number that a session begins with, if it's known. ``unsequenced``: there is none to count.
    """

    exchange: str | None = None
    topic: str | None = None
    kinds: tuple[Kind, ...] = ("trades", "quotes")
    channel: str | None = None
    restart: str = "guess"
    at: str = "00:00"
    zone: str = "UTC"
    session: str | None = None
    first: int | None = None
    unsequenced: bool = False

    @property
    def columns(self) -> set[str]:
        """What it needs of the rows, beside exchange, symbol, time and number."""
        return {*filter(None, (self.channel, self.session)), *(["_source"] if self.topic else [])}

    def epochs(self, times: Ints, values: Values) -> Ints:
        """The session of each row: 0, a day as in 20260105, or the number that names it."""
        if self.restart == "daily":
            return _days(times, self.zone, self.at)
        if self.restart == "session" and self.session is not None:
            texts = pc.fill_null(values(self.session), "").dictionary_encode()
            numbers = np.array([_number(text) for text in texts.dictionary.to_pylist()], dtype=np.int64)
            return np.asarray(numbers[texts.indices.to_numpy()])
        return np.zeros(len(times), dtype=np.int64)


class NumberedRows(NamedTuple):
    """The key of each row, as a place in ``keys`` (exchange and name), and its number, or :data:`NO_NUMBER`."""

    codes: Ints
    keys: list[tuple[str, str]]
    sequences: Ints


@dataclass(frozen=True, slots=True)
class SequenceRules:
    """Rules in the order in which they are tried; the first that fits a row is its. Without any, all is guessed.

    Examples:
        >>> from k2beam.sequence import SequenceRules
        >>> rules = SequenceRules.parse('[[rule]]\\nexchange = "X"\\nrestart = "daily"\\nzone = "UTC"', "here")
        >>> rules.rules[0].restart, rules.columns("trades")
        ('daily', set())
    """

    rules: tuple[SequenceRule, ...] = ()

    @staticmethod
    def parse(text: str, where: str) -> SequenceRules:
        """Rules in TOML, checked. Raises UsageError, naming ``where`` and the rule, for what is wrong."""
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{where}: not TOML: {error}") from error
        given = data.get("rule", [])
        if set(data) - {"rule"} or not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise UsageError(f"{where}: there is nothing but [[rule]] in it, once for each rule")
        return SequenceRules(tuple(_rule(one, f"{where}: rule {number}") for number, one in enumerate(given, 1)))

    @staticmethod
    def from_json(text: str) -> SequenceRules:
        """What :meth:`to_json` gave."""
        return SequenceRules(tuple(SequenceRule(**{**one, "kinds": tuple(one["kinds"])}) for one in json.loads(text)))

    def to_json(self) -> str:
        """As it is kept with the tables; the same rules give the same text."""
        return json.dumps([asdict(rule) for rule in self.rules], sort_keys=True)

    def of_kind(self, kind: Kind) -> SequenceRules:
        """The rules that say something of a kind."""
        return replace(self, rules=tuple(rule for rule in self.rules if kind in rule.kinds))

    def columns(self, kind: Kind) -> set[str]:
        """What they need of the rows of a kind: columns of the events, or keys of vendor_data."""
        return {name for rule in self.of_kind(kind).rules for name in rule.columns}

    def number(
        self, exchange: pa.DictionaryArray, symbol: pa.DictionaryArray, times: Ints, sequences: Ints, values: Values
    ) -> NumberedRows:
        """The keys and numbers of rows; ``times`` are microseconds UTC, a number below 0 is none."""
        exchanges, names = exchange.dictionary.to_pylist(), symbol.dictionary.to_pylist()
        owners, named = exchange.indices.to_numpy().astype(np.int64), symbol.indices.to_numpy().astype(np.int64)
        if not self.rules:
            return NumberedRows(*_by_symbol(exchanges, list(map(key_name, names)), owners, named), sequences)
        sequences, epochs, chosen = (
            sequences.copy(),
            np.zeros(len(times), np.int64),
            np.full(len(times), len(self.rules)),
        )
        for number, rule in reversed(list(enumerate(self.rules))):
            chosen[_fitting(rule, exchange, values)] = number
        for number in np.unique(chosen).tolist():
            if number == len(self.rules):
                continue
            rule, mine = self.rules[number], chosen == number
            if rule.channel is not None:
                channel = values(rule.channel).dictionary_encode()
                known = mine & channel.is_valid().to_numpy(zero_copy_only=False)
                named[known] = channel.indices.fill_null(0).to_numpy()[known] + len(names)
                names += channel.dictionary.to_pylist()
                sequences[mine & ~known] = NO_NUMBER
            if rule.unsequenced:
                sequences[mine] = NO_NUMBER
            if rule.restart != "guess":
                epochs[mine] = rule.epochs(times, values)[mine]
                counted = mine & (sequences >= 0) & (sequences < RAISED)
                sequences[mine & ~counted] = NO_NUMBER
                sequences[counted] += RAISED
        distinct, codes = np.unique(np.stack((owners, named, chosen, epochs)), axis=1, return_inverse=True)
        keys = [
            (exchanges[owner], self._named(names[name], rule, epoch))
            for owner, name, rule, epoch in distinct.T.tolist()
        ]
        return NumberedRows(codes.reshape(-1).astype(np.int64), keys, sequences)

    def _named(self, symbol: str, number: int, epoch: int) -> str:
        rule = self.rules[number] if number < len(self.rules) else None
        return key_name(symbol) if rule is None or rule.restart == "guess" else key_name(symbol, epoch, rule.first)


def key_name(symbol: str, epoch: int | None = None, first: int | None = None) -> str:
    """The name of a key: the symbol or channel, and the session if it has one; :meth:`KeyName.read` reads it."""
    if epoch is None and _SEPARATOR not in symbol:
        return symbol
    return _SEPARATOR.join((symbol, *("" if part is None else str(part) for part in (epoch, first))))


class KeyName(NamedTuple):
    """What the name of a key says: a symbol or channel, and of which session (None: it has none).

    Examples:
        >>> from k2beam.sequence import KeyName
        >>> from k2beam.sequence.rules import key_name
        >>> KeyName.read("BTCUSDT").epoch
        >>> KeyName.read(key_name("channel-7", epoch=20260105, first=1))
        KeyName(symbol='channel-7', epoch=20260105, first=1)
    """

    symbol: str
    epoch: int | None = None
    first: int | None = None

    @staticmethod
    def read(name: str) -> KeyName:
        """The parts of what :func:`key_name` gave."""
        if _SEPARATOR not in name:
            return KeyName(name)
        symbol, *session = name.rsplit(_SEPARATOR, 2)
        epoch, first = (int(part) if part else None for part in session)
        return KeyName(symbol, epoch, first)

    @property
    def raised(self) -> int:
        """What its numbers are raised by."""
        return 0 if self.epoch is None else RAISED

    @property
    def beginning(self) -> tuple[Slice, ...]:
        """Stands for the number before the first, so that a session which is joined late has a gap."""
        if self.first is None:
            return ()
        one = np.array([self.first - 1 + RAISED], dtype=np.int64)
        return tuple(piece for _, piece in slice_runs(np.zeros(1, np.int64), one, np.array([_EARLIEST])))

    def told_apart(self, epochs: Iterable[Epoch]) -> tuple[Epoch, ...]:
        """The epochs with the numbers of the exchange, and the session as theirs."""
        if self.epoch is None:
            return tuple(epochs)
        return tuple(found for epoch in epochs if (found := self._own(epoch)).received)

    def _own(self, epoch: Epoch) -> Epoch:
        assert self.epoch is not None
        stands_for = 0 if self.first is None else 1
        gaps = (replace(gap, first=gap.first - RAISED, last=gap.last - RAISED) for gap in epoch.gaps)
        return replace(
            epoch,
            number=self.epoch,
            first_sequence=epoch.first_sequence - RAISED + stands_for,
            last_sequence=epoch.last_sequence - RAISED,
            received=epoch.received - stands_for,
            gaps=tuple(gaps),
        )


def _by_symbol(
    exchanges: Sequence[str], names: Sequence[str], owners: Ints, named: Ints
) -> tuple[Ints, list[tuple[str, str]]]:
    """The keys where no rule says anything."""
    if len(exchanges) == 1:
        return named, [(exchanges[0], name) for name in names]
    pairs = owners * len(names) + named
    present = np.flatnonzero(np.bincount(pairs, minlength=len(exchanges) * len(names)))
    codes = np.zeros(len(exchanges) * len(names), dtype=np.int64)
    codes[present] = np.arange(len(present))
    return codes[pairs], [(exchanges[pair // len(names)], names[pair % len(names)]) for pair in present.tolist()]


def _fitting(rule: SequenceRule, exchange: pa.DictionaryArray, values: Values) -> Any:
    fits = np.array([rule.exchange in (None, name) for name in exchange.dictionary.to_pylist()], dtype=np.bool_)
    mask = fits[exchange.indices.to_numpy()]
    if rule.topic is None or not mask.any():
        return mask
    sources = values("_source").dictionary_encode()
    topics = [
        topic_of_source(source) if source.startswith("kafka:") else "" for source in sources.dictionary.to_pylist()
    ]
    matched = np.array([re.fullmatch(rule.topic, topic) is not None for topic in topics], dtype=np.bool_)
    return mask & matched[sources.indices.to_numpy()]


def _days(times: Ints, zone: str, at: str) -> Ints:
    """The day on which each moment's session began, as in 20260105."""
    local = pc.local_timestamp(pa.array(times).cast(pa.timestamp("us", zone))).cast(pa.int64()).to_numpy()
    began = time.fromisoformat(at)
    days, codes = np.unique(
        (local - (began.hour * 60 + began.minute) * 60_000_000) // MICROS_PER_DAY, return_inverse=True
    )
    dates = days.astype("M8[D]")
    months = dates.astype("M8[M]")
    number = (months.astype("M8[Y]").astype(np.int64) + 1970) * 10_000 + (months.astype(np.int64) % 12 + 1) * 100
    return np.asarray((number + (dates - months).astype(np.int64) + 1)[codes])


def _number(text: str) -> int:
    """A session's name as a number of 31 bits: itself, if it is one, or a checksum."""
    plain = int(text) if text.isascii() and text.isdigit() and len(text) < 11 else _LARGEST_EPOCH + 1
    return plain if plain <= _LARGEST_EPOCH else zlib.crc32(text.encode()) & _LARGEST_EPOCH


def _rule(given: Mapping[str, Any], where: str) -> SequenceRule:
    known = SequenceRule.__dataclass_fields__
    if unknown := sorted(set(given) - set(known)):
        raise UsageError(f"{where} has no {unknown[0]!r}; known are {', '.join(known)}")
    for name, value in given.items():
        wanted = {"kinds": list, "first": int, "unsequenced": bool}.get(name, str)
        if type(value) is not wanted:
            raise UsageError(f"{where}: {name} must be a {wanted.__name__}, not {value!r}")
    rule = SequenceRule(**{**given, "kinds": tuple(given.get("kinds", ("trades", "quotes")))})
    if rule.exchange is None and rule.topic is None:
        raise UsageError(f"{where} must name an exchange, or a topic by a regular expression")
    if rule.restart not in _RESTARTS or not set(rule.kinds) <= set(KINDS):
        raise UsageError(f"{where}: restart is one of {', '.join(_RESTARTS)}, and kinds are of {', '.join(KINDS)}")
    if (rule.restart == "session") != (rule.session is not None):
        raise UsageError(f'{where}: restart = "session" and `session`, the column or key that names it, go together')
    if rule.first is not None and (rule.restart == "guess" or not 0 <= rule.first < RAISED):
        raise UsageError(f"{where}: first is a number of 0 or more, and needs a restart: never, daily or session")
    try:
        re.compile(rule.topic or "")
        time.fromisoformat(rule.at)
        pc.assume_timezone(pa.scalar(0, pa.timestamp("us")), rule.zone)
    except (re.error, ValueError) as error:
        raise UsageError(f"{where}: {error}") from error
    return rule


def values_of(rows: pa.RecordBatch) -> Values:
    """The columns of events that rules name, and the keys of their ``vendor_data``."""

    def values(name: str) -> pa.Array:
        if name in rows.schema.names and name != VENDOR_DATA:
            column = rows.column(name)
            return column if pa.types.is_dictionary(column.type) else column.cast(pa.string())
        return pc.map_lookup(rows.column(VENDOR_DATA), name, "first")

    return values


NO_RULES = SequenceRules()
