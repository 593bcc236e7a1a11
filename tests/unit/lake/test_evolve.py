"""``--evolve``: fields that the tables lack are columns, widen, or are refused before anything is written."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from pyiceberg.types import IntegerType, LongType, StringType
from typer.testing import CliRunner

from k2beam import Lake
from k2beam.audit.audit import audit
from k2beam.cli.main import app
from k2beam.config import NAMESPACE
from k2beam.coverage import Coverage
from k2beam.errors import LakeError, SchemaError
from k2beam.job.bounded import run_ingest
from k2beam.job.config import IngestConfig
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.evolve import column_changes, with_columns
from k2beam.lake.files import rewrite_without, write_rows
from k2beam.lake.scan import load_readable
from k2beam.lake.tables import open_table
from tests.codec_samples import evolved, trade
from tests.lake_helpers import QUICK, START, lake_config, trades, write_config
from transforms.read_archive import ReadArchive

NAME = "trades_v2"


def archive(path: Path, first: int, added: dict[str, tuple[Any, Any]]) -> Path:
    """Two trades in a plain container, with fields of these types and values besides."""
    schema = evolved("trade_v2", **{name: {"name": name, "type": kind} for name, (kind, _) in added.items()})
    values = {name: value for name, (_, value) in added.items()}
    with path.open("wb") as out:
        fastavro.writer(out, schema, [{**trade(number), **values} for number in (first, first + 1)])
    return path


def take(folder: Path, *paths: Path, evolve: bool = True) -> dict[str, int]:
    config = IngestConfig(lake_config(folder), write_config(run_id=uuid.uuid4().hex), evolve=evolve)
    return dict(run_ingest(ReadArchive([str(path) for path in paths]), config).written)


def column(folder: Path, name: str) -> list[Any]:
    """Its values, in the order of the offsets of each file."""
    found: list[Any] = Lake(str(folder)).trades(columns=[name, "message_id"]).sort_by("message_id")[name].to_pylist()
    return found


def stored(folder: Path) -> Any:
    return load_readable(open_catalog(lake_config(folder)), NAMESPACE, NAME).schema()


def test_fields_become_optional_columns_and_old_rows_read_null(tmp_path: Path) -> None:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 4}
    millis = {"type": "long", "logicalType": "timestamp-millis"}
    take(tmp_path / "w", archive(tmp_path / "a.avro", 0, {}))
    added = {"trade_flag": ("string", "X"), "fee": (decimal, Decimal("0.125")), "n": ("int", 3)}
    added["seen"] = (millis, START // 1000)
    assert take(tmp_path / "w", archive(tmp_path / "b.avro", 2, added))[NAME] == 2
    assert column(tmp_path / "w", "trade_flag") == [None, None, "X", "X"]
    assert column(tmp_path / "w", "fee") == [None, None, Decimal("0.125"), Decimal("0.125")]
    assert column(tmp_path / "w", "n") == [None, None, 3, 3]
    assert not any(stored(tmp_path / "w").find_field(name).required for name in added)
    assert all(entry is None or "trade_flag" not in dict(entry) for entry in column(tmp_path / "w", "vendor_data"))
    assert audit(open_catalog(lake_config(tmp_path / "w")), NAMESPACE).ok


def test_without_the_option_vendor_data_has_them(tmp_path: Path) -> None:
    take(tmp_path / "w", archive(tmp_path / "a.avro", 0, {"trade_flag": ("string", "X")}), evolve=False)
    assert "trade_flag" not in stored(tmp_path / "w").column_names
    assert [dict(entry)["trade_flag"] for entry in column(tmp_path / "w", "vendor_data")] == ["X", "X"]


def test_a_type_that_widens_is_promoted_and_a_narrower_one_fits(tmp_path: Path) -> None:
    take(tmp_path / "w", archive(tmp_path / "a.avro", 0, {"n": ("int", 3)}))
    assert stored(tmp_path / "w").find_type("n") == IntegerType()
    take(tmp_path / "w", archive(tmp_path / "b.avro", 2, {"n": ("long", 2**40)}))
    assert stored(tmp_path / "w").find_type("n") == LongType()
    take(tmp_path / "w", archive(tmp_path / "c.avro", 4, {"n": ("int", 5)}))
    assert column(tmp_path / "w", "n") == [3, 3, 2**40, 2**40, 5, 5]


def test_files_of_one_run_with_other_fields_go_together(tmp_path: Path) -> None:
    first = archive(tmp_path / "a.avro", 0, {"n": ("int", 3)})
    second = archive(tmp_path / "b.avro", 2, {"n": ("long", 4), "trade_flag": ("string", "X")})
    assert take(tmp_path / "w", first, second)[NAME] == 4
    assert column(tmp_path / "w", "n") == [3, 3, 4, 4]
    assert column(tmp_path / "w", "trade_flag") == [None, None, "X", "X"]


def test_another_type_is_refused_with_both_before_anything_is_written(tmp_path: Path) -> None:
    take(tmp_path / "w", archive(tmp_path / "a.avro", 0, {"n": ("int", 3)}))
    good, bad = archive(tmp_path / "b.avro", 2, {}), archive(tmp_path / "c.avro", 4, {"n": ("string", "x")})
    with pytest.raises(LakeError, match=r"a field n of type string, and table .* has the column n of type int"):
        take(tmp_path / "w", good, bad)
    with pytest.raises(SchemaError, match="the field n is int32 in one schema and string in another"):
        take(tmp_path / "new", archive(tmp_path / "d.avro", 0, {"n": ("int", 3)}), bad)
    assert column(tmp_path / "w", "n") == [3, 3]
    assert Lake(str(tmp_path / "new")).trades().num_rows == 0


def test_names_that_differ_by_case_alone_are_refused(tmp_path: Path) -> None:
    take(tmp_path / "w", archive(tmp_path / "a.avro", 0, {"trade_flag": ("string", "X")}))
    with pytest.raises(LakeError, match=r"a field Trade_Flag of type string, and .* the column trade_flag"):
        take(tmp_path / "w", archive(tmp_path / "b.avro", 2, {"Trade_Flag": ("string", "Y")}))


def test_what_has_no_plain_type_stays_text(tmp_path: Path) -> None:
    take(tmp_path / "w", archive(tmp_path / "a.avro", 0, {"flags": ({"type": "array", "items": "int"}, [1, 2])}))
    assert "flags" not in stored(tmp_path / "w").column_names
    assert dict(column(tmp_path / "w", "vendor_data")[0])["flags"] == "[1, 2]"


def test_many_jobs_at_once_add_a_column_once(tmp_path: Path) -> None:
    table = open_table(open_catalog(lake_config(tmp_path)), NAMESPACE, NAME)
    rows = pa.schema([*trades(range(1)).schema, pa.field("trade_flag", pa.string())])
    with ThreadPoolExecutor(6) as pool:
        catalogs = [open_catalog(lake_config(tmp_path)) for _ in range(6)]
        found = list(pool.map(lambda each: with_columns(each, table, rows), catalogs))
    assert {str(one.schema().find_type("trade_flag")) for one in found} == {"string"}
    assert len(load_readable(catalogs[0], NAMESPACE, NAME).metadata.schemas) == 2
    assert column_changes(found[0], rows) == {}
    assert column_changes(table, rows) == {"trade_flag": StringType()}


def test_a_job_that_does_not_know_of_a_column_goes_on(tmp_path: Path) -> None:
    catalog = open_catalog(lake_config(tmp_path))
    known = open_table(catalog, NAMESPACE, NAME)
    rows = pa.Table.from_batches([trades(range(2))])
    with_columns(catalog, known, pa.schema([*rows.schema, pa.field("trade_flag", pa.string())]))
    files = write_rows(known, rows, START)
    commit_files(catalog, NAMESPACE, NAME, files, run_id="r", policy=QUICK)
    assert column(tmp_path, "trade_flag") == [None, None]
    assert audit(catalog, NAMESPACE).ok


def test_a_file_that_is_rewritten_keeps_its_columns(tmp_path: Path) -> None:
    catalog = open_catalog(lake_config(tmp_path))
    rows = pa.Table.from_batches([trades(range(3))]).append_column("trade_flag", [["a", "b", "c"]])
    table = with_columns(catalog, open_table(catalog, NAMESPACE, NAME), rows.schema)
    (staged,) = write_rows(table, rows, START)
    taken = Coverage()
    taken.add_many("archive:a", 0, [0])
    (fresh,) = rewrite_without(table, staged, taken)
    with table.io.new_input(fresh.path).open() as stream:
        assert pa.parquet.read_table(stream).column("trade_flag").to_pylist() == ["b", "c"]


def test_columns_of_a_csv_file_that_no_field_names(tmp_path: Path) -> None:
    mapping = tmp_path / "map.toml"
    mapping.write_text(MAPPING, "utf-8")
    lines = ("id,ts,px,qty,Venue Code,cond", "1,2024-03-05 10:00:00,1.5,2,V,", "2,2024-03-05 10:00:01,1.6,2,V,C")
    (tmp_path / "t.csv").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    words = ["ingest", "csv", str(tmp_path / "t.csv"), "--mapping", str(mapping), "--warehouse", str(tmp_path / "w")]
    result = CliRunner().invoke(app, [*words, "--evolve", "--output", "json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["written"][NAME] == 2
    assert column(tmp_path / "w", "cond") in ([None, "C"], ["C", None])
    assert [dict(entry) for entry in column(tmp_path / "w", "vendor_data")] == [{"Venue Code": "V"}] * 2


MAPPING = """
name = "trade_flag"
kind = "trades"
zone = "UTC"
formats = ["%Y-%m-%d %H:%M:%S"]
[fields]
trade_id = "{id}"
symbol = "ABC"
exchange = "X"
asset_class = "equities"
currency = "USD"
side = "UNKNOWN"
price = "{px}"
quantity = "{qty}"
timestamp = "{ts}"
"""


def test_a_run_config_is_as_before_without_it() -> None:
    config = IngestConfig(lake_config(Path("w")))
    assert replace(config, evolve=True).evolve
    assert not config.evolve
