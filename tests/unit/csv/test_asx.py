from __future__ import annotations

import importlib.util
import json
import uuid
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import fastavro
import pytest

from k2beam import schemas
from k2beam.csv.convert import Context, Converted, Converter
from k2beam.csv.mapping import load_mapping
from k2beam.simulate.truth import read_truth

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "samples"
COMPANY_COLUMNS = ("company_id", "symbol", "company_name", "ISIN", "start_date", "end_date")


LOADED_AT = datetime(2014, 3, 9, tzinfo=UTC)


def convert(name: str, *lines: str, first_line: int = 7, loaded_at: datetime = LOADED_AT) -> Converted:
    mapping = load_mapping(f"asx-{name}")
    columns = mapping.columns or COMPANY_COLUMNS
    variables = (("company_id", "7181"), ("symbol", "DVN"))
    context = Context(columns, variables, "ticks.csv", "ticks", int(loaded_at.timestamp()) * 1_000_000)
    return Converter(mapping, context).convert([line.encode() for line in lines], first_line)


def record(name: str, line: str, **options: Any) -> dict[str, Any]:
    converted = convert(name, line, **options)
    assert not converted.faults
    (found,) = converted.events.to_pylist(maps_as_pydicts="strict")
    return cast("dict[str, Any]", found)


def is_valid(record: dict[str, Any], name: str) -> bool:
    return bool(fastavro.validate(record, fastavro.parse_schema(schemas.avro_schema(name)), strict=True))


def test_a_trade_keeps_every_digit_and_becomes_utc() -> None:
    trade = record("trades", "03/10/2014,10:13:34.553,0.675,784,2,CXA,B17\r")

    # Sydney is eleven hours ahead in March.
    assert trade["timestamp"] == datetime(2014, 3, 9, 23, 13, 34, 553_000, tzinfo=UTC)
    assert trade["ingestion_timestamp"] == trade["timestamp"]
    assert (trade["price"], trade["quantity"]) == (Decimal("0.67500000"), Decimal(784))
    assert (trade["exchange"], trade["currency"], trade["side"]) == ("ASX", "AUD", "UNKNOWN")
    assert (trade["source_sequence"], trade["trade_id"]) == (7, "DVN-7")
    assert trade["trade_conditions"] == ["2"]
    assert trade["vendor_data"] == {"company_id": "7181", "venue": "CXA", "buyer_id": "B17"}
    assert is_valid(trade, "trade_v3")


def test_qualifiers_of_0_are_no_condition() -> None:
    trade = record("trades", "03/10/2014,10:13:34.553,0.67,784,0,,")

    assert trade["trade_conditions"] == []
    assert trade["vendor_data"] == {"company_id": "7181"}


@pytest.mark.parametrize("ask", ["0.0,10300,0", "0,10300,0", ",10300,"])
def test_a_one_sided_quote_is_kept_with_zeros(ask: str) -> None:
    quote = record("quotes", f"03/10/2014,05:46:13.604,1.11,{ask}")

    assert (quote["bid_price"], quote["bid_quantity"]) == (Decimal("1.11"), Decimal(10_300))
    assert (quote["ask_price"], quote["ask_quantity"]) == (0, 0)
    assert quote["vendor_data"] == {"company_id": "7181"}
    assert is_valid(quote, "quote_v3")


def test_winter() -> None:
    assert record("trades", "07/01/2014,12:00:00,1,1,0,,")["timestamp"] == datetime(2014, 7, 1, 2, tzinfo=UTC)


def test_message_ids_are_version_5_of_identity_and_line() -> None:
    namespace = uuid.UUID("6a3d1f0e-5c0b-5d8e-9b1e-2f6f3a9d7c41")
    lines = ["03/10/2014,10:13:34.553,0.67,784,0,,"] * 3

    found = convert("trades", *lines, first_line=9).events.column("message_id").to_pylist()

    assert found == [str(uuid.uuid5(namespace, f"ticks/{number}")) for number in (9, 10, 11)]


@pytest.mark.parametrize(
    ("text", "error_class", "problem"),
    [
        ("03/10/2014,10:13:34.553,0.67,784", "column_count", "4 columns where 7 belong"),
        ("", "blank_line", "empty"),
        (
            "10-03-2014,10:13:34.553,0.67,784,0,,",
            "bad_time",
            "is not a time of the years 1 to 9999 written as %m/%d/%Y %H:%M:%S.%f, ",
        ),
        ("10/05/2014,02:30:00,0.67,784,0,,", "nonexistent_time", "left out by Australia/Sydney's clocks"),
        ("04/06/2014,02:30:00,0.67,784,0,,", "ambiguous_time", "is there twice"),
        ("03/10/2014,10:13:34.553,dear,784,0,,", "bad_number", "price 'dear' is not a number"),
        ("03/10/2014,10:13:34.553,NaN,784,0,,", "bad_number", "price 'NaN'"),
        ("03/10/2014,10:13:34.553,,784,0,,", "missing_value", "price '' must not be empty"),
        (
            "03/10/2014,10:13:34.553,0.1234567890123456789,784,0,,",
            "decimal_overflow",
            "price '0.1234567890123456789' has more",
        ),
        (
            "03/10/2014,10:13:34.553,0.67,100000000000000000000,0,,",
            "decimal_overflow",
            "quantity '100000000000000000000' has more than 20",
        ),
    ],
)
def test_a_bad_line_is_a_fault_and_the_lines_around_it_are_kept(text: str, error_class: str, problem: str) -> None:
    good = "03/10/2014,10:13:34.553,0.67,784,0,,"

    converted = convert("trades", good, text, good)

    assert [(fault.row, fault.error_class) for fault in converted.faults] == [(1, error_class)]
    assert problem in converted.faults[0].message
    assert converted.rows.tolist() == [0, 2]
    assert converted.events.column("source_sequence").to_pylist() == [7, 9]


def test_companies_are_active_until_they_are_delisted() -> None:
    lines = ["1,AAA,A LTD,AU000000AAA1,11/06/2003,03/31/2014", "2,BBB,B LTD,,,"]
    before, after = (
        convert("reference", *lines, loaded_at=datetime(2014, month, 9, tzinfo=UTC)).events.to_pylist()
        for month in (3, 4)
    )

    assert [company["is_active"] for company in before] == [True, True]
    assert [company["is_active"] for company in after] == [False, True]
    assert before[0]["listing_date"] == datetime(2003, 11, 6, tzinfo=UTC)
    assert before[0]["ingestion_timestamp"] == LOADED_AT
    assert (before[1]["isin"], before[1]["listing_date"], before[1]["delisting_date"]) == (None, None, None)
    assert all(is_valid(company, "reference_data_v2") for company in before)


def test_the_archives_hold_every_line_of_the_csv_files() -> None:
    truth = read_truth(SAMPLES / "asx")
    for kind in ("trades", "quotes"):
        with (SAMPLES / "asx" / f"{kind}.avro").open("rb") as file:
            records = list(fastavro.reader(file))
        lines = {
            symbol: (SAMPLES / "asx" / "csv" / f"asx_{kind}_{company}.csv").read_text("utf-8").splitlines()
            for company, symbol in (("3153", "MWR"), ("7181", "DVN"))
        }
        assert len(records) == truth.rows[kind] == sum(map(len, lines.values()))
        assert Counter(record["symbol"] for record in records) == {s: len(found) for s, found in lines.items()}
        price, size = ("price", "quantity") if kind == "trades" else ("bid_price", "ask_quantity")
        for record in records:
            columns = lines[record["symbol"]][record["source_sequence"] - 1].split(",")
            assert record[price] == Decimal(columns[2])
            assert record[size] == Decimal(columns[3 if kind == "trades" else 5])


def test_the_samples_are_what_their_script_makes(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_samples", ROOT / "scripts" / "make_samples.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(tmp_path)

    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert len(made) == 7
    for path in made:
        assert (tmp_path / path).read_bytes() == (SAMPLES / path).read_bytes(), path


def test_the_samples_are_small() -> None:
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) < 1_000_000
    assert json.loads((SAMPLES / "crypto" / "truth.json").read_text("utf-8"))["offsets"] == 6_000
