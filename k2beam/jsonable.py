"""The one rule of values in JSON, for records and for what commands print; it loses no digit.

datetime is ISO 8601 in UTC with six digits of a second and ``Z`` (naive means UTC); date is ISO
8601; Decimal is a string with every digit and no exponent; bytes are ``{"base64": "..."}``; UUID is
its text; floats that JSON lacks are the strings ``NaN``, ``Infinity`` and ``-Infinity``; a dataclass is an object, an
enumeration's member its value. A record without such values reads as the plain JSON of itself.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

_AS_IT_IS = frozenset({type(None), bool, int, str})


def to_json(record: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> str:
    """``record`` as one line of JSON, or ``{"record": ..., "metadata": ...}`` where metadata is given.

    Raises TypeError for a value or key that has no rule here.
    """
    value = record if metadata is None else {"record": record, "metadata": metadata}
    return json.dumps(jsonable(value), ensure_ascii=False, allow_nan=False)


def jsonable(value: Any) -> Any:
    """``value`` with dicts, lists, strings, numbers, booleans and None only. Raises TypeError.

    Examples:
        >>> from decimal import Decimal
        >>> from k2beam.jsonable import jsonable
        >>> jsonable({"price": Decimal("0.10"), "key": b"a"})
        {'price': '0.1', 'key': {'base64': 'YQ=='}}
    """
    if type(value) in _AS_IT_IS:
        return value
    # What rows of the tables are made of comes first: it is asked for each cell that a query prints.
    if isinstance(value, Decimal):
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, datetime):
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return aware.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else _not_finite(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(value).decode("ascii")}
    return _structure(value)


def _structure(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_key(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, Enum):
        return jsonable(value.value)
    if isinstance(value, str | int):
        return value
    if isinstance(value, uuid.UUID):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    raise TypeError(
        f"{type(value).__name__} has no JSON form; convert it to one of datetime, date, Decimal, bytes and UUID"
    )


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key of a JSON object must be a string, not {key!r}")
    return key


def _not_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
