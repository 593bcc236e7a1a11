"""Checks of one record before it is produced, field by field: its type by the schema, then its value.

The value's rules are those that validation has for batches (:mod:`k2beam.validation`), so that what a producer
takes, the pipeline keeps; here they cost microseconds a record.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any, NamedTuple

from k2beam.codec.avro_schema import (
    Array,
    AvroType,
    Enum,
    Field,
    Map,
    Primitive,
    decimal_digits,
    record_type,
    without_null,
)
from k2beam.errors import InvalidRecord, SchemaError
from k2beam.model import DECIMAL, Kind
from k2beam.schemas import avro_schema, latest_name, v2_name
from k2beam.validation import FUTURE_LIMIT, PRICED_ABOVE_ZERO

_V2_DIGITS, _V2_PLACES = 10, 8
"""Before and behind the point of decimal(18,8)."""

_EXACT = Context(prec=2 * DECIMAL.precision)

_LONG = 1 << 63
_INT = 1 << 31
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Check = Callable[[Any], Any]
"""The value as the encoder wants it. Raises ValueError, which says what is wrong with it."""


class _Plan(NamedTuple):
    fields: tuple[tuple[str, Check, bool], ...]  # name, check, whether it may be left out
    names: frozenset[str]


def checked(kind: Kind, record: Mapping[str, Any], now_us: int | None = None) -> dict[str, Any]:
    """``record`` as the encoder takes it: known fields, times as datetimes in UTC, decimals with at most 18 places.

    A time is a datetime (naive means UTC) or microseconds since 1970, UTC. A price or quantity is a Decimal or an
    int; a float is refused, as it has lost its digits. Fields with a default may be left out. ``now_us`` is the
    clock, microseconds UTC. Raises InvalidRecord, naming kind and field.
    """
    plan = _plan(kind)
    out: dict[str, Any] = {}
    for name, check, optional in plan.fields:
        if name in record:
            try:
                out[name] = check(record[name])
            except ValueError as error:
                raise _invalid(kind, name, f"{error}, not {record[name]!r:.100}") from None
        elif not optional:
            raise _invalid(kind, name, "is missing")
    if len(out) < len(record):
        unknown = next(name for name in record if name not in plan.names)
        raise _invalid(kind, unknown, f"is not a field of {v2_name(kind)}")
    _check_values(kind, out, time.time_ns() // 1000 if now_us is None else now_us)
    return out


def wide_field(kind: Kind, record: Mapping[str, Any]) -> str | None:
    """The first field of what :func:`checked` gave whose number has more digits than v2 holds."""
    for name in (*_PRICES[kind], *_QUANTITIES[kind]):
        value = record[name]
        if value.adjusted() >= _V2_DIGITS or value.as_tuple().exponent < -_V2_PLACES:
            return name
    return None


def _invalid(kind: Kind, field: str, problem: str) -> InvalidRecord:
    return InvalidRecord(field, f"{kind}: field {field} {problem}")


@functools.cache
def _plan(kind: Kind) -> _Plan:
    fields = record_type(avro_schema(latest_name(kind))).fields
    return _Plan(
        tuple((field.name, _check_of(field), field.has_default) for field in fields),
        frozenset(field.name for field in fields),
    )


def _check_of(field: Field) -> Check:
    inner, nullable = without_null(field.type)
    check = _type_check(inner, field.name)
    return (lambda value: None if value is None else check(value)) if nullable else check


def _type_check(avro_type: AvroType, where: str) -> Check:
    match avro_type:
        case Primitive():
            check = _primitive_check(avro_type)
        case Enum(symbols=symbols):
            check = functools.partial(_symbol, symbols)
        case Array(items=Primitive(name="string")):
            check = _strings
        case Map(values=Primitive(name="string")):
            check = _string_map
        case _:
            check = None
    if check is None:
        raise SchemaError(f"field {where}: there is no check for a value of type {avro_type}")
    return check


def _primitive_check(primitive: Primitive) -> Check | None:
    if primitive.logical.startswith("decimal("):
        return functools.partial(_decimal, *decimal_digits(primitive.logical))
    checks: dict[tuple[str, str], Check] = {
        ("long", "timestamp-micros"): _timestamp,
        ("long", ""): functools.partial(_integer, _LONG),
        ("int", ""): functools.partial(_integer, _INT),
        ("string", ""): _string,
        ("boolean", ""): _boolean,
    }
    return checks.get((primitive.name, primitive.logical))


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("must be text that UTF-8 can hold") from None
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _integer(limit: int, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -limit <= value < limit:
        raise ValueError(f"must be an integer of {limit.bit_length()} bits")
    return value


def _decimal(precision: int, scale: int, value: Any) -> Decimal:
    if isinstance(value, int) and not isinstance(value, bool):
        value = Decimal(value)
    if not isinstance(value, Decimal) or not value.is_finite():
        raise ValueError("must be a Decimal (a float has lost digits)")
    if not value:
        return Decimal(0)
    # Before rounding, which would raise for digits beyond the context's precision.
    if value.adjusted() >= precision - scale:
        raise ValueError(f"must have at most {precision - scale} digits before the point")
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or exponent >= -_V2_PLACES:
        return value
    rounded = value.quantize(Decimal(1).scaleb(-scale), context=_EXACT)
    if rounded != value:
        raise ValueError(f"must have at most {scale} places after the point")
    return rounded.normalize(_EXACT)


def _timestamp(value: Any) -> datetime | int:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value
    if isinstance(value, int) and not isinstance(value, bool) and -_LONG <= value < _LONG:
        return value
    raise ValueError("must be a datetime or microseconds since 1970")


def _symbol(symbols: tuple[str, ...], value: Any) -> str:
    if not isinstance(value, str) or value not in symbols:
        raise ValueError(f"must be one of {', '.join(symbols)}")
    return value


def _strings(value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of strings")
    return [_string(item) for item in value]


def _string_map(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError("must be a mapping of strings to strings")
    try:
        return {_string(key): _string(item) for key, item in value.items()}
    except ValueError as error:
        raise ValueError(f"must be a mapping of strings to strings ({error})") from None


_PRICES: dict[Kind, tuple[str, ...]] = {
    "trades": ("price",),
    "quotes": ("bid_price", "ask_price"),
    "reference_data": (),
}
_QUANTITIES: dict[Kind, tuple[str, ...]] = {
    "trades": ("quantity",),
    "quotes": ("bid_quantity", "ask_quantity"),
    "reference_data": (),
}
_TIMES: dict[Kind, tuple[str, ...]] = {
    "trades": ("timestamp", "ingestion_timestamp"),
    "quotes": ("timestamp", "ingestion_timestamp"),
    "reference_data": ("ingestion_timestamp",),
}


def _check_values(kind: Kind, record: Mapping[str, Any], now_us: int) -> None:
    for name in ("symbol", "exchange"):
        if not record[name]:
            raise _invalid(kind, name, "is empty")
    if record["asset_class"] in PRICED_ABOVE_ZERO:
        _refuse_negative(kind, record, _PRICES[kind])
    _refuse_negative(kind, record, _QUANTITIES[kind])
    for name in _TIMES[kind]:
        microseconds = _microseconds(record[name])
        if microseconds < 0:
            raise _invalid(kind, name, "is before 1970")
        if microseconds > now_us + FUTURE_LIMIT:
            raise _invalid(kind, name, "is more than a day ahead of the clock")


def _refuse_negative(kind: Kind, record: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if record[name] < 0:
            raise _invalid(kind, name, f"is negative: {record[name]}")


def _microseconds(value: datetime | int) -> int:
    if isinstance(value, int):
        return value
    passed = value - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds
