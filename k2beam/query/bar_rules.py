"""When a bar of trades begins: by the clock of a time zone, by a number of trades, or by a volume."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from k2beam.arrays import Ints
from k2beam.clock import MICROS_PER_DAY
from k2beam.errors import UsageError
from k2beam.query.times import EPOCH

_UNITS = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": MICROS_PER_DAY}
_TIME = re.compile(r"(\d{1,6})([smhd])")
_TRADES = re.compile(r"(\d{1,12}) ?trades")
_VOLUME = re.compile(r"volume ?(\S+)")
_FORMS = "write 1s, 5m, 1h, 1d, '100 trades' or 'volume 2.5'"
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class BarRule:
    """What a bar holds: the trades of ``micros`` by the clock, ``trades`` many, or as many as reach a ``volume``.

    Bars of time count from midnight in ``zone``, so that a bar never spans two days there; the last one of a day on
    which the clocks change may be shorter.

    Examples:
        >>> from k2beam.query.bar_rules import BarRule
        >>> BarRule.parse("5m").micros, BarRule.parse("100 trades").trades, BarRule.parse("volume 2.5").volume
        (300000000, 100, Decimal('2.5'))
    """

    micros: int = 0
    trades: int = 0
    volume: Decimal = Decimal(0)
    zone: str = "UTC"

    @staticmethod
    def parse(every: str, zone: str = "UTC") -> BarRule:
        """Raises UsageError for what is no rule, and for an unknown zone."""
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise UsageError(f"--zone {zone!r} is not a time zone; write one such as America/New_York") from None
        if found := _TIME.fullmatch(every):
            micros = int(found[1]) * _UNITS[found[2]]
            if micros == 0 or MICROS_PER_DAY % micros:
                raise UsageError(f"--every {every!r} does not divide a day into equal bars; {_FORMS}")
            return BarRule(micros=micros, zone=zone)
        if (found := _TRADES.fullmatch(every)) and int(found[1]):
            return BarRule(trades=int(found[1]))
        if found := _VOLUME.fullmatch(every):
            return BarRule(volume=_volume(found[1], every))
        raise UsageError(f"--every {every!r} is no size of a bar; {_FORMS}")

    def starts(self, times: Ints) -> Ints:
        """When the bar of each moment begins; microseconds UTC."""
        if self.zone == "UTC" or not len(times):
            return np.asarray(times - times % self.micros)
        midnights = self._midnights(int(times.min()), int(times.max()))
        day = midnights[np.searchsorted(midnights, times, side="right") - 1]
        return np.asarray(day if self._is_day else day + (times - day) // self.micros * self.micros)

    def ends(self, starts: Ints) -> Ints:
        """When the bars that begin then end: after their time, or with the day."""
        if self.zone == "UTC" or not len(starts):
            return starts + self.micros
        midnights = self._midnights(int(starts.min()), int(starts.max()))
        following = midnights[np.searchsorted(midnights, starts, side="right")]
        return following if self._is_day else np.minimum(starts + self.micros, following)

    def between(self, first: int, last: int) -> Ints:
        """The starts of all bars from that of the moment ``first`` to that of ``last``."""
        if self.zone == "UTC":
            return np.arange(first - first % self.micros, last + 1, self.micros)
        midnights = self._midnights(first, last)
        if self._is_day:
            starts = midnights
        else:
            days = zip(midnights.tolist(), midnights[1:].tolist(), strict=False)
            starts = np.concatenate([np.arange(begin, end, self.micros) for begin, end in days])
        low, high = self.starts(np.array([first, last]))
        return np.asarray(starts[(starts >= low) & (starts <= high)], np.int64)

    @property
    def _is_day(self) -> bool:
        return self.micros == MICROS_PER_DAY

    def _midnights(self, first: int, last: int) -> Ints:
        """The midnights of the zone around two moments: from the last before the first to one after the last."""
        zone = ZoneInfo(self.zone)
        begin, end = (date_of(moment, zone) + timedelta(days=days) for moment, days in ((first, -1), (last, 2)))
        days = [begin + timedelta(days=number) for number in range((end - begin).days + 1)]
        found = (datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC) for day in days)
        return np.array([(midnight - EPOCH) // _MICROSECOND for midnight in found], np.int64)


def date_of(moment: int, zone: ZoneInfo) -> date:
    """The day in a zone, of microseconds UTC."""
    return (EPOCH + timedelta(microseconds=moment)).astimezone(zone).date()


def _volume(text: str, every: str) -> Decimal:
    try:
        volume = Decimal(text)
    except InvalidOperation:
        volume = Decimal(0)
    if not volume.is_finite() or volume <= 0:
        raise UsageError(f"--every {every!r}: the volume must be a number above 0; {_FORMS}")
    return volume
