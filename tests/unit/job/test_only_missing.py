"""A file of which only what the tables lack is taken: the rest is left out, and each offset is in one place."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import k2beam.job.bounded
from k2beam.audit.audit import audit
from k2beam.config import NAMESPACE
from k2beam.csv.deliver import write_archive
from k2beam.csv.files import FileVariables, check_files
from k2beam.csv.mapping import load_mapping
from k2beam.csv.reader import CsvReader
from k2beam.errors import UsageError
from k2beam.job.bounded import run_ingest
from k2beam.job.config import IngestConfig
from k2beam.job.stats import IngestStats
from k2beam.lake.catalog import open_catalog
from k2beam.lake.scan import load_readable
from k2beam.maintain.coverage import rebuild_coverage
from k2beam.query.lake import Lake
from tests.binance_history import History
from tests.fill_helpers import csv_of, history_of, stored_trades, true_volume
from tests.lake_helpers import lake_config
from tests.replay_helpers import assert_audit, ingest, open_gaps, simulated
from transforms.read_archive import ReadArchive
from transforms.read_csv import ReadCsv


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    """A lake with gaps in its trades."""
    simulated(tmp_path / "in", 2_000, "gaps=8,late=6", kinds=("trades",), files=1)
    ingest([tmp_path / "in"], tmp_path / "wh")
    return tmp_path / "wh"


@pytest.fixture
def history(warehouse: Path) -> History:
    return history_of(warehouse)


@pytest.fixture
def dump(tmp_path: Path, history: History) -> Path:
    return csv_of(history, tmp_path / "dump.csv")


def take(warehouse: Path, dump: Path, **options: Any) -> IngestStats:
    mapping = load_mapping(str(dump.with_suffix(".toml")))
    source = ReadCsv([str(dump)], mapping, loaded_at=0)
    return run_ingest(source, IngestConfig(lake_config(warehouse), **{"only_missing": True, **options}))


def rows(warehouse: Path) -> int:
    return sum(
        load_readable(open_catalog(lake_config(warehouse)), NAMESPACE, name).scan().to_arrow().num_rows
        for name in ("trades_v2",)
    )


def volume(warehouse: Path) -> Decimal:
    schema, batches = Lake(str(warehouse)).sql("SELECT sum(quantity) AS volume FROM trades_v2")
    (row,) = pa.Table.from_batches(batches, schema).to_pylist()
    return Decimal(row["volume"])


def test_what_is_there_is_left_out_and_the_volume_is_right(warehouse: Path, history: History, dump: Path) -> None:
    before, truth = rows(warehouse), true_volume(warehouse, history)
    missing = sum(last - first + 1 for *_, first, last in open_gaps(warehouse))
    stats = take(warehouse, dump)
    assert (stats.written["trades_v2"], stats.already_covered, stats.pending) == (missing, before, 0)
    assert (rows(warehouse), volume(warehouse)) == (before + missing, truth)
    assert open_gaps(warehouse) == set()
    assert_audit(warehouse)
    report = audit(open_catalog(lake_config(warehouse)), NAMESPACE, mend=False)
    assert sum(symbol.duplicate for symbol in report.symbols) == 0


def test_without_the_option_the_copies_are_counted(warehouse: Path, dump: Path) -> None:
    before = rows(warehouse)
    take(warehouse, dump, only_missing=False)
    report = audit(open_catalog(lake_config(warehouse)), NAMESPACE, mend=False)
    assert sum(symbol.duplicate for symbol in report.symbols) == before


def test_what_was_left_out_is_never_taken(warehouse: Path, dump: Path) -> None:
    take(warehouse, dump)
    once = rows(warehouse)
    for only_missing in (True, False):
        again = take(warehouse, dump, only_missing=only_missing)
        assert (again.written["trades_v2"], again.consumed) == (0, again.already_covered)
    assert rows(warehouse) == once
    assert_audit(warehouse)
    assert rebuild_coverage(open_catalog(lake_config(warehouse)), NAMESPACE, ["trades_v2"], apply=False) == [], (
        "a rebuild knows of them"
    )


@pytest.mark.parametrize("stage", ["leave_out_twins", "_run", "reconcile"])
def test_a_run_that_ends_in_between_is_run_again(
    warehouse: Path, history: History, dump: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = true_volume(warehouse, history)
    real = getattr(k2beam.job.bounded, stage)

    def fail(*given: Any, **named: Any) -> None:
        real(*given, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(k2beam.job.bounded, stage, fail)
        with pytest.raises(KeyboardInterrupt):
            take(warehouse, dump)
    take(warehouse, dump)
    assert (volume(warehouse), open_gaps(warehouse)) == (truth, set())
    assert_audit(warehouse)


def test_a_number_that_the_file_has_twice_is_taken_once(warehouse: Path, history: History, dump: Path) -> None:
    truth = true_volume(warehouse, history)
    lines = dump.read_text().splitlines()
    dump.write_text("\n".join([*lines, *lines[1:]]) + "\n")
    take(warehouse, dump)
    assert volume(warehouse) == truth
    assert_audit(warehouse)


def test_bad_lines_and_lines_without_a_number_are_as_ever(tmp_path: Path, warehouse: Path, dump: Path) -> None:
    (symbol,) = {row["symbol"] for row in stored_trades(warehouse)[:1]}
    with dump.open("a") as file:
        file.write(f"{symbol},nonsense,7,1,1,BUY\n{symbol},1767571200000000,,1.25,1,BUY\n")
    stats = take(warehouse, dump)
    assert stats.dead_letters == 1
    schema, batches = Lake(str(warehouse)).sql("SELECT count(*) AS n FROM trades WHERE source_sequence IS NULL")
    assert pa.Table.from_batches(batches, schema).to_pylist() == [{"n": 1}]
    assert_audit(warehouse)


def test_an_archive_is_taken_so_too_and_counts_as_a_source(tmp_path: Path, warehouse: Path, dump: Path) -> None:
    reader = CsvReader(load_mapping(str(dump.with_suffix(".toml"))))
    archive = tmp_path / "dump.avro"
    write_archive(check_files([str(dump)], reader.mapping, FileVariables(), 0), reader, archive)
    before = rows(warehouse)
    config = IngestConfig(lake_config(warehouse), only_missing=True)
    stats = run_ingest(ReadArchive([str(archive)]), config)
    assert stats.already_covered == before
    assert_audit(warehouse, archive)
    assert open_gaps(warehouse) == set()


def test_a_file_of_which_nothing_is_missing_is_no_lost_file(tmp_path: Path, warehouse: Path, dump: Path) -> None:
    take(warehouse, dump)
    reader = CsvReader(load_mapping(str(dump.with_suffix(".toml"))))
    archive = tmp_path / "dump.avro"
    write_archive(check_files([str(dump)], reader.mapping, FileVariables(), 0), reader, archive)
    once = rows(warehouse)
    stats = run_ingest(ReadArchive([str(archive)]), IngestConfig(lake_config(warehouse), only_missing=True))
    assert (stats.written["trades_v2"], rows(warehouse)) == (0, once)
    assert_audit(warehouse, archive)


def test_a_source_that_can_t_be_read_twice_is_refused(warehouse: Path) -> None:
    class Live:
        pass

    with pytest.raises(UsageError, match="--only-missing is for files"):
        run_ingest(Live(), IngestConfig(lake_config(warehouse), only_missing=True))  # type: ignore[arg-type]
