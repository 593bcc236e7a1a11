"""Records as JSON."""

from __future__ import annotations

import base64
import json
import re
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.jsonable import jsonable, to_json
from tests.codec_samples import trade


def test_a_whole_trade_keeps_every_digit() -> None:
    record = trade(1, price=Decimal("0.00000001"), quantity=Decimal("9999999999.99999999"), source_sequence=2**62 + 1)
    assert json.loads(to_json(record)) == {
        "message_id": "m-1",
        "trade_id": "t-1",
        "symbol": "BHP",
        "exchange": "ASX",
        "asset_class": "equities",
        "timestamp": "2024-03-05T10:00:00.000001Z",
        "price": "0.00000001",
        "quantity": "9999999999.99999999",
        "currency": "AUD",
        "side": "SELL_SHORT",
        "trade_conditions": ["XT"],
        "source_sequence": 4611686018427387905,
        "ingestion_timestamp": "2024-03-05T10:00:01.000000Z",
        "platform_sequence": None,
        "vendor_data": {"venue": "X", "ü": "ñ"},
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("0E-8"), "0"),
        (Decimal("-0.10"), "-0.1"),
        (Decimal("1E+3"), "1000"),
        (datetime(2024, 1, 1), "2024-01-01T00:00:00.000000Z"),
        (datetime(2024, 1, 1, 11, tzinfo=timezone(timedelta(hours=11))), "2024-01-01T00:00:00.000000Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000000Z"),
        (date(2024, 1, 2), "2024-01-02"),
        (b"\x00\xff", {"base64": "AP8="}),
        (bytearray(b"a"), {"base64": "YQ=="}),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (True, True),
        ((1, [b"", {"a": Decimal(1)}]), [1, [{"base64": ""}, {"a": "1"}]]),
    ],
)
def test_each_special_type_has_its_form(value: Any, expected: Any) -> None:
    assert jsonable(value) == expected


def test_metadata_stands_beside_the_record() -> None:
    text = to_json({"metadata": 1}, {"offset": 5, "at": datetime(2024, 1, 1, tzinfo=UTC)})
    assert json.loads(text) == {
        "record": {"metadata": 1},
        "metadata": {"offset": 5, "at": "2024-01-01T00:00:00.000000Z"},
    }


@pytest.mark.parametrize("value", [{"a": object()}, {"a": {1: 2}}, {"a": {1, 2}}])
def test_what_has_no_form_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        to_json(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_a_plain_object_reads_as_itself_on_one_line(record: dict[str, Any]) -> None:
    text = to_json(record)
    assert json.loads(text) == record
    assert "\n" not in text


@settings(max_examples=100, deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=8), st.binary())
def test_decimals_and_bytes_come_back(value: Decimal, content: bytes) -> None:
    read = json.loads(to_json({"d": value, "b": content}))
    assert Decimal(read["d"]) == value
    assert not re.search(r"\.(\d*0)?$", read["d"])
    assert base64.b64decode(read["b"]["base64"]) == content
