"""Recorded events in the order of time: of tables and of archives, from any position on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from k2beam.archive.write import write_raw_archive
from k2beam.codec.frame import frame
from k2beam.config import NAMESPACE
from k2beam.errors import ArchiveError, UsageError
from k2beam.model import RawRecord
from k2beam.produce.recorded import LAST, Recorded, RecordedArchive, RecordedTables
from k2beam.query.selections import EventSelection
from k2beam.schemas import avro_schema
from tests.codec_samples import encode_as, trade
from tests.query_fixtures import DAY, SECOND, append_events, make_catalog, quote
from tests.query_fixtures import trade as stored_trade

TOPIC = "kafka:c/market.trades/t"


def tables(folder: Path, **selection: Any) -> RecordedTables:
    return RecordedTables(make_catalog(folder), NAMESPACE, ("trades", "quotes"), EventSelection(**selection))


def places(found: Sequence[Recorded]) -> list[tuple[str, int]]:
    return [(one.position.kind, one.position.offset) for one in found]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    catalog = make_catalog(tmp_path)
    append_events(
        catalog,
        "trades",
        [
            stored_trade(0, 2, source_sequence=5),
            stored_trade(1, 2, source_sequence=4),
            stored_trade(2, 1, source_sequence=None, symbol="ETHUSDT"),
            stored_trade(3, 1, source_sequence=9, symbol="ETHUSDT"),
        ],
    )
    append_events(catalog, "quotes", [quote(7, 0), quote(8, 3)])
    return tmp_path


def test_trades_and_quotes_are_in_one_order_of_time_and_number(lake: Path) -> None:
    found = list(tables(lake).read())
    assert places(found) == [("quotes", 7), ("trades", 3), ("trades", 2), ("trades", 1), ("trades", 0), ("quotes", 8)]
    assert [one.position for one in found] == sorted(one.position for one in found)
    assert found[2].position.sequence == LAST
    assert all(one.record is not None and one.message is None for one in found)


@pytest.mark.parametrize("after", range(6))
def test_a_replay_goes_on_after_any_position(lake: Path, after: int) -> None:
    whole = list(tables(lake).read())
    assert list(tables(lake).read(whole[after].position)) == whole[after + 1 :]


def test_a_selection_is_read_alone_and_is_part_of_the_identity(lake: Path) -> None:
    chosen = tables(lake, symbol=["ETHUSDT"], start="2026-01-05T00:00:01", end="2026-01-05T00:00:02")
    assert places(list(chosen.read())) == [("trades", 3), ("trades", 2)]
    assert chosen.identity != tables(lake).identity
    assert tables(lake).identity == tables(lake).identity


def test_what_is_written_later_is_not_read(lake: Path) -> None:
    recording = tables(lake)
    append_events(make_catalog(lake), "trades", [stored_trade(10, 5)])
    assert len(list(recording.read())) == 6
    assert len(list(tables(lake).read())) == 7


def message(offset: int, time: int, sequence: int | None, symbol: str = "A", schema_id: int = 1) -> RawRecord:
    when = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=time)
    record = trade(offset, timestamp=when, source_sequence=sequence, symbol=symbol)
    value = frame(schema_id, encode_as("trade_v2", record))
    return RawRecord(TOPIC, 0, offset, DAY + offset, symbol.encode(), value, (("h", b"x"), ("n", None)))


def archive(path: Path, messages: Sequence[RawRecord], schema_id: int = 1) -> str:
    write_raw_archive(str(path), messages, {schema_id: avro_schema("trade_v2")})
    return str(path)


def test_messages_of_an_archive_are_sorted_and_stay_byte_for_byte(tmp_path: Path) -> None:
    chance = random.Random(1)
    made = [message(offset, DAY + chance.randrange(5) * SECOND, chance.randrange(9)) for offset in range(60)]
    shuffled = [archive(tmp_path / "a.avro", made[:30]), archive(tmp_path / "b.avro", made[30:])]
    found = list(RecordedArchive(shuffled).read())
    assert sorted((one.message for one in found), key=lambda one: one.offset) == made  # type: ignore[union-attr]
    positions = [one.position for one in found]
    assert positions == sorted(positions)
    assert list(RecordedArchive(shuffled).read(positions[20])) == found[21:]


def test_what_is_no_event_comes_along_at_the_time_it_was_logged(tmp_path: Path) -> None:
    noise = RawRecord(TOPIC, 0, 1, DAY + SECOND, None, b"noise")
    path = archive(tmp_path / "a.avro", [message(0, DAY + 2 * SECOND, 1), noise])
    found = list(RecordedArchive([path]).read())
    assert places(found) == [("", 1), ("trades", 0)]
    assert found[0].message == noise
    only = RecordedArchive([path], selection=EventSelection(symbol="A"))
    assert places(list(only.read())) == [("trades", 0)]
    early = RecordedArchive([path], selection=EventSelection(end="2026-01-05T00:00:02"))
    assert places(list(early.read())) == [("", 1)]


def test_symbols_and_kinds_are_chosen(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.avro", [message(0, DAY, 1), message(1, DAY, 2, "B"), message(2, DAY, 3, "C")])
    chosen = RecordedArchive([path], selection=EventSelection(symbol=["B", "C"]))
    assert places(list(chosen.read())) == [("trades", 1), ("trades", 2)]
    assert list(RecordedArchive([path], ("quotes",)).read()) == []


def test_records_come_along_where_they_are_asked_for(tmp_path: Path) -> None:
    noise = RawRecord(TOPIC, 0, 5, DAY, None, b"noise")
    path = archive(tmp_path / "a.avro", [message(0, DAY + 1, 1), noise, message(1, DAY, 2, "B")])
    found = list(RecordedArchive([path], decoded=True).read())
    assert [one.record and one.record["symbol"] for one in found] == ["B", None, "A"]
    assert all(one.record is None for one in RecordedArchive([path]).read())


def test_what_can_t_be_replayed_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds records, not messages of a log"):
        RecordedArchive(["samples/asx/trades.avro"])
    one, other = archive(tmp_path / "a.avro", [message(0, DAY, 1)]), str(tmp_path / "b.avro")
    write_raw_archive(other, [message(1, DAY, 1)], {1: avro_schema("quote_v2")})
    with pytest.raises(UsageError, match=r"b\.avro: schema 1 is another schema than in the files before it"):
        RecordedArchive([one, other])
    with pytest.raises(UsageError, match="--as-of is of tables"):
        RecordedArchive([one], selection=EventSelection(as_of=7))
    cut = tmp_path / "cut.avro"
    cut.write_bytes(Path(one).read_bytes()[:-20])
    with pytest.raises(ArchiveError, match="only a whole container is replayed"):
        list(RecordedArchive([str(cut)]).read())
