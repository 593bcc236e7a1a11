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


def changed(*lines: str) -> str:
    """The mapping with further lines at its top."""
    return "\n".join([*lines, TRADES])


def test_digits_finer_than_a_microsecond_are_refused_or_cut_and_kept() -> None:
    nanos = TRADES.replace("epoch-us", "epoch-ns")
    lines = ("1583020801030000123;1;1;B;;1;x", "1583020801030000000;1;1;B;;2;")
    refused = convert(nanos, *lines)
    assert [fault.error_class for fault in refused.faults] == ["bad_time"]
    assert "timestamp '1583020801030000123' is finer than a microsecond; finer_than_mic" in refused.faults[0].message
    for text in (
        f'finer_than_microsecond = "cut"\n{nanos}',
        nanos.replace('"{time}"', '{ from = "{time}", finer_than_microsecond = "cut" }'),
    ):
        first, second = cast("list[dict[str, Any]]", convert(text, *lines).events.to_pylist(maps_as_pydicts="strict"))
        assert first["timestamp"] == second["timestamp"]
        assert first["vendor_data"] == {"unit": "x", "where": "f.csv:1", "timestamp_finer": "123"}
        assert second["vendor_data"] == {"where": "f.csv:2"}


@pytest.mark.parametrize(
    ("top", "text", "expected"),
    [
        (('decimal = ","',), "1,5", "1.5"),
        (('decimal = ","',), "1.5", None),
        (('decimal = ","', 'thousands = "."'), "1.234.567,25", "1234567.25"),
        (('decimal = ","', 'thousands = "."'), "1.23", None),
        (('thousands = ","',), "-12,345.5", "-12345.5"),
        (('thousands = ","',), "12345.5", "12345.5"),
        (('thousands = ","',), "1,2345", None),
        (('thousands = "\'"',), "1'000", "1000"),
        (('thousands = " "',), "1 000 000", "1000000"),
    ],
)
def test_numbers_as_other_languages_write_them(top: tuple[str, ...], text: str, expected: str | None) -> None:
    converted = convert(changed(*top), f"7;{text};1;B;;1;x")
    assert converted.events.column("price").to_pylist() == ([] if expected is None else [Decimal(expected)])


def test_a_scaled_price() -> None:
    scaled = TRADES.replace('price = "{price}"', 'price = { from = "{price}", scale = 4 }')
    prices = convert(scaled, "7;5852500;1;B;;1;x", "7;1;1;B;;1;x").events.column("price").to_pylist()
    assert prices == [Decimal("585.25"), Decimal("0.0001")]


def test_a_column_that_nothing_names_is_kept_in_vendor_data() -> None:
    wide = TRADES.replace('"price unit"]', '"price unit", "venue", "checksum", "where"]').replace(
        "[fields]", 'leave_out = ["checksum"]\n[fields]'
    )
    first, second = cast(
        "list[dict[str, Any]]",
        convert(wide, "7;1;1;B;;1;x;XA;99;ours", "8;1;1;B;;1;;;99;ours").events.to_pylist(maps_as_pydicts="strict"),
    )
    assert first["vendor_data"] == {"unit": "x", "where": "f.csv:1", "venue": "XA"}
    assert second["vendor_data"] == {"where": "f.csv:2"}


def test_a_sequence_that_no_field_names_is_null() -> None:
    converted = convert(TRADES.replace('source_sequence = "{seq}"\n', ""), "7;1;1;B;;1;x")
    assert converted.events.column("source_sequence").to_pylist() == [None]


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
        ('delimiter = ";"', 'decimal = "x"', "decimal must be one of ., ,, not 'x'"),
        ('delimiter = ";"', 'decimal = ","\nthousands = ","', "decimal and thousands are both ','"),
        ('delimiter = ";"', 'thousands = "_"', "thousands must be one of"),
        ('delimiter = ";"', "skip_lines = -1", "skip_lines must be a number from 0 to 1000, not -1"),
        ('delimiter = ";"', 'finer_than_microsecond = "round"', "must be refuse or cut, not 'round'"),
        ('price = "{price}"', 'price = { from = "{price}", scale = 19 }', "scale must be a number from 0 to 18"),
        ('source_sequence = "{seq}"', 'source_sequence = { from = "{seq}", scale = 2 }', "has no 'scale'"),
        ('formats = ["epoch-us"]', 'formats = ["%Y-%m-%d %N:%M%z"]', "%N is the whole time of the day"),
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
    assert {"asx-quotes", "asx-reference", "asx-trades", "binance-trades", "lobster"} < set(known_mappings())
    assert [load_mapping(name).name for name in known_mappings()] == known_mappings()
    (tmp_path / "m.toml").write_text(TRADES, "utf-8")
    assert load_mapping(str(tmp_path / "m.toml")).name == "mine"
    with pytest.raises(UsageError, match="asx-quotes, asx-reference, asx-trades, binance-agg-trades"):
        load_mapping("nyse")
    with pytest.raises(UsageError, match=r"none\.toml"):
        load_mapping(str(tmp_path / "none.toml"))


def test_what_a_mapping_needs_and_a_file_lacks_is_told() -> None:
    mapping = load_mapping("asx-trades")
    with pytest.raises(UsageError, match=r"f\.csv.*\{company_id\}, \{symbol\}.*--company.*--symbol"):
        Converter(mapping, Context(mapping.columns or (), (), "f.csv", "id", 0))
    with pytest.raises(UsageError, match=r"\{ISIN\}.*columns are company_id, symbol"):
        Converter(load_mapping("asx-reference"), Context(("company_id", "symbol"), (), "f.csv", "id", 0))
