"""The rules that every event must keep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from k2beam.model import Kind
from k2beam.schemas import payload_arrow_schema, v2_name
from k2beam.validation import RULES, ExchangeBound, violations
from tests.codec_samples import START, quote, reference, trade

NOW = int(START.timestamp()) * 1_000_000
MAKERS = {"trades": trade, "quotes": quote, "reference_data": reference}
US = timedelta(microseconds=1)
DAY = timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def check(kind: Kind, *records: dict[str, Any]) -> list[tuple[int, str, str]]:
    batch = pa.RecordBatch.from_pylist(list(records), schema=payload_arrow_schema(v2_name(kind)))
    return [(found.row, found.error_class, found.message) for found in violations(kind, batch, NOW)]


@pytest.mark.parametrize(
    ("kind", "changes", "error_class"),
    [
        *((kind, {"symbol": ""}, "empty_symbol") for kind in MAKERS),
        *((kind, {"exchange": ""}, "empty_exchange") for kind in MAKERS),
        *((kind, {"exchange": "e" * 201}, "bad_exchange") for kind in MAKERS),
        ("trades", {"exchange": "株" * 23}, "bad_exchange"),
        ("trades", {"exchange": "/" * 67}, "bad_exchange"),
        ("trades", {"exchange": "x" * 198 + "|"}, "bad_exchange"),
        ("trades", {"price": Decimal("-0.00000001")}, "negative_price"),
        ("trades", {"price": Decimal("-0.00000001"), "asset_class": "crypto"}, "negative_price"),
        ("quotes", {"bid_price": Decimal(-1)}, "negative_price"),
        ("quotes", {"ask_price": Decimal(-1)}, "negative_price"),
        ("trades", {"quantity": Decimal("-0.00000001")}, "negative_quantity"),
        ("trades", {"quantity": Decimal(-1), "asset_class": "futures"}, "negative_quantity"),
        ("quotes", {"bid_quantity": Decimal(-1)}, "negative_quantity"),
        ("quotes", {"ask_quantity": Decimal(-1)}, "negative_quantity"),
        *((kind, {"timestamp": EPOCH - US}, "timestamp_before_1970") for kind in ("trades", "quotes")),
        *((kind, {"ingestion_timestamp": EPOCH - US}, "timestamp_before_1970") for kind in MAKERS),
        *((kind, {"timestamp": START + DAY + US}, "timestamp_in_future") for kind in ("trades", "quotes")),
        *((kind, {"ingestion_timestamp": START + DAY + US}, "timestamp_in_future") for kind in MAKERS),
    ],
)
def test_each_rule_finds_its_row(kind: Kind, changes: dict[str, Any], error_class: str) -> None:
    make = MAKERS[kind]
    (found,) = check(kind, make(0), make(1, **changes), make(2))
    assert found[:2] == (1, error_class)
    assert any(found[2].startswith(f"{column} ") for column in changes)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("trades", {"exchange": "e" * 200}),
        ("trades", {"exchange": "株" * 22}),
        ("trades", {"exchange": "../" * 28}),
        ("trades", {"exchange": "\x00" * 66}),
        ("trades", {"symbol": "s" * 1_000_000}),
        ("trades", {"price": Decimal("-37.63"), "asset_class": "futures"}),
        ("quotes", {"bid_price": Decimal(-1), "asset_class": "options"}),
        ("trades", {"price": Decimal(0), "quantity": Decimal(0)}),
        ("quotes", {"bid_price": Decimal(50), "ask_price": Decimal(40)}),
        ("trades", {"timestamp": EPOCH, "ingestion_timestamp": START + DAY}),
        ("reference_data", {"listing_date": datetime(1602, 1, 1, tzinfo=UTC), "delisting_date": START + 900 * DAY}),
    ],
)
def test_what_is_unusual_but_true_passes(kind: Kind, changes: dict[str, Any]) -> None:
    assert check(kind, MAKERS[kind](0, **changes)) == []


def test_a_row_is_told_once_by_its_first_rule() -> None:
    bad = trade(0, symbol="", exchange="", price=Decimal(-1))
    assert [found[:2] for found in check("trades", bad, trade(1), bad)] == [(0, "empty_symbol"), (2, "empty_symbol")]


def test_no_rows_break_no_rule() -> None:
    assert check("quotes") == []


def test_a_slice_is_checked_from_its_offset() -> None:
    records = [trade(0, price=Decimal(-1)), trade(1), trade(2, price=Decimal(-1))]
    batch = pa.RecordBatch.from_pylist(records, schema=payload_arrow_schema("trade_v2"))
    assert [found.row for found in violations("trades", batch[1:], NOW)] == [1]


@pytest.mark.parametrize("kind", MAKERS)
def test_rules_speak_of_columns_that_the_kind_has(kind: Kind) -> None:
    names = set(payload_arrow_schema(v2_name(kind)).names)
    assert all(set(rule.columns) <= names for rule in RULES if kind in rule.kinds)


def test_so_many_exchanges_are_taken_and_those_that_are_known() -> None:
    asked: list[Kind] = []

    def known(kind: Kind) -> list[str]:
        asked.append(kind)
        return ["OLD"]

    bound = ExchangeBound(known, most=2)
    assert bound.refused("trades", pa.array(["A", "B", "A"])) == ()
    assert asked == []
    found = bound.refused("trades", pa.array(["A", "C", "OLD", "C", "B"]))
    assert [(one.row, one.error_class) for one in found] == [(1, "too_many_exchanges"), (3, "too_many_exchanges")]
    assert bound.refused("trades", pa.array(["OLD"])) == ()
    assert asked == ["trades"]
    assert bound.refused("quotes", pa.array(["C", "D"])) == ()
    assert bound.refused("reference_data", pa.array(list("EFGH"))) == ()
