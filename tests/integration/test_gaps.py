"""The ledger after whole runs equals a recount by SQL over the tables, however the feed came in."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb
import fastavro
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from k2beam.archive.write import write_raw_archive
from k2beam.config import NAMESPACE
from k2beam.job import bounded
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import find_table
from k2beam.model import Gap, RawRecord
from k2beam.schemas import avro_schema
from k2beam.sequence import KeyState
from tests.lake_helpers import START, lake_config
from tests.replay_helpers import assert_audit, ingest, open_gaps

pytestmark = pytest.mark.integration

NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""A run takes seconds, and shrinking would take hundreds of them."""
SECOND = 1_000_000
HOUR = 3600 * SECOND
SCHEMA = fastavro.parse_schema(avro_schema("trade_v2"))

SQL = """
with messages as (
    select distinct exchange, symbol, epoch_us(timestamp) as time, source_sequence as sequence from trades
),
around as (
    select *, lag(time) over w as time_before, lag(sequence) over w as before,
        lead(sequence, 1) over w as next, lead(sequence, 2) over w as after_next
    from messages window w as (partition by exchange, symbol order by time, sequence)
),
epochs as (
    select *, sum(case when 2 * sequence < before and (
            time - time_before >= 3600000000 or (sequence < next and next < after_next and 2 * after_next < before)
        ) then 1 else 0 end) over (partition by exchange, symbol order by time, sequence) as epoch
    from around
),
steps as (
    select exchange, symbol, epoch, sequence,
        lag(sequence) over (partition by exchange, symbol, epoch order by sequence) as before
    from (select distinct exchange, symbol, epoch, sequence from epochs)
)
select exchange, symbol, 'trades', epoch::int, before + 1, sequence - 1 from steps where sequence > before + 1
"""
"""Independent of the gap machine; right for feeds whose numbers fall only at a reset."""

Message = tuple[str, int, int]
"""Symbol, event time, sequence."""


def counted_by_sql(warehouse: Path) -> set[tuple[str, str, str, int, int, int]]:
    table = find_table(open_catalog(lake_config(warehouse)), NAMESPACE, "trades_v2")
    assert table is not None
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("trades", table.scan().to_arrow())
        return set(connection.execute(SQL).fetchall())


def archive(path: Path, messages: Sequence[tuple[int, Message]]) -> Path:
    """Messages with their offsets as a raw_record container."""

    def record(offset: int, message: Message) -> RawRecord:
        symbol, time, sequence = message
        body = BytesIO()
        trade = {
            "message_id": f"{symbol}-{time}-{sequence}", "trade_id": str(sequence), "symbol": symbol, "exchange": "X",
            "asset_class": "crypto", "timestamp": time, "price": b"\x01", "quantity": b"\x01", "currency": "USDT",
            "side": "BUY", "source_sequence": sequence, "ingestion_timestamp": time,
        }  # fmt: skip
        fastavro.schemaless_writer(body, PHYSICAL, trade)
        return RawRecord("kafka:c/t/1", 0, offset, time, b"k", b"\x00\x00\x00\x00\x01" + body.getvalue())

    path.parent.mkdir(parents=True, exist_ok=True)
    write_raw_archive(str(path), [record(*item) for item in messages], {1: avro_schema("trade_v2")}, block_records=4)
    return path


def _without_logical_types(schema: object) -> object:
    if isinstance(schema, dict):
        return {key: _without_logical_types(value) for key, value in schema.items() if key != "logicalType"}
    return [_without_logical_types(item) for item in schema] if isinstance(schema, list) else schema


PHYSICAL = fastavro.parse_schema(json.loads(json.dumps(_without_logical_types(avro_schema("trade_v2")))))


@st.composite
def feeds(draw: st.DrawFn) -> list[Message]:
    """Rising numbers with gaps and a reset or two for each of some symbols, some sent twice, in any order."""
    messages: list[Message] = []
    for symbol in draw(st.sampled_from([["A"], ["A", "B"], ["'; DROP TABLE trades; --", "|", "A"]])):
        time, sequence = START, draw(st.sampled_from([5_000, 26_941_144]))
        for _ in range(draw(st.integers(1, 3))):
            for step in draw(st.lists(st.sampled_from([1, 1, 1, 2, 5, 20]), min_size=4, max_size=15)):
                time += draw(st.sampled_from([1000, SECOND, 20 * SECOND]))
                sequence += step
                messages.append((symbol, time, sequence))
            time += draw(st.sampled_from([10 * SECOND, HOUR]))
            sequence //= 3
    return draw(st.permutations(messages + draw(st.lists(st.sampled_from(messages), max_size=6))))


@dataclass
class Watched:
    """What the machine and the reconcile of the runs did while it is used in a ``with``."""

    ambiguous: bool = False
    changes: list[Gap] = field(default_factory=list)

    def __enter__(self) -> Watched:
        fold, reconcile = KeyState.fold, bounded.reconcile

        def watched_fold(state: KeyState, *arguments: Any) -> Any:
            folded = fold(state, *arguments)
            self.ambiguous |= state.ambiguous
            return folded

        def watched_reconcile(*arguments: Any, **options: Any) -> Any:
            result = reconcile(*arguments, **options)
            self.changes += result.diff.changes
            return result

        self._patches = (
            mock.patch.object(KeyState, "fold", watched_fold),
            mock.patch.object(bounded, "reconcile", watched_reconcile),
        )
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        for patch in self._patches:
            patch.stop()


def check(folder: Path, parts: Sequence[Sequence[tuple[int, Message]]]) -> None:
    """Ingest the parts in jobs of their own; then the ledger, SQL and the audit agree.

    Unless the machine said that a key is ambiguous, its own rows were the ledger: the reconcile added none.
    """
    warehouse = folder / "wh"
    for number, part in enumerate(parts):
        if part:
            with Watched() as watched:
                ingest([archive(folder / f"{number}.avro", part)], warehouse)
            event("ambiguous" if watched.ambiguous else "decided")
            assert watched.ambiguous or watched.changes == []
    assert open_gaps(warehouse) == counted_by_sql(warehouse)
    assert_audit(warehouse, *folder.glob("*.avro"))


@settings(max_examples=8, deadline=None, phases=NO_SHRINKING, suppress_health_check=list(HealthCheck))
@given(feeds(), st.data())
def test_shuffled_duplicated_and_split_feeds(feed: list[Message], data: st.DataObject) -> None:
    offsets = list(enumerate(feed))
    cut = data.draw(st.integers(0, len(feed)))
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder), [offsets[:cut], offsets[cut:]])


@pytest.mark.full
@settings(max_examples=80, deadline=None, phases=NO_SHRINKING, suppress_health_check=list(HealthCheck))
@given(feeds(), st.data())
def test_many_shuffled_duplicated_and_split_feeds(feed: list[Message], data: st.DataObject) -> None:
    owners = [data.draw(st.integers(0, 2)) for _ in feed]
    parts = [[item for item, owner in zip(enumerate(feed), owners, strict=True) if owner == job] for job in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder), parts)


def rising(count: int, first: int = 1000, time: int = START, symbol: str = "A") -> list[Message]:
    return [(symbol, time + number * SECOND, first + number) for number in range(count)]


def in_files(folder: Path, feed: list[Message], files: int) -> list[Path]:
    size = len(feed) // files
    offsets = list(enumerate(feed))
    parts = [offsets[number * size : (number + 1) * size] for number in range(files)]
    return [archive(folder / f"{number:03}.avro", part) for number, part in enumerate(parts)]


@pytest.mark.parametrize("resets", [0, 1])
def test_a_clean_feed_in_fifty_files_read_in_reverse(tmp_path: Path, resets: int) -> None:
    feed = rising(500, 26_940_645)
    if resets:
        feed += rising(500, 624_086, time=feed[-1][1] + SECOND)
    stats = ingest(in_files(tmp_path, feed, 50)[::-1], tmp_path / "wh")
    assert open_gaps(tmp_path / "wh") == set()
    assert stats.gaps.get("RESET", 0) == resets
    assert not {"SMALL_GAP", "LARGE_GAP"} & set(stats.gaps)


def test_a_daily_restart_is_one_reset_a_day_and_other_symbols_are_untouched(tmp_path: Path) -> None:
    days = [message for day in range(4) for message in rising(30, 1000, START + day * 24 * HOUR)]
    feed = sorted([*days, *rising(120, 7000, symbol="B")], key=lambda message: message[1])
    stats = ingest([archive(tmp_path / "days.avro", list(enumerate(feed)))], tmp_path / "wh")
    assert stats.gaps.get("RESET", 0) == 0, "no fall of more than half: 1029 to 1000 is a repeat of numbers"
    lower = [message for day in range(4) for message in rising(30, 10, START + day * 24 * HOUR)]
    stats = ingest([archive(tmp_path / "lower.avro", list(enumerate(lower, start=10_000)))], tmp_path / "wh2")
    assert stats.gaps["RESET"] == 3
    assert open_gaps(tmp_path / "wh2") == set()


def test_a_late_fill_in_a_later_job_closes_the_gap(tmp_path: Path) -> None:
    feed = list(enumerate(rising(20)))
    late = [item for item in feed if 5 <= item[0] < 9]
    first = ingest([archive(tmp_path / "0.avro", [item for item in feed if item not in late])], tmp_path / "wh")
    assert first.gaps["SMALL_GAP"] == 1
    assert open_gaps(tmp_path / "wh") == {("X", "A", "trades", 0, 1005, 1008)}
    ingest([archive(tmp_path / "1.avro", late[1:3])], tmp_path / "wh")
    assert open_gaps(tmp_path / "wh") == {("X", "A", "trades", 0, 1005, 1005), ("X", "A", "trades", 0, 1008, 1008)}
    ingest([archive(tmp_path / "2.avro", late)], tmp_path / "wh")
    assert open_gaps(tmp_path / "wh") == set()
    assert_audit(tmp_path / "wh", *tmp_path.glob("*.avro"))
