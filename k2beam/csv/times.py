"""Text to times: formats, time zones, and the hours that clocks repeat or leave out. Whole columns at once.

The directives are those of Python's ``strptime``: ``%Y %m %d %b %H %I %p %M %S %f %z``, where ``%f`` takes one to
nine digits (none of them finer than a microsecond may be other than 0). ``epoch-s``, ``epoch-ms``, ``epoch-us`` and
``epoch-ns`` are whole numbers since 1970, UTC. A time outside the years 1 to 9999 in UTC can't be read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2beam.arrays import Ints, Mask, mask_of, whole_numbers
from k2beam.errors import UsageError
from k2beam.model import MAX_TIMESTAMP, MIN_TIMESTAMP, TIMESTAMP

Ambiguous = Literal["refuse", "first", "second"]

_DIRECTIVES = {
    "Y": r"(?P<Y>\d{4})",
    "m": r"(?P<m>\d{1,2})",
    "d": r"(?P<d>\d{1,2})",
    "b": r"(?P<b>[A-Za-z]{3})",
    "H": r"(?P<H>\d{1,2})",
    "I": r"(?P<I>\d{1,2})",
    "p": r"(?P<p>[AaPp][Mm])",
    "M": r"(?P<M>\d{1,2})",
    "S": r"(?P<S>\d{1,2})",
    "f": r"(?P<f>\d{1,9})",
    "z": r"(?P<z>Z|[+-](?:[01]\d|2[0-3]):?[0-5]\d)",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_EPOCHS = {"epoch-s": 1_000_000, "epoch-ms": 1_000, "epoch-us": 1, "epoch-ns": 0}
_WHOLE = r"^-?\d{1,19}$"
_DIGITS = 19
_MAX_INT64 = str(2**63 - 1)
_SECOND = 1_000_000


class Times(NamedTuple):
    """Microseconds, UTC, and masks of the rows that are none: unreadable, or a local time of no or two moments."""

    values: Ints
    unreadable: Mask
    ambiguous: Mask
    left_out: Mask


@dataclass(frozen=True, slots=True)
class TimeRule:
    """Formats in the order in which they are tried, the zone (IANA) of local ones, and what a repeated hour means."""

    formats: tuple[str, ...]
    zone: str | None = None
    ambiguous: Ambiguous = "refuse"

    @staticmethod
    def parse(formats: Sequence[str], zone: str | None, ambiguous: str) -> TimeRule:
        """The rule, checked. Raises UsageError that names the format, zone or word that is wrong."""
        if ambiguous not in ("refuse", "first", "second"):
            raise UsageError(f"ambiguous must be refuse, first or second, not {ambiguous!r}")
        local = [text for text in formats if text not in _EPOCHS and "z" not in _compile(text).groupindex]
        if local and zone is None:
            raise UsageError(
                f"format {local[0]!r} tells a local time: give its `zone`, such as UTC or Australia/Sydney"
            )
        if zone is not None:
            try:
                pc.assume_timezone(pa.scalar(0, pa.timestamp("us")), zone)
            except pa.ArrowInvalid as error:
                raise UsageError(f"zone {zone!r} is not in the time zone database of this machine") from error
        return TimeRule(tuple(formats), zone, cast("Ambiguous", ambiguous))

    def read(self, texts: pa.StringArray) -> Times:
        """The times of a column of text (no nulls)."""
        count = len(texts)
        values, known = np.zeros(count, np.int64), np.zeros(count, np.bool_)
        ambiguous, left_out = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        for form in self.formats:
            rows = np.flatnonzero(~known)
            if not len(rows):
                break
            part = texts if len(rows) == count else texts.take(pa.array(rows))
            found = self._read_as(form, part)
            # A zone or an offset can also move a time of the years 1 and 9999 out of them.
            read = ~found.unreadable & (found.values >= MIN_TIMESTAMP) & (found.values <= MAX_TIMESTAMP)
            good = rows[read]
            values[good] = found.values[read]
            ambiguous[good] = found.ambiguous[read]
            left_out[good] = found.left_out[read]
            known[good] = True
        return Times(values, ~known, ambiguous, left_out)

    def _read_as(self, form: str, texts: pa.StringArray) -> Times:
        never = np.zeros(len(texts), np.bool_)
        if form in _EPOCHS:
            values, good = _epoch(form, texts)
            return Times(values, ~good, never, never)
        local, offset, good = _fields(form, texts)
        if offset is not None:
            return Times(local - offset, ~good, never, never)
        assert self.zone is not None, "parse() asks for the zone of local times"
        if self.zone == "UTC":
            return Times(local, ~good, never, never)
        return Times(*_to_utc(local, good, self.zone, self.ambiguous))


@functools.lru_cache(maxsize=64)
def _compile(form: str) -> re.Pattern[str]:
    parts = re.split(r"%(.)", form)
    unknown = [name for name in parts[1::2] if name not in _DIRECTIVES and name != "%"]
    if unknown or parts[-1].endswith("%"):
        raise UsageError(f"format {form!r}: %{(unknown or [''])[0]} is not known; known are %{' %'.join(_DIRECTIVES)}")
    texts = [_DIRECTIVES.get(part, "%") if number % 2 else re.escape(part) for number, part in enumerate(parts)]
    try:
        pattern = re.compile(f"^{''.join(texts)}$")
    except re.error as error:
        raise UsageError(f"format {form!r} has a directive twice") from error
    names = set(pattern.groupindex)
    if not {"Y", "d"} <= names or not names & {"m", "b"} or ("I" in names) != ("p" in names):
        raise UsageError(
            f"format {form!r} must tell year, month and day, and %I and %p only together; or take epoch-ms"
        )
    return pattern


def _epoch(form: str, texts: pa.StringArray) -> tuple[Ints, Mask]:
    padded = pc.utf8_lpad(pc.utf8_ltrim(texts, "-"), _DIGITS, "0")
    good = mask_of(pc.match_substring_regex(texts, _WHOLE)) & mask_of(pc.less_equal(padded, _MAX_INT64))
    numbers = whole_numbers(pc.if_else(pa.array(good), texts, "0"))
    factor = _EPOCHS[form]
    if not factor:
        return numbers // 1000, good & (numbers % 1000 == 0)
    good &= np.abs(numbers) <= MAX_TIMESTAMP // factor
    return np.where(good, numbers, 0) * factor, good


def _fields(form: str, texts: pa.StringArray) -> tuple[Ints, Ints | None, Mask]:
    """Local microseconds, the offset from UTC where the format has one, and which rows are times at all."""
    pattern = _compile(form)
    found = pc.extract_regex(texts, pattern=pattern.pattern)
    matched = mask_of(found.is_valid())
    good = matched.copy()
    names = pattern.groupindex

    def group(name: str, otherwise: str) -> pa.StringArray:
        # The groups of a text that does not match are empty, not null.
        return pc.if_else(pa.array(matched), found.field(name), otherwise)

    def number(name: str, default: int = 0) -> Ints:
        return whole_numbers(group(name, "0")) if name in names else np.full(len(texts), default, np.int64)

    month = number("m") if "m" in names else _positions(group("b", ""))
    hour = number("H")
    if "I" in names:
        twelve = number("I")
        good &= (twelve >= 1) & (twelve <= 12)
        hour = twelve % 12 + 12 * (_positions(group("p", "am"), ("am", "pm")) - 1)
    minute, second, day, year = number("M"), number("S"), number("d"), number("Y")
    good &= (hour < 24) & (minute < 60) & (second < 60) & (month >= 1) & (month <= 12) & (day >= 1) & (year >= 1)
    months = (np.where(good, year, 1970) - 1970) * 12 + np.where(good, month, 1) - 1
    dates = months.astype("M8[M]").astype("M8[D]") + (day - 1)
    good &= dates.astype("M8[M]") == months.astype("M8[M]")
    micros = _fraction(group("f", "0")) if "f" in names else np.zeros(len(texts), np.int64)
    good &= micros >= 0
    local = dates.astype(np.int64) * 86_400 * _SECOND + ((hour * 60 + minute) * 60 + second) * _SECOND + micros
    return local, _offset(group("z", "Z")) if "z" in names else None, good


def _fraction(texts: pa.StringArray) -> Ints:
    """Microseconds of the digits after the point; -1 where they are finer."""
    nanos = whole_numbers(pc.utf8_rpad(texts, 9, "0"))
    return np.where(nanos % 1000, -1, nanos // 1000)


def _offset(texts: pa.StringArray) -> Ints:
    """Microseconds ahead of UTC."""
    digits = pc.replace_substring(pc.replace_substring(texts, "Z", "+0000"), ":", "")
    hours, minutes = (whole_numbers(pc.utf8_slice_codeunits(digits, start, start + 2)) for start in (1, 3))
    signs = np.where(mask_of(pc.starts_with(digits, "-")), -1, 1).astype(np.int64)
    return signs * (hours * 60 + minutes) * (60 * _SECOND)


def _positions(texts: pa.StringArray, words: Sequence[str] = _MONTHS) -> Ints:
    """Places among ``words``, from 1; 0 where a text is none of them."""
    found = pc.index_in(pc.utf8_lower(texts), pa.array(words))
    return cast("Ints", pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64) + 1)


def _to_utc(local: Ints, good: Mask, zone: str, ambiguous: Ambiguous) -> tuple[Ints, Mask, Mask, Mask]:
    naive = pa.array(np.where(good, local, 0)).cast(pa.timestamp("us"))
    first = pc.assume_timezone(naive, zone, ambiguous="earliest", nonexistent="earliest")
    last = pc.assume_timezone(naive, zone, ambiguous="latest", nonexistent="latest")
    early, late = (array.cast(pa.int64()).to_numpy() for array in (first, last))
    values = np.array(late if ambiguous == "second" else early)
    doubtful = early != late
    if not doubtful.any():
        return values, ~good, doubtful, doubtful
    # A time that the clocks showed comes out again; one that they left out does not.
    shown = pc.local_timestamp(first).cast(pa.int64()).to_numpy() == naive.cast(pa.int64()).to_numpy()
    twice = doubtful & shown if ambiguous == "refuse" else np.zeros(len(values), np.bool_)
    return values, ~good, twice, doubtful & ~shown


def time_array(values: Ints) -> pa.Array:
    """Microseconds as a column of the tables."""
    return pa.array(values).cast(TIMESTAMP)
