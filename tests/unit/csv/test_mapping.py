"""Mappings: what is refused, and what fields become."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest

from k2beam.csv.convert import Context, Converted, Converter
from k2beam.csv.mapping import known_mappings, load_mapping, parse_mapping
from k2beam.errors import UsageError

TRADES = """
name = "mine"
kind = "trades"
columns = ["time", "price", "size", "side", "flags", "seq", "price unit"]
delimiter = ";"
formats = ["epoch-us"]
[fields]
trade_id = "{seq}"
symbol = "X-{price unit}"
exchange = "E"
asset_class = "crypto"
timestamp = "{time}"
price = "{price}"
quantity = { from = "{size}", empty = "1" }
currency = "USD"
side = { from = "{side}", values = { B = "BUY", S = "SELL" }, otherwise = "UNKNOWN" }
trade_conditions = { from = "{flags}", split = " ", drop = ["-"] }
source_sequence = "{seq}"
[vendor_data]
unit = "{price unit}"
where = "{file}:{line}"
"""


def convert(text: str, *lines: str, columns: tuple[str, ...] = (), **variables: str) -> Converted:
    mapping = parse_mapping(text, "here")
    context = Context(mapping.columns or columns, tuple(variables.items()), "f.csv", "id", 5)
    return Converter(mapping, context).convert([line.encode() for line in lines], 1)


def test_every_option_of_a_field() -> None:
    converted = convert(TRADES, "7;1.5;;B;a - b;42;EUR", "8;-1;2;x;;;", "9;1e2;2;S; ;1;q")

    assert converted.faults == ()
    first, second, third = cast("list[dict[str, Any]]", converted.events.to_pylist(maps_as_pydicts="strict"))
    assert (first["symbol"], first["side"], first["quantity"]) == ("X-EUR", "BUY", Decimal(1))
    assert first["trade_conditions"] == ["a", "b"]
    assert (first["source_sequence"], second["source_sequence"]) == (42, None)
    assert first["vendor_data"] == {"unit": "EUR", "where": "f.csv:1"}
    assert second["vendor_data"] == {"where": "f.csv:2"}
    assert (second["side"], second["trade_conditions"], second["price"]) == ("UNKNOWN", [], Decimal(-1))
    assert (third["side"], third["price"]) == ("SELL", Decimal(100))


def test_a_value_that_is_not_translated_is_refused() -> None:
    converted = convert(TRADES.replace(', otherwise = "UNKNOWN"', ""), "7;1;1;B;;1;x", "7;1;1;?;;1;x")

    assert [(fault.row, fault.error_class) for fault in converted.faults] == [(1, "bad_value")]
    assert "side '?' is none of B, S" in converted.faults[0].message


def test_a_line_has_one_fault_however_much_is_wrong() -> None:
    converted = convert(TRADES, "x;y;z;?;;w;")

    assert [(fault.row, fault.error_class) for fault in converted.faults] == [(0, "bad_time")]
    assert converted.events.num_rows == 0


def test_texts_of_enums_and_truth_are_checked() -> None:
    text = """
name = "r"
kind = "reference_data"
formats = ["epoch-s"]
[fields]
company_id = "{id}"
symbol = "{id}"
exchange = "E"
company_name = "N"
asset_class = "{class}"
is_active = "{active}"
"""
    columns = ("id", "class", "active")
    converted = convert(text, "1,crypto,true", "2,crypto,maybe", "3,stamps,false", "4,futures,false", columns=columns)

    assert converted.events.column("is_active").to_pylist() == [True, False]
    assert [(fault.row, fault.error_class) for fault in converted.faults] == [(1, "bad_value"), (2, "bad_value")]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "mine"', 'name = "A B"', "lower-case"),
        ('kind = "trades"', 'kind = "bonds"', "kind must be one of trades, quotes"),
        ('kind = "trades"', 'kind = "trades"\ncolour = 1', "no 'colour'"),
        ('delimiter = ";"', 'delimiter = "||"', "delimiter"),
        ('delimiter = ";"', 'encoding = "utf-16"', "encoding must be one of"),
        ('delimiter = ";"', 'file = "("', "regular expression"),
        ('"price unit"]', '"seq"]', "'seq' is there twice"),
        ('currency = "USD"', "", "where currency of a trade_v2"),
        ('currency = "USD"', 'currency = "USD"\nbid_price = "{price}"', "no 'bid_price'"),
        ('currency = "USD"', "currency = 5", "currency must be a text or a table"),
        ('currency = "USD"', 'currency = { form = "USD" }', "no 'form'"),
        ('currency = "USD"', 'currency = { from = "USD", split = " " }', "no 'split'"),
        ('currency = "USD"', 'currency = "{money}"', "{money} is neither a column nor a variable"),
        ('currency = "USD"', 'currency = "{price"', "braces"),
        ('asset_class = "crypto"', 'asset_class = "stamps"', "asset_class can't be 'stamps'"),
        ('S = "SELL"', 'S = "SOLD"', "side can't be 'SOLD'"),
        ('formats = ["epoch-us"]', "", "give `formats`"),
        ('formats = ["epoch-us"]', 'formats = "epoch-us"', "list of texts"),
        ('formats = ["epoch-us"]', 'formats = ["%Y-%m-%d"]', "field timestamp: format '%Y-%m-%d' tells a local time"),
        ("[fields]", "[fields", "not TOML"),
    ],
)
def test_a_wrong_mapping_is_refused_by_name(old: str, new: str, said: str) -> None:
    assert old in TRADES
    with pytest.raises(UsageError, match="mapping here") as caught:
        parse_mapping(TRADES.replace(old, new), "here")
    assert said in str(caught.value)


def test_mappings_are_found_by_name_or_file(tmp_path: Path) -> None:
    assert known_mappings() == ["asx-quotes", "asx-reference", "asx-trades"]
    assert [load_mapping(name).name for name in known_mappings()] == known_mappings()
    (tmp_path / "m.toml").write_text(TRADES, "utf-8")
    assert load_mapping(str(tmp_path / "m.toml")).name == "mine"
    with pytest.raises(UsageError, match="asx-quotes, asx-reference, asx-trades"):
        load_mapping("nyse")
    with pytest.raises(UsageError, match=r"none\.toml"):
        load_mapping(str(tmp_path / "none.toml"))


def test_what_a_mapping_needs_and_a_file_lacks_is_told() -> None:
    mapping = load_mapping("asx-trades")
    with pytest.raises(UsageError, match=r"f\.csv.*\{company_id\}, \{symbol\}.*--company.*--symbol"):
        Converter(mapping, Context(mapping.columns or (), (), "f.csv", "id", 0))
    with pytest.raises(UsageError, match=r"\{ISIN\}.*columns are company_id, symbol"):
        Converter(load_mapping("asx-reference"), Context(("company_id", "symbol"), (), "f.csv", "id", 0))
