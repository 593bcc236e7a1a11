"""The same rows however a file is read: by DuckDB itself, through Arrow, or written anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.types import LongType

from k2beam.config import NAMESPACE
from k2beam.errors import LakeError
from k2beam.lake.tables import EVENT_TABLES
from k2beam.query import dataset, relation
from k2beam.query.lake import Lake
from tests.query_fixtures import HOSTILE, append_events, make_catalog, quote, rows_of, trade

TABLE = (NAMESPACE, EVENT_TABLES["trades"])


def filled(folder: Path) -> Catalog:
    catalog = make_catalog(folder)
    append_events(
        catalog, "trades", [trade(0, 1, "61000.1", platform_sequence=7), trade(1, 2, symbol=HOSTILE), trade(2, 3)]
    )
    append_events(catalog, "trades", [trade(3, 86_400), trade(4, 4, message_id="m0"), trade(5, 5)])
    append_events(catalog, "quotes", [quote(0, 0.5), quote(1, 2)])
    return catalog


def answers(folder: Path) -> list[Any]:
    lake = Lake(str(folder))
    _, counted = lake.sql("SELECT symbol, count(*) AS n, max(_offset) AS o FROM trades GROUP BY 1 ORDER BY 1")
    span = {"start": "2026-01-05T00:00:02", "end": "2026-01-05T00:00:05"}
    return [
        lake.trades().to_pylist(),
        lake.trades(HOSTILE).to_pylist(),
        lake.trades(["BTCUSDT", HOSTILE], "BINANCE", **span, columns=["_offset", "side"]).to_pylist(),
        lake.bars("1m").to_pylist(),
        lake.asof("BTCUSDT").to_pylist(),
        lake.summary("BTCUSDT", "2026-01-05"),
        [row for batch in counted for row in batch.to_pylist()],
        [batch.to_pylist() for batch in lake.batches("quotes")],
    ]


def read_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What read the files since: ``direct`` for DuckDB, ``arrow`` for fragments, ``anew`` for those written anew."""
    said: list[str] = []
    original_read, original_fragment = relation._read_parquet, dataset._fragment

    def direct(session: Any, reading: Any, tasks: Any, schema: Any) -> str:
        said.extend(["direct"] * len(tasks))
        return original_read(session, reading, tasks, schema)

    def fragment(*arguments: Any) -> Any:
        found = original_fragment(*arguments)
        said.append("anew" if found is None else "arrow")
        return found

    monkeypatch.setattr(relation, "_read_parquet", direct)
    monkeypatch.setattr(dataset, "_fragment", fragment)
    return lambda: sorted({said.pop() for _ in range(len(said))})


def test_files_of_an_object_store_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    ways = read_by(monkeypatch)
    wanted = answers(tmp_path)
    assert ways() == ["direct"]
    assert [len(rows) for rows in wanted[:3]] == [5, 1, 3]
    monkeypatch.setattr(relation, "_is_plain", lambda *_: False)
    assert answers(tmp_path) == wanted
    assert ways() == ["arrow"]
    monkeypatch.setattr(dataset, "is_own", lambda *_: False)
    assert answers(tmp_path) == wanted
    assert ways() == ["anew"]


def test_a_folder_with_wildcards_in_its_name_names_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plain", "a[1]", "what*"):
        (tmp_path / name).mkdir()
        filled(tmp_path / name)
    ways = read_by(monkeypatch)
    wanted = answers(tmp_path / "plain")
    assert ways() == ["direct"]
    for name in ("a[1]", "what*"):
        assert answers(tmp_path / name) == wanted
        assert ways() == ["arrow"]


def test_a_column_that_was_dropped_and_made_again_has_no_old_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = filled(tmp_path)
    before = catalog.load_table(TABLE).current_snapshot()
    with catalog.load_table(TABLE).update_schema() as update:
        update.delete_column("platform_sequence")
    with catalog.load_table(TABLE).update_schema() as update:
        update.add_column("platform_sequence", LongType())
    append_events(catalog, "trades", [trade(9, 9, platform_sequence=8)])
    ways = read_by(monkeypatch)
    numbers = Lake(str(tmp_path)).trades("BTCUSDT")["platform_sequence"].to_pylist()
    assert (numbers, ways()) == ([None, None, None, 8, None], ["direct"])
    assert before is not None
    was = Lake(str(tmp_path)).trades("BTCUSDT", as_of=before.snapshot_id)
    assert (was["platform_sequence"].to_pylist(), ways()) == ([7, None, None, None], ["anew"])


def test_a_file_without_ids_is_read_by_the_mapping_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = filled(tmp_path)
    path = str(tmp_path / "foreign.parquet")
    pq.write_table(rows_of("trades", [trade(20, 20, "7")]), path)
    catalog.load_table(TABLE).add_files([path])
    ways = read_by(monkeypatch)
    rows = Lake(str(tmp_path)).trades("BTCUSDT").to_pylist()
    assert [row["_offset"] for row in rows] == [0, 2, 5, 20, 3]
    assert rows[3]["price"] == 7
    assert ways() == ["anew", "arrow"]


def test_a_file_that_is_gone_is_named_however_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = filled(tmp_path)
    path = next(iter(catalog.load_table(TABLE).scan().plan_files())).file.file_path
    Path(path.removeprefix("file://")).unlink()
    for patch in ((), ("_is_plain",)):
        for name in patch:
            monkeypatch.setattr(relation, name, lambda *_: False)
        for ask in (Lake.trades, Lake.asof, lambda lake: lake.bars("1m"), lambda lake: list(lake.batches("trades"))):
            with pytest.raises(LakeError, match="is gone") as raised:
                ask(Lake(str(tmp_path)))
            assert path in str(raised.value)
