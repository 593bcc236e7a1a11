from __future__ import annotations

import importlib.util
import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import fastavro
import pytest

from k2beam import schemas
from k2beam.errors import DecodeError
from k2beam.ingest import asx
from k2beam.ingest.truth import read_truth

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "samples"


def line(text: str, number: int = 7) -> asx.Line:
    return asx.Line("ticks.csv", number, "DVN", "7181", text)


def is_valid(record: asx.Record, name: str) -> bool:
    return bool(fastavro.validate(record, fastavro.parse_schema(schemas.avro_schema(name)), strict=True))


def test_a_trade_keeps_every_digit_and_becomes_utc() -> None:
    record = asx.trade(line("03/10/2014,10:13:34.553,0.675,784,2,CXA,B17\r\n"))

    # Sydney is eleven hours ahead in March.
    assert record["timestamp"] == datetime(2014, 3, 9, 23, 13, 34, 553_000, tzinfo=UTC)
    assert (record["price"], record["quantity"]) == (Decimal("0.67500000"), Decimal(784))
    assert (record["exchange"], record["currency"], record["side"]) == ("ASX", "AUD", "UNKNOWN")
    assert (record["source_sequence"], record["trade_id"]) == (7, "DVN-7")
    assert record["trade_conditions"] == ["2"]
    assert record["vendor_data"] == {"company_id": "7181", "venue": "CXA", "buyer_id": "B17"}
    assert is_valid(record, "trade_v2")


def test_qualifiers_of_0_are_no_condition() -> None:
    record = asx.trade(line("03/10/2014,10:13:34.553,0.67,784,0,,"))

    assert record["trade_conditions"] == []
    assert record["vendor_data"] == {"company_id": "7181"}


def test_a_one_sided_quote_is_kept_with_zeros() -> None:
    record = asx.quote(line("03/10/2014,05:46:13.604,1.11,0.0,10300,0"))

    assert (record["bid_price"], record["bid_quantity"]) == (Decimal("1.11"), Decimal(10_300))
    assert (record["ask_price"], record["ask_quantity"]) == (0, 0)
    assert is_valid(record, "quote_v2")


@pytest.mark.parametrize(
    ("local", "utc"),
    [
        ("07/01/2014,12:00:00", datetime(2014, 7, 1, 2, tzinfo=UTC)),
        ("04/06/2014,02:30:00.5", datetime(2014, 4, 5, 15, 30, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_winter_and_the_hour_that_comes_twice(local: str, utc: datetime) -> None:
    assert asx.trade(line(f"{local},1,1,0,,"))["timestamp"] == utc


def test_message_ids_differ_by_line_and_repeat_by_line() -> None:
    text = "03/10/2014,10:13:34.553,0.67,784,0,,"
    first, other, again = (asx.trade(line(text, number))["message_id"] for number in (1, 2, 1))

    assert first == again != other
    assert first[14] == "5"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("03/10/2014,10:13:34.553,0.67,784", "4 columns where 7 belong"),
        ("", "0 columns where 7 belong"),
        ("10-03-2014,10:13:34.553,0.67,784,0,,", "not a time"),
        ("10/05/2014,02:30:00,0.67,784,0,,", "clocks left out"),
        ("03/10/2014,10:13:34.553,dear,784,0,,", "price 'dear' is not a number"),
        ("03/10/2014,10:13:34.553,NaN,784,0,,", "price 'NaN'"),
        ("03/10/2014,10:13:34.553,0.123456789,784,0,,", "price '0.123456789' does not fit"),
        ("03/10/2014,10:13:34.553,0.67,10000000000,0,,", "volume '10000000000' does not fit"),
    ],
)
def test_a_bad_line_is_an_error_that_names_file_and_line(text: str, problem: str) -> None:
    with pytest.raises(DecodeError, match=r"ticks\.csv, line 7: ") as caught:
        asx.trade(line(text))
    assert problem in str(caught.value)


def test_companies_are_active_until_they_are_delisted() -> None:
    lines = [
        "company_id,symbol,company_name,ISIN,start_date,end_date",
        "1,AAA,A LTD,AU000000AAA1,11/06/2003,03/31/2014",
        "2,BBB,B LTD,,,",
    ]
    before, after = (list(asx.companies("c.csv", lines, datetime(2014, month, 9, tzinfo=UTC))) for month in (3, 4))

    assert [record["is_active"] for record in before] == [True, True]
    assert [record["is_active"] for record in after] == [False, True]
    assert before[0]["listing_date"] == datetime(2003, 11, 6, tzinfo=UTC)
    assert (before[1]["isin"], before[1]["listing_date"], before[1]["delisting_date"]) == (None, None, None)
    assert all(is_valid(record, "reference_data_v2") for record in before)


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
