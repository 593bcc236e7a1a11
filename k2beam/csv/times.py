"""Text to times: formats, time zones, and the hours that clocks repeat or leave out. Whole columns at once.

The directives are those of Python's ``strptime``: ``%Y %m %d %b %H %I %p %M %S %f %z``, where ``%f`` takes one to
eighteen digits, and ``%N``, the seconds since midnight, with a fraction or without. ``epoch-s``, ``epoch-ms``,
``epoch-us`` and ``epoch-ns`` are numbers since 1970, UTC, with a fraction or without; ``epoch`` is whichever of them
the number of digits says: 10, 13, 16 or 19, so from September 2001 on. Digits finer than a microsecond are told apart.
A time outside the years 1 to 9999 in UTC can't be read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2beam.arrays import Ints, Mask, mask_of, text_bytes, whole_numbers
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
    "f": r"(?P<f>\d{1,18})",
    "N": r"(?P<N>\d{1,5})(?:\.(?P<n>\d{1,18}))?",
    "z": r"(?P<z>Z|[+-](?:[01]\d|2[0-3]):?[0-5]\d)",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_EPOCHS = {"epoch-s": 6, "epoch-ms": 3, "epoch-us": 0, "epoch-ns": -3}
"""The digits of a microsecond that come after the point."""
_BY_DIGITS = {10: "epoch-s", 13: "epoch-ms", 16: "epoch-us", 19: "epoch-ns"}
_EPOCH = r"^(?P<sign>-?)0*(?P<whole>\d{1,19})(?:\.(?P<part>\d{1,18}))?$"
_SECOND = 1_000_000
_DIGITS = 6


class Times(NamedTuple):
    """Microseconds, UTC, and masks of the rows that are none: unreadable, or a local time of no or two moments.

    ``finer`` has the digits after the microseconds, without zeros at the end; empty where there are none.
    """

    values: Ints
    unreadable: Mask
    ambiguous: Mask
    left_out: Mask
    finer: pa.StringArray


@dataclass(frozen=True, slots=True)
class TimeRule:
    """Formats in the order in which they are tried, the zone (IANA) of local ones, and what a repeated hour means.

    ``cut``: a time finer than a microsecond is taken, without its last digits.
    """

    formats: tuple[str, ...]
    zone: str | None = None
    ambiguous: Ambiguous = "refuse"
    cut: bool = False

    @staticmethod
    def parse(formats: Sequence[str], zone: str | None, ambiguous: str, finer: str = "refuse") -> TimeRule:
        """The rule, checked. Raises UsageError that names the format, zone or word that is wrong."""
        if finer not in ("refuse", "cut"):
            raise UsageError(f"finer_than_microsecond must be refuse or cut, not {finer!r}")
        if ambiguous not in ("refuse", "first", "second"):
            raise UsageError(f"ambiguous must be refuse, first or second, not {ambiguous!r}")
        local = [text for text in formats if text not in (*_EPOCHS, "epoch") and "z" not in _compile(text).groupindex]
        if local and zone is None:
            raise UsageError(
                f"format {local[0]!r} tells a local time: give its `zone`, such as UTC or Australia/Sydney"
            )
        if zone is not None:
            try:
                pc.assume_timezone(pa.scalar(0, pa.timestamp("us")), zone)
            except pa.ArrowInvalid as error:
                raise UsageError(f"zone {zone!r} is not in the time zone database of this machine") from error
        return TimeRule(tuple(formats), zone, cast("Ambiguous", ambiguous), finer == "cut")

    def read(self, texts: pa.StringArray) -> Times:
        """The times of a column of text (no nulls). A format that reads a text exactly is preferred."""
        count = len(texts)
        values, known, exact = np.zeros(count, np.int64), np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        ambiguous, left_out = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        finer = pa.repeat(pa.scalar(""), count)
        for form in self._forms():
            rows = np.flatnonzero(~exact)
            if not len(rows):
                break
            part = texts if len(rows) == count else texts.take(pa.array(rows))
            found = self._read_as(form, part)
            whole = text_bytes(found.finer) == 0
            # A zone or an offset can also move a time of the years 1 and 9999 out of them.
            read = ~found.unreadable & (found.values >= MIN_TIMESTAMP) & (found.values <= MAX_TIMESTAMP)
            read &= whole | ~known[rows]
            good = rows[read]
            values[good] = found.values[read]
            ambiguous[good] = found.ambiguous[read]
            left_out[good] = found.left_out[read]
            known[good] = True
            exact[good] = whole[read]
            taken = np.zeros(count, np.bool_)
            taken[good] = True
            finer = pc.replace_with_mask(finer, pa.array(taken), found.finer.filter(pa.array(read)))
        return Times(values, ~known, ambiguous, left_out, finer)

    def _forms(self) -> Iterator[str]:
        for form in self.formats:
            yield from [f"epoch:{digits}" for digits in _BY_DIGITS] if form == "epoch" else [form]

    def _read_as(self, form: str, texts: pa.StringArray) -> Times:
        never = np.zeros(len(texts), np.bool_)
        form, _, digits = form.partition(":") if form.startswith("epoch:") else (form, "", "")
        if form in _EPOCHS or digits:
            values, good, finer = _epoch(_BY_DIGITS[int(digits)] if digits else form, texts)
            if digits:
                good &= mask_of(pc.match_substring_regex(texts, rf"^\d{{{digits}}}(?:\.|$)"))
            return Times(values, ~good, never, never, finer)
        local, offset, good, finer = _fields(form, texts)
        if offset is not None:
            return Times(local - offset, ~good, never, never, finer)
        assert self.zone is not None, "parse() asks for the zone of local times"
        if self.zone == "UTC":
            return Times(local, ~good, never, never, finer)
        return Times(*_to_utc(local, good, self.zone, self.ambiguous), finer)


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
    if "N" in names and names & set("HIpMSf"):
        raise UsageError(f"format {form!r}: %N is the whole time of the day; no other directive of it can be beside it")
    if not {"Y", "d"} <= names or not names & {"m", "b"} or ("I" in names) != ("p" in names):
        raise UsageError(
            f"format {form!r} must tell year, month and day, and %I and %p only together; or take epoch-ms"
        )
    return pattern


def _epoch(form: str, texts: pa.StringArray) -> tuple[Ints, Mask, pa.StringArray]:
    found = pc.extract_regex(texts, pattern=_EPOCH)
    good = mask_of(found.is_valid())
    sign, whole, part = (pc.if_else(pa.array(good), found.field(name), "") for name in ("sign", "whole", "part"))
    after = _EPOCHS[form]
    if after < 0:
        whole = pc.utf8_lpad(whole, 1 - after, "0")
        part = pc.binary_join_element_wise(pc.utf8_slice_codeunits(whole, after), part, "")
        whole = pc.utf8_slice_codeunits(whole, 0, after)
    micros, finer = _fraction(part, max(after, 0))
    # Of so many digits a time of the year 9999 has no more, and no number of them is too large for 64 bits.
    good &= text_bytes(whole) + max(after, 0) <= len(str(MAX_TIMESTAMP))
    values = whole_numbers(pc.if_else(pa.array(good), whole, "0")) * 10 ** max(after, 0) + micros
    negative = mask_of(pc.equal(sign, "-"))
    values[negative] *= -1
    # Digits cut off a time before 1970 would have to be counted back from it: no feed is known that needs it.
    return values, good & ~(negative & (text_bytes(finer) > 0)), finer


def _fields(form: str, texts: pa.StringArray) -> tuple[Ints, Ints | None, Mask, pa.StringArray]:
    """Local microseconds, the offset from UTC where the format has one, which rows are times, and finer digits."""
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
    if "N" in names:
        hour, (minute, second) = number("N") // 3600, np.divmod(number("N") % 3600, 60)
    good &= (hour < 24) & (minute < 60) & (second < 60) & (month >= 1) & (month <= 12) & (day >= 1) & (year >= 1)
    months = (np.where(good, year, 1970) - 1970) * 12 + np.where(good, month, 1) - 1
    dates = months.astype("M8[M]").astype("M8[D]") + (day - 1)
    good &= dates.astype("M8[M]") == months.astype("M8[M]")
    fraction = next((name for name in ("f", "n") if name in names), "")
    micros, finer = _fraction(group(fraction, "") if fraction else pa.repeat(pa.scalar(""), len(texts)))
    local = dates.astype(np.int64) * 86_400 * _SECOND + ((hour * 60 + minute) * 60 + second) * _SECOND + micros
    return local, _offset(group("z", "Z")) if "z" in names else None, good, finer


def _fraction(texts: pa.StringArray, digits: int = _DIGITS) -> tuple[Ints, pa.StringArray]:
    """Microseconds of the digits after a point, of which ``digits`` make them, and the finer digits."""
    padded = pc.utf8_rpad(texts, digits, "0")
    micros = whole_numbers(pc.utf8_slice_codeunits(padded, 0, digits)) if digits else np.zeros(len(texts), np.int64)
    return micros, pc.utf8_rtrim(pc.utf8_slice_codeunits(padded, digits), "0")


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
