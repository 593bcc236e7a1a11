"""What a job looks up in the tables that it begins with."""

from pathlib import Path

from k2beam.config import NAMESPACE
from k2beam.lake.adopt import exchanges_of
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from tests.lake_helpers import QUICK, lake_config, stage


def test_the_exchanges_of_a_table_are_those_of_its_files(tmp_path: Path) -> None:
    lake = lake_config(tmp_path)
    assert exchanges_of(lake, "trades") == set(), "there is no such table yet"
    names = {"BINANCE", "A|B", "ÅSX"}
    staged = [stage(tmp_path, [number], exchange=name) for number, name in enumerate(sorted(names))]
    commit_files(open_catalog(lake), NAMESPACE, "trades_v2", staged, run_id="r", policy=QUICK)
    assert exchanges_of(lake, "trades") == names
    assert exchanges_of(lake, "quotes") == set()
