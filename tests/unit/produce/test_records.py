"""Records before they are produced: the field that is wrong is named, and validation would say the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.errors import InvalidRecord
from k2beam.model import Kind
from k2beam.produce.records import checked, wide_field
from k2beam.schemas import payload_arrow_schema, v2_name
from k2beam.validation import violations
from tests.codec_samples import START, encode_event, quote, reference, trade

NOW = (START + timedelta(days=1) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
MAKERS: dict[Kind, Any] = {"trades": trade, "quotes": quote, "reference_data": reference}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_good_record_goes_through_as_it_is(kind: Kind) -> None:
    for number in range(4):
        record = MAKERS[kind](number)
        assert checked(kind, record, NOW) == record
        assert encode_event(kind, checked(kind, record, NOW))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("symbol", "", "is empty"),
        ("symbol", None, "must be a string"),
        ("symbol", "\ud800", "UTF-8"),
        ("exchange", "", "is empty"),
        ("asset_class", "art", "one of equities, crypto, futures, options, fx, bonds, indices"),
        ("timestamp", "2024-03-05", "must be a datetime"),
        ("timestamp", 1 << 63, "must be a datetime"),
        ("timestamp", datetime(1969, 1, 1, tzinfo=UTC), "before 1970"),
        ("timestamp", START + timedelta(days=3), "ahead of the clock"),
        ("ingestion_timestamp", -1, "before 1970"),
        ("price", 45.1, "a float has lost digits"),
        ("price", True, "must be a Decimal"),
        ("price", Decimal("NaN"), "must be a Decimal"),
        ("price", Decimal("0.1234567890123456789"), "at most 18 places"),
        ("price", Decimal("0." + "1" * 80), "at most 18 places"),
        ("price", Decimal("123456789012345678901"), "at most 20 digits"),
        ("price", Decimal("1E+40"), "at most 20 digits"),
        ("price", Decimal("-1"), "is negative"),
        ("quantity", Decimal("-0.00000001"), "is negative"),
        ("side", "buy", "one of BUY, SELL"),
        ("trade_conditions", "XT", "a list of strings"),
        ("trade_conditions", [1], "a list of strings"),
        ("source_sequence", 1.5, "an integer"),
        ("source_sequence", 1 << 63, "an integer of 64 bits"),
        ("vendor_data", {"a": 1}, "strings to strings"),
        ("vendor_data", ["a"], "strings to strings"),
        ("colour", "red", "is not a field of trade_v2"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any, said: str) -> None:
    with pytest.raises(InvalidRecord, match=f"trades: field {field} .*{said}") as raised:
        checked("trades", trade(**{field: value}), NOW)
    assert raised.value.field == field


def test_a_missing_field_is_named_and_one_with_a_default_is_not_needed() -> None:
    record = trade()
    del record["trade_conditions"], record["vendor_data"]
    assert checked("trades", record, NOW) == record
    del record["price"]
    with pytest.raises(InvalidRecord, match="trades: field price is missing"):
        checked("trades", record, NOW)


def test_values_are_brought_into_the_form_of_the_encoder() -> None:
    record = checked(
        "trades",
        trade(timestamp=START.replace(tzinfo=None), price=45, quantity=Decimal("0E+999999"), trade_conditions=("A",)),
        NOW,
    )
    assert record["timestamp"] == START
    assert (record["price"], record["quantity"], record["trade_conditions"]) == (Decimal(45), Decimal(0), ["A"])
    assert encode_event("trades", record)


@pytest.mark.parametrize(
    ("quantity", "wide"),
    [
        ("9999999999.99999999", None),
        ("1.000000000000000000", None),
        ("10000000000", "quantity"),
        ("0.000012345", "quantity"),
        ("99999999999999999999.999999999999999999", "quantity"),
    ],
)
def test_a_number_that_version_2_has_no_room_for_is_told(quantity: str, wide: str | None) -> None:
    record = checked("trades", trade(quantity=Decimal(quantity)), NOW)
    assert record["quantity"] == Decimal(quantity)
    assert wide_field("trades", record) == wide


def test_a_future_may_be_below_zero() -> None:
    record = trade(asset_class="futures", price=Decimal("-37.63"))
    assert checked("trades", record, NOW)["price"] == Decimal("-37.63")


prices = st.decimals(min_value=-5, max_value=5, places=8)
times = st.integers(-5, 5).map(lambda days: START + timedelta(days=days)) | st.just(datetime(1969, 12, 31, tzinfo=UTC))


@settings(max_examples=150, deadline=None)
@given(
    price=prices,
    quantity=prices,
    timestamp=times,
    asset_class=st.sampled_from(["equities", "crypto", "futures", "options"]),
    symbol=st.sampled_from(["", "BHP"]),
)
def test_what_the_producer_takes_is_what_validation_keeps(symbol: str, **values: Any) -> None:
    record = trade(symbol=symbol, **values)
    batch = pa.RecordBatch.from_pylist([record], schema=payload_arrow_schema(v2_name("trades")))
    refused: list[str] = []
    try:
        checked("trades", record, NOW)
    except InvalidRecord as error:
        refused.append(error.field)
    assert [violation.message.partition(" ")[0] for violation in violations("trades", batch, NOW)] == refused
