"""Version 1 to version 2, field by field."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from k2beam.codec.normalise import MESSAGE_NAMESPACE, Normalised, Provenance, message_ids, normalise
from k2beam.model import TIMESTAMP, Kind
from k2beam.schemas import avro_schema, payload_arrow_schema
from tests.codec_samples import START, quote_v1, reference_v1, trade_v1

SOURCE = "archive:abc"
V1: dict[Kind, str] = {"trades": "trade", "quotes": "quote", "reference_data": "reference_data"}


def provenance(count: int, timestamp: datetime | None = None) -> Provenance:
    return Provenance(
        pa.array([SOURCE] * count),
        pa.array([3] * count, type=pa.int32()),
        pa.array(range(100, 100 + count), type=pa.int64()),
        pa.array([timestamp] * count, type=TIMESTAMP),
    )


def run(kind: Kind, *records: dict[str, Any], timestamp: datetime | None = None) -> Normalised:
    columns = pa.RecordBatch.from_pylist(list(records), schema=payload_arrow_schema(V1[kind]))
    found = normalise(columns, kind, provenance(len(records), timestamp))
    found.columns.validate(full=True)
    return found


def rows(kind: Kind, *records: dict[str, Any], timestamp: datetime | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run(kind, *records, timestamp=timestamp).columns.to_pylist(maps_as_pydicts="strict")
    return found


def message_id(row: int) -> str:
    return str(uuid.uuid5(MESSAGE_NAMESPACE, f"{SOURCE}/3/{100 + row}"))


def test_message_ids_tell_sources_partitions_and_offsets_apart() -> None:
    places = [("a", 1, 23), ("a", 12, 3), ("a", 1, 23), ("ä", 0, 2**62), ("a", 1, 0)]
    sources, partitions, offsets = zip(*places, strict=True)
    none = pa.nulls(len(places), TIMESTAMP)
    ids = message_ids(Provenance(pa.array(sources), pa.array(partitions, type=pa.int32()), pa.array(offsets), none))
    assert ids.to_pylist() == [
        str(uuid.uuid5(MESSAGE_NAMESPACE, f"{source}/{partition}/{offset}")) for source, partition, offset in places
    ]


def test_a_trade_becomes_a_whole_version_2_trade() -> None:
    first, second = rows("trades", trade_v1(1), trade_v1(3, qualifiers=0))
    assert first == {
        "message_id": message_id(0),
        "trade_id": "1",
        "symbol": "BHP",
        "exchange": "ASX",
        "asset_class": "equities",
        "timestamp": START.replace(microsecond=1000),
        "price": Decimal("36.510001000000000000"),
        "quantity": Decimal("1001.00000000"),
        "currency": "AUD",
        "side": "UNKNOWN",
        "trade_conditions": ["1"],
        "source_sequence": 1,
        "ingestion_timestamp": START,
        "platform_sequence": None,
        "vendor_data": {"company_id": "7078", "qualifiers": "1", "venue": "X", "buyer_id": "b"},
    }
    assert str(first["price"]) == "36.510001000000000000"
    assert second["trade_id"] == second["message_id"] == message_id(1)
    assert second["source_sequence"] is None
    assert second["trade_conditions"] == []
    assert rows("trades", trade_v1(0))[0]["vendor_data"] == {"company_id": "7078", "qualifiers": "0", "venue": "X"}


def test_a_quote_becomes_a_whole_version_2_quote() -> None:
    assert rows("quotes", quote_v1(5)) == [
        {
            "message_id": message_id(0),
            "quote_id": "5",
            "symbol": "BHP",
            "exchange": "NYSE",
            "asset_class": "equities",
            "timestamp": START,
            "bid_price": Decimal("36.51"),
            "bid_quantity": Decimal(10),
            "ask_price": Decimal("36.52"),
            "ask_quantity": Decimal(20),
            "currency": "XXX",
            "source_sequence": 5,
            "ingestion_timestamp": START,
            "platform_sequence": None,
            "vendor_data": {"company_id": "7078"},
        }
    ]


def test_reference_data_becomes_whole_version_2_reference_data() -> None:
    assert rows("reference_data", reference_v1(9), timestamp=START) == [
        {
            "message_id": message_id(0),
            "company_id": "9",
            "symbol": "BHP",
            "exchange": "UNKNOWN",
            "company_name": "BHP Group",
            "isin": "AU000000BHP4",
            "currency": None,
            "listing_date": datetime(2014, 7, 31, tzinfo=UTC),
            "delisting_date": None,
            "is_active": True,
            "asset_class": "equities",
            "ingestion_timestamp": START,
            "vendor_data": None,
        }
    ]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("7/4/2014", datetime(2014, 7, 4, tzinfo=UTC)),
        (None, datetime(1970, 1, 1, tzinfo=UTC)),
        ("1/2/1950", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_without_a_log_time_the_listing_is_the_ingestion(start: str | None, expected: datetime) -> None:
    assert rows("reference_data", reference_v1(start_date=start))[0]["ingestion_timestamp"] == expected


def test_an_end_date_makes_it_inactive_and_an_empty_one_does_not() -> None:
    ended, open_ended = rows("reference_data", reference_v1(end_date="12/31/2020"), reference_v1(end_date=""))
    assert (ended["delisting_date"], ended["is_active"]) == (datetime(2020, 12, 31, tzinfo=UTC), False)
    assert (open_ended["delisting_date"], open_ended["is_active"]) == (None, True)


@pytest.mark.parametrize("bad", ["02/30/2014", "31/07/2014", "2014-07-31", "x", "7/31/14"])
def test_a_bad_date_is_a_fault_of_its_row(bad: str) -> None:
    found = run("reference_data", reference_v1(1), reference_v1(2, end_date=bad, start_date=bad), reference_v1(3))
    (fault,) = found.faults
    assert (fault.row, fault.error_class) == (1, "bad_date")
    assert repr(bad) in fault.message
    assert found.rows.tolist() == [0, 2]
    assert found.columns.column("company_id").to_pylist() == ["1", "3"]


@pytest.mark.parametrize(
    ("changes", "column"),
    [
        ({"price": Decimal("999999999999.999999")}, "price"),
        ({"price": Decimal("-999999999999.999999")}, "price"),
        ({"volume": 2**63 - 1}, "quantity"),
        ({"volume": -(2**63)}, "quantity"),
    ],
)
def test_all_that_version_1_holds_fits(changes: dict[str, Any], column: str) -> None:
    found = run("trades", trade_v1(0), trade_v1(1, **changes))
    assert found.faults == ()
    assert found.columns.column(column).to_pylist()[1] == Decimal(next(iter(changes.values())))


def test_a_row_with_two_faults_is_told_once() -> None:
    found = run("reference_data", reference_v1(1, start_date="x", end_date="y"))
    assert [fault.row for fault in found.faults] == [0]


def test_the_documentation_has_every_field(repository: Path) -> None:
    text = (repository / "docs" / "reference" / "normalisation.md").read_text("utf-8")
    for name in (*V1.values(), "trade_v2", "quote_v2", "reference_data_v2"):
        for field in avro_schema(name)["fields"]:
            assert re.search(rf"`{field['name']}`", text), f"{name}.{field['name']}"
