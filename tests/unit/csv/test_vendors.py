"""The mappings that come with the program, each over lines as its vendor writes them (the values are ours)."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from k2beam.csv.files import FileVariables, check_files, plan_csv
from k2beam.csv.mapping import known_mappings, load_mapping
from k2beam.csv.reader import CsvReader
from k2beam.errors import UsageError

FILES: dict[str, tuple[str, str]] = {
    "binance-trades": (
        "BTCUSDT-trades-2024-01-02.csv",
        "101,44100.5,0.25,11025.125,1704153600123,True,True\n102,44100.6,1,44100.6,1735776000000123,False,True\n",
    ),
    "binance-agg-trades": (
        "ETHBTC-aggTrades-2024-01-02.csv",
        "7,0.053,2.5,101,103,1704153600123,False,True\n8,0.0531,1,104,104,1704153600124,True,True\n",
    ),
    "tardis-trades": (
        "venue_trades_2024-01-02_BTCUSDT.csv",
        "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
        "venue,BTCUSDT,1704153600123456,1704153600125000,t1,buy,44100.5,0.25\n"
        "venue,BTCUSDT,1704153600123999,1704153600125001,t2,unknown,44100.6,1\n",
    ),
    "tardis-quotes": (
        "venue_quotes_2024-01-02_BTCUSDT.csv",
        "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount\n"
        "venue,BTCUSDT,1704153600123456,1704153600125000,2,44100.6,44100.5,1\n"
        "venue,BTCUSDT,1704153600123457,1704153600125001,2,44100.6,,\n",
    ),
    "databento-trades": (
        "xnas-itch-20240102.trades.csv",
        "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,depth,price,size,flags,ts_in_delta,sequence,symbol\n"
        "1704205800000100200,1704205800000000123,0,2,38,T,A,0,185125000000,100,0,160000,5501,AAPL\n"
        "1704205800000100300,1704205800000000456,0,2,38,F,A,0,185125000000,100,0,160000,5502,AAPL\n",
    ),
    "lobster": (
        "AAPL_2012-06-21_34200000_57600000_message_10.csv",
        "34200.017459617,1,11,18,5853300,1\n34200.189608068,4,12,100,5853300,1\n34201.5,5,0,7,5853400,-1\n",
    ),
}


def events(folder: Path, mapping: str) -> list[dict[str, Any]]:
    name, text = FILES[mapping]
    (folder / name).write_text(text)
    reader = CsvReader(load_mapping(mapping))
    (file,) = check_files([str(folder / name)], reader.mapping, FileVariables(), 0)
    (chunk,) = plan_csv(file, 1 << 20).chunks
    (part,) = reader.parts(chunk)
    assert not part.dead_letters
    found: list[dict[str, Any]] = part.events.to_pylist(maps_as_pydicts="strict")
    return found


def test_each_mapping_is_tried_here_or_with_the_samples() -> None:
    assert {name for name in known_mappings() if not name.startswith("asx-")} == set(FILES)


def test_binance(tmp_path: Path) -> None:
    first, second = events(tmp_path, "binance-trades")
    assert (first["symbol"], first["currency"], first["side"], first["source_sequence"]) == (
        "BTCUSDT",
        "USDT",
        "SELL",
        101,
    )
    assert [one["timestamp"].isoformat() for one in (first, second)] == [
        "2024-01-02T00:00:00.123000+00:00",
        "2025-01-02T00:00:00.000123+00:00",
    ]
    assert first["vendor_data"] == {"quote_qty": "11025.125", "is_best_match": "True"}
    first, second = events(tmp_path, "binance-agg-trades")
    assert (first["symbol"], first["currency"], first["side"], second["side"]) == ("ETHBTC", "BTC", "BUY", "SELL")
    assert first["vendor_data"] == {"first_trade_id": "101", "last_trade_id": "103", "is_best_match": "True"}
    (tmp_path / "trades.csv").write_text("1,1,1,1,1,True,True\n")
    with pytest.raises(UsageError, match=r"mapping binance-trades needs \{quote\}, \{symbol\}"):
        check_files([str(tmp_path / "trades.csv")], load_mapping("binance-trades"), FileVariables(), 0)


def test_tardis(tmp_path: Path) -> None:
    first, second = events(tmp_path, "tardis-trades")
    assert (first["trade_id"], first["side"], second["side"], first["source_sequence"]) == (
        "t1",
        "BUY",
        "UNKNOWN",
        None,
    )
    assert first["ingestion_timestamp"].microsecond == 125_000
    first, second = events(tmp_path, "tardis-quotes")
    assert (first["bid_price"], first["ask_quantity"]) == (Decimal("44100.5"), Decimal(2))
    assert (second["bid_price"], second["bid_quantity"]) == (0, 0)


def test_databento(tmp_path: Path) -> None:
    (trade,) = events(tmp_path, "databento-trades")
    assert (trade["price"], trade["side"], trade["exchange"]) == (Decimal("185.125"), "SELL", "xnas-itch")
    assert (trade["timestamp"].microsecond, trade["vendor_data"]["timestamp_finer"]) == (0, "123")
    assert trade["vendor_data"]["sequence"] == "5501"


def test_lobster(tmp_path: Path) -> None:
    first, second = events(tmp_path, "lobster")
    assert (first["timestamp"].isoformat(), first["price"]) == ("2012-06-21T13:30:00.189608+00:00", Decimal("585.33"))
    assert (first["side"], second["side"], first["vendor_data"]["timestamp_finer"]) == ("SELL", "BUY", "068")
