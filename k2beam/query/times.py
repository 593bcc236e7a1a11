"""Times as people write them, as microseconds and as datetimes; all UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from k2beam.errors import UsageError

Instant = datetime | date | str
"""A moment; a naive one is UTC, a day is its midnight, a text is ISO 8601."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(microseconds: int) -> datetime:
    """Microseconds since the epoch as a datetime in UTC."""
    return EPOCH + timedelta(microseconds=microseconds)


def micros_of(when: datetime) -> int:
    """Microseconds since the epoch, of an aware datetime."""
    return (when - EPOCH) // timedelta(microseconds=1)


def to_instant(value: Instant, option: str) -> datetime:
    """The moment in UTC; a day is its midnight. Raises UsageError that names the option."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise UsageError(
                f"{option} {value!r} is not a time; write ISO 8601, such as 2026-01-05 or 2026-01-05T09:30:00Z"
            ) from None
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise UsageError(f"{option} {value} is outside the years 1 to 9999") from None


def to_day(value: date | str, option: str = "--day") -> date:
    """A calendar day (UTC). Raises UsageError that names the option."""
    if isinstance(value, datetime):
        return to_instant(value, option).date()
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise UsageError(f"{option} {value!r} is not a day; write YYYY-MM-DD, such as 2026-01-05") from None


def next_day(day: date) -> datetime:
    """The midnight (UTC) that ends a day. Raises UsageError for the last day that has none."""
    try:
        return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    except OverflowError:
        raise UsageError(f"--day {day} is the last day of the calendar") from None
