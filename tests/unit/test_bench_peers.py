"""The peers of the benchmark: their tables, what counts for them, what they are told, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from bench.peers import connect, driver, flink_sql, quix
from bench.peers.contestants import Connect, FlinkSql, PlainLoop, Quix
from bench.peers.peer import Failed, Outcome, Peer, Topic, Unavailable, trade_schema
from bench.peers.table import (
    NAME,
    NAMESPACE,
    Progress,
    create_table,
    open_peer_catalog,
    peer_content,
    progress,
    with_bigint_times,
)
from bench.processes import Usage
from k2beam.stack.jars import locked_artifacts


def trade(number: int) -> Mapping[str, object]:
    texts = dict.fromkeys(("trade_id", "symbol", "exchange", "asset_class", "currency"), "x")
    return texts | {
        "message_id": str(number),
        "timestamp": number,
        "ingestion_timestamp": number,
        "price": Decimal("0.5"),
        "quantity": Decimal(2),
        "side": "BUY" if number % 2 else "SELL",
        "trade_conditions": [],
        "source_sequence": number,
    }


def test_a_table_tells_how_far_it_is_and_what_it_has(tmp_path: Path) -> None:
    create_table(tmp_path / "wh", with_bigint_times(trade_schema()))
    assert progress(tmp_path / "wh") == Progress(0, 0.0)
    table = open_peer_catalog(tmp_path / "wh").load_table((NAMESPACE, NAME))
    rows = [trade(number) for number in (1, 2, 3, 3)]
    table.append(pa.Table.from_pylist(rows, schema=table.schema().as_arrow()))
    assert progress(tmp_path / "wh").rows == 4
    found = peer_content(tmp_path / "wh")
    assert (found.rows, found.ids, found.sequences, found.price, found.buys) == (4, 3, 9, Decimal(2), 3)


def test_a_fork_has_no_memory_of_its_own() -> None:
    used = {"job": Usage(3.0, 700), "prism": Usage(0.2, 50), "chmod": Usage(0.0, 690)}
    outcome = Outcome(0.0, 1.0, used)
    assert outcome.peak_mib == 750
    assert outcome.cpu_s == pytest.approx(3.2)


def test_names_have_the_versions_of_the_lock_files() -> None:
    names = [peer.name for peer in (PlainLoop(checked=True), Connect(), Quix(), FlinkSql())]
    assert all(any(letter.isdigit() for letter in name.replace("K2", "")) for name in names)
    for group in ("connect", "flink", "ecj"):
        assert locked_artifacts(group, connect.LOCK)


def test_flink_reads_the_frame_as_numbers_and_enums_as_texts(tmp_path: Path) -> None:
    source, _, insert = flink_sql.statements("localhost:1", "t", tmp_path)
    assert source.startswith("CREATE TABLE messages (`frame_0` INT NOT NULL, ")
    assert "`price` DECIMAL(18, 8) NOT NULL, " in source
    assert "`vendor_data` MAP<STRING NOT NULL, STRING NOT NULL>)" in source
    assert "CASE `side` WHEN 0 THEN 'BUY' WHEN 1 THEN 'SELL' " in insert
    with pytest.raises(Failed, match="schema 128"):
        flink_sql.command("localhost:1", "t", 128, tmp_path)


def test_quix_gets_a_table_without_nested_or_required_columns() -> None:
    schema = quix.flat_schema(trade_schema())
    assert schema.names[:2] == ["_timestamp", "_key"]
    assert all(field.nullable and not pa.types.is_nested(field.type) for field in schema)


@dataclass(frozen=True)
class Scripted:
    """A peer that can't be had, or is had and fails."""

    name: str
    missing: str = ""

    def prepare(self) -> None:
        if self.missing:
            raise Unavailable(self.missing)

    def run(self, topic: Topic, warehouse: Path) -> Outcome:
        raise Failed(f"{topic.name} into {warehouse.name}")


def test_who_can_not_be_had_is_named() -> None:
    here = Scripted("here")
    given: Sequence[Peer] = (here, replace(here, name="gone", missing="no network"))
    assert driver.prepared(given) == ([here], {"gone": "no network"})
