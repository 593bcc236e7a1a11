"""Gaps closed with another record: a vendor's file, or what the exchange gives by number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from k2beam.audit.audit import audit
from k2beam.cli import gaps as gaps_commands
from k2beam.config import NAMESPACE
from k2beam.csv.deliver import write_archive
from k2beam.csv.files import FileVariables, check_files
from k2beam.csv.mapping import load_mapping
from k2beam.csv.reader import CsvReader
from k2beam.feeds.binance.history import TradeHistory
from k2beam.job.fill import RecordOfBinance, RecordOfFiles, fill_gaps
from k2beam.lake.catalog import open_catalog
from k2beam.lake.scan import load_readable
from k2beam.query.lake import Lake
from k2beam.query.selections import EventSelection
from tests.binance_history import History, history_server
from tests.fill_helpers import csv_of, history_of, stored_trades, true_volume
from tests.lake_helpers import lake_config
from tests.replay_helpers import assert_audit, ingest, open_gaps, simulated
from transforms.read_archive import ReadArchive
from transforms.read_csv import ReadCsv

FAULTS = "gaps=8,duplicates=10,late=6,out-of-order=6,malformed=18"


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    """A lake with gaps in its trades."""
    simulated(tmp_path / "in", 2_000, FAULTS, kinds=("trades",), files=1)
    ingest([tmp_path / "in"], tmp_path / "wh")
    return tmp_path / "wh"


@pytest.fixture
def history(warehouse: Path) -> History:
    return history_of(warehouse)


@pytest.fixture
def url(history: History) -> Iterator[str]:
    with history_server(history) as address:
        yield address


def of_binance(url: str) -> RecordOfBinance:
    return RecordOfBinance(TradeHistory(url, sleep=lambda _seconds: None))


def of_csv(path: Path) -> RecordOfFiles:
    source = ReadCsv([str(path)], load_mapping(str(path.with_suffix(".toml"))), loaded_at=0)
    return RecordOfFiles(source.local_batches())


def volume(warehouse: Path) -> Decimal:
    schema, batches = Lake(str(warehouse)).sql("SELECT sum(quantity) AS volume FROM trades")
    (row,) = pa.Table.from_batches(batches, schema).to_pylist()
    return Decimal(row["volume"])


def test_the_exchange_closes_every_gap(warehouse: Path, history: History, url: str) -> None:
    before, missing = stored_trades(warehouse), {gap[1:] for gap in open_gaps(warehouse)}
    truth = true_volume(warehouse, history)
    stats = fill_gaps(lake_config(warehouse), of_binance(url))
    assert (stats.missing_before, stats.missing_after) == (stats.filled, 0)
    assert stats.filled == sum(last - first + 1 for *_, first, last in missing) > 0
    assert open_gaps(warehouse) == set()
    after = stored_trades(warehouse)
    assert len(after) == len(before) + stats.filled, "nothing was doubled, nothing lost"
    assert volume(warehouse) == truth
    assert_audit(warehouse)


def test_another_fill_asks_for_nothing(warehouse: Path, history: History, url: str) -> None:
    fill_gaps(lake_config(warehouse), of_binance(url))
    once, asked = stored_trades(warehouse), len(history.asked)
    stats = fill_gaps(lake_config(warehouse), of_binance(url))
    assert (stats.offered, stats.filled, stats.missing_before) == (0, 0, 0)
    assert (stored_trades(warehouse), len(history.asked)) == (once, asked)


def test_what_the_exchange_lacks_stays_open(warehouse: Path, history: History, url: str) -> None:
    first = min(open_gaps(warehouse))
    history.lacks = {(first[1], first[4])}
    stats = fill_gaps(lake_config(warehouse), of_binance(url))
    assert (stats.missing_after, stats.filled) == (1, stats.missing_before - 1)
    assert open_gaps(warehouse) == {(*first[:5], first[4])}
    assert fill_gaps(lake_config(warehouse), of_binance(url)).filled == 0


def test_only_the_symbols_that_are_named_are_filled(warehouse: Path, history: History, url: str) -> None:
    symbols = sorted({gap[1] for gap in open_gaps(warehouse)})
    fill_gaps(lake_config(warehouse), of_binance(url), EventSelection(symbol=symbols[0]))
    assert {gap[1] for gap in open_gaps(warehouse)} == set(symbols[1:])
    assert {symbol for symbol, _ in history.asked} == {symbols[0]}


def test_a_fill_keeps_where_it_came_from(warehouse: Path, url: str) -> None:
    fill_gaps(lake_config(warehouse), of_binance(url))
    table = load_readable(open_catalog(lake_config(warehouse)), NAMESPACE, "trades_v2")
    rows = table.scan(row_filter="_source LIKE 'fill:%'").to_arrow().to_pylist()
    assert rows
    for row in rows:
        assert row["_source"] == f"fill:binance:{row['symbol']}"
        assert row["_offset"] == row["source_sequence"]
        assert dict(row["vendor_data"])["filled_from"] == "historicalTrades"


def test_a_row_of_a_fill_that_is_lost_is_noticed(warehouse: Path, url: str) -> None:
    fill_gaps(lake_config(warehouse), of_binance(url))
    catalog = open_catalog(lake_config(warehouse))
    row = load_readable(catalog, NAMESPACE, "trades_v2").scan(row_filter="_source LIKE 'fill:%'").to_arrow().slice(0, 1)
    place = f"_source = '{row['_source'][0]}' AND _offset = {row['_offset'][0]}"
    load_readable(catalog, NAMESPACE, "trades_v2").delete(place)
    report = audit(catalog, NAMESPACE, mend=False)
    assert any("are covered but have no row" in problem for problem in report.problems)
    assert {one.end for one in report.sources if one.source.startswith("fill:")} == {"chosen"}


def test_a_file_adds_only_what_is_missing(tmp_path: Path, warehouse: Path, history: History) -> None:
    """A vendor's dump has what is missing, and all that is there as well."""
    truth, before = true_volume(warehouse, history), len(stored_trades(warehouse))
    dump = csv_of(history, tmp_path / "dump.csv")
    with dump.open("a") as file:
        file.write("BTCUSDT,no number,1,1,1,BUY\n")
    stats = fill_gaps(lake_config(warehouse), of_csv(dump))
    assert (stats.filled, stats.missing_after, stats.unreadable) == (stats.missing_before, 0, 1)
    assert stats.offered > before
    assert (len(stored_trades(warehouse)), volume(warehouse)) == (before + stats.filled, truth)
    assert_audit(warehouse)
    again = fill_gaps(lake_config(warehouse), of_csv(dump))
    assert (again.filled, again.missing_before) == (0, 0)
    assert_audit(warehouse)


def test_a_file_and_the_exchange_double_nothing(tmp_path: Path, warehouse: Path, history: History, url: str) -> None:
    truth = true_volume(warehouse, history)
    dump = csv_of(history, tmp_path / "dump.csv", every=2)
    half = fill_gaps(lake_config(warehouse), of_csv(dump))
    rest = fill_gaps(lake_config(warehouse), of_binance(url))
    assert 0 < half.missing_after == rest.missing_before == rest.filled
    assert (rest.missing_after, volume(warehouse)) == (0, truth)
    assert_audit(warehouse)


def test_an_archive_fills_too(tmp_path: Path, warehouse: Path, history: History) -> None:
    truth = true_volume(warehouse, history)
    dump = csv_of(history, tmp_path / "dump.csv")
    reader = CsvReader(load_mapping(str(dump.with_suffix(".toml"))))
    write_archive(check_files([str(dump)], reader.mapping, FileVariables(), 0), reader, tmp_path / "dump.avro")
    stats = fill_gaps(lake_config(warehouse), RecordOfFiles(ReadArchive([str(tmp_path / "dump.avro")]).local_batches()))
    assert (stats.filled, stats.missing_after) == (stats.missing_before, 0)
    assert volume(warehouse) == truth
    assert_audit(warehouse)


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    gaps_commands.register(app)
    return app


def run(app: typer.Typer, warehouse: Path, *words: str) -> Any:
    return CliRunner().invoke(app, ["gaps", *words, "--warehouse", str(warehouse)])


def test_the_commands_list_export_and_fill(
    app: typer.Typer, tmp_path: Path, warehouse: Path, history: History, url: str
) -> None:
    listed = json.loads(run(app, warehouse, "--output", "json").stdout)
    assert listed == json.loads(run(app, warehouse, "list", "--output", "json").stdout)
    lines = run(app, warehouse, "export").stdout.splitlines()
    assert lines[0] == "exchange,symbol,kind,epoch,first_missing,last_missing,missing_count,opened_at"
    assert len(lines) == len(listed) + 1
    dump = csv_of(history, tmp_path / "dump.csv", every=2)
    filled = run(app, warehouse, "fill", str(dump), "--mapping", str(dump.with_suffix(".toml")), "-o", "json")
    assert (filled.exit_code, json.loads(filled.stdout)["filled"] > 0) == (0, True), filled.stderr
    rest = run(app, warehouse, "fill", "--from", "binance", "--url", url, "-o", "json")
    assert "; 0 are left." in rest.stderr
    assert json.loads(run(app, warehouse, "list", "-o", "json").stdout) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "name either FILE... or --from"),
        (["x.csv", "--from", "binance"], "name either FILE... or --from"),
        (["x.csv", "--url", "http://x"], "--url and --api-key go with --from"),
        (["--from", "binance", "--mapping", "binance-trades"], "--mapping is of files"),
        (["--from", "binance", "--api-key", "secret"], "--api-key takes a reference"),
        (["--from", "binance", "--url", "x"], "is not a base address"),
        (["no.csv", "--mapping", "binance-trades"], "no.csv"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_what_can_t_be_is_refused(app: typer.Typer, warehouse: Path, words: list[str], told: str) -> None:
    found = run(app, warehouse, "fill", *words)
    assert (found.exit_code, found.stdout) == (2, "")
    assert told in found.stderr
    assert "secret" not in found.stderr.replace("the secret itself", "")
