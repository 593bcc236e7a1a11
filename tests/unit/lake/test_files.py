"""Data files: what they hold, how they are sorted, and what the buffer groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.expressions import EqualTo
from pyiceberg.types import StringType

from k2beam.config import NAMESPACE
from k2beam.coverage import Coverage
from k2beam.lake.buffer import GroupKey, RowBuffer
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.files import rewrite_without, row_coverage, write_rows
from k2beam.lake.rows import RowBatch, dead_letter_rows, event_rows
from k2beam.lake.tables import open_table
from k2beam.model import DeadLetter, DeadLetterBatch, EventBatch, Extent
from tests.lake_helpers import DAY, QUICK, START, lake_config, stage, trade_batch, trades

MINUTE = 60_000_000


def table_of(folder: Path, name: str = "trades_v2"):
    return open_table(open_catalog(lake_config(folder)), NAMESPACE, name)


def test_rows_are_sorted_by_symbol_and_time(tmp_path: Path) -> None:
    late = trades([5, 6], symbol="ETH", times=[START + 9, START + 1])
    rows = pa.Table.from_batches([late, trades([1, 2], symbol="ADA", times=[START + 5, START + 4])])
    (staged,) = write_rows(table_of(tmp_path), rows, START)
    written = pq.read_table(staged.path)
    assert written.column("_offset").to_pylist() == [2, 1, 6, 5]
    assert pq.ParquetFile(staged.path).metadata.row_group(0).column(0).compression == "ZSTD"
    assert staged.rows == 4
    assert staged.nbytes == Path(staged.path).stat().st_size
    assert list(Coverage.from_bytes(staged.coverage)["archive:a", 0]) == [1, 2, 5, 6]


def test_values_come_back_from_the_table(tmp_path: Path) -> None:
    staged = stage(tmp_path, range(3))
    catalog = open_catalog(lake_config(tmp_path))
    commit_files(catalog, NAMESPACE, "trades_v2", [staged], run_id="r", policy=QUICK)
    expected = pa.Table.from_batches([trades(range(3))]).to_pylist()
    found = table_of(tmp_path).scan().to_arrow().to_pylist()
    assert sorted(found, key=lambda row: row["_offset"]) == expected


BEFORE_SURROGATES = "\ud7ff" * 17
"""Valid UTF-8; the successor of its sixteenth character is not."""


@pytest.mark.parametrize("symbol", [BEFORE_SURROGATES, "a" * 15 + "\ud7ff\ud7ff", "\U0010ffff" * 20, "\ud7ff"])
def test_the_bounds_of_a_text_hold_all_of_its_values(tmp_path: Path, symbol: str) -> None:
    rows = pa.Table.from_batches([trades([1, 2], symbol=symbol), trades([3], symbol="ETH")])
    (staged,) = write_rows(table_of(tmp_path), rows, START)
    catalog = open_catalog(lake_config(tmp_path))
    commit_files(catalog, NAMESPACE, "trades_v2", [staged], run_id="r", policy=QUICK)
    entry, table = staged.data_file(), table_of(tmp_path)
    for field in table.schema().fields:
        upper = entry.upper_bounds.get(field.field_id)
        if isinstance(field.field_type, StringType) and upper is not None:
            assert upper.decode() >= max(value for value in rows.column(field.name).to_pylist() if value is not None)
    assert table.schema().find_field("_offset").field_id in entry.upper_bounds
    found = table.scan(row_filter=EqualTo("symbol", symbol)).to_arrow()
    assert sorted(found.column("_offset").to_pylist()) == [1, 2]
    assert len(list((tmp_path).rglob("*.parquet"))) == 1, "what was written before the bounds failed is no orphan"


def test_any_text_may_be_hard_to_bound(tmp_path: Path) -> None:
    rows = dead_letter_rows(DeadLetterBatch((replace(dead_letter(1), error_message=BEFORE_SURROGATES),)))
    (staged,) = write_rows(table_of(tmp_path, "dead_letters"), pa.Table.from_batches([rows.data]), START)
    assert pq.read_table(staged.path).column("error_message").to_pylist() == [BEFORE_SURROGATES]


def test_partition_pruning_finds_the_day(tmp_path: Path) -> None:
    staged = stage(tmp_path, [1], times=[START + 3 * DAY + 5])
    assert "timestamp_day=2024-10-07" in staged.path
    assert "exchange=BINANCE" in staged.path


def test_expected_extents_are_those_of_the_sources_in_the_file(tmp_path: Path) -> None:
    extents = [Extent("archive:a", 0, 10), Extent("archive:b", 0, 5)]
    (staged,) = write_rows(table_of(tmp_path), pa.Table.from_batches([trades([1])]), START, extents)
    assert staged.expected == (extents[0],)


def test_rewrite_keeps_only_what_is_not_taken(tmp_path: Path) -> None:
    staged = stage(tmp_path, range(5))
    taken = Coverage()
    taken.add_range("archive:a", 0, 1, 3)
    (fresh,) = rewrite_without(table_of(tmp_path), staged, taken)
    assert fresh is not None
    assert pq.read_table(fresh.path).column("_offset").to_pylist() == [0, 4]
    assert Path(staged.path).exists()
    taken.add_range("archive:a", 0, 0, 4)
    assert rewrite_without(table_of(tmp_path), staged, taken) == []


def dead_letter(offset: int, last: int | None = None) -> DeadLetter:
    return DeadLetter(
        source="s", partition=2, offset=offset, offset_last=last, stage="read", error_class="broken_block",
        error_message="m", payload=b"\x00\xff", headers=(("k", b"\x01"), ("n", None)), failed_at=START,
    )  # fmt: skip


def test_a_dead_letter_may_stand_for_many_offsets(tmp_path: Path) -> None:
    rows = dead_letter_rows(DeadLetterBatch((dead_letter(3, 7), dead_letter(9), dead_letter(9))))
    assert list(row_coverage(rows.data)["s", 2]) == [3, 4, 5, 6, 7, 9]
    (staged,) = write_rows(table_of(tmp_path, "dead_letters"), pa.Table.from_batches([rows.data]), START)
    written = pq.read_table(staged.path).to_pylist()
    assert [(row["_offset"], row["_offset_last"], row["payload"]) for row in written] == [
        (3, 7, b"\x00\xff"),
        (9, 9, b"\x00\xff"),
    ]
    assert written[0]["headers"] == [{"key": "k", "value": b"\x01"}, {"key": "n", "value": None}]


def split(rows: RowBatch, window: int) -> list[tuple[GroupKey, pa.Table]]:
    buffer = RowBuffer(window, target_file_bytes=1 << 40, memory_bytes=1 << 40)
    assert not list(buffer.add(rows))
    return [(key, group.rows()) for key, group in buffer.drain()]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5 * MINUTE), st.integers(0, 2)), min_size=1, max_size=40),
    st.sampled_from([MINUTE, 7 * MINUTE, DAY]),
)
def test_split_by_window_and_partition(rows: list[tuple[int, int]], window: int) -> None:
    base = START + DAY - 2 * MINUTE
    batches = [
        trades([offset], times=[base + time], exchange=f"X{exchange}") for offset, (time, exchange) in enumerate(rows)
    ]
    data = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
    seen = []
    for key, part in split(event_rows(EventBatch("trades", data)), window):
        micros = part.column("timestamp").cast(pa.int64()).to_pylist()
        assert {value - value % window for value in micros} == {key.window}
        assert {value // DAY for value in micros} == {key.day}
        assert set(part.column("exchange").to_pylist()) == {key.identity}
        assert part.column("_offset").to_pylist() == sorted(part.column("_offset").to_pylist())
        seen += part.column("_offset").to_pylist()
    assert sorted(seen) == list(range(len(rows)))


def test_element_time_and_not_event_time_gives_the_window() -> None:
    times = pa.array([START, START + MINUTE], type=pa.timestamp("us", tz="UTC"))
    rows = event_rows(EventBatch("trades", trades([1, 2], times=[START, START]), element_time=times))
    assert [key.window for key, _ in split(rows, MINUTE)] == [START, START + MINUTE]


def test_buffer_closes_groups_by_size_and_by_memory() -> None:
    one = event_rows(trade_batch(range(100)))
    by_size = RowBuffer(DAY, target_file_bytes=one.nbytes // 4, memory_bytes=10 * one.nbytes)
    assert [group.rows().num_rows for _, group in by_size.add(one)] == [100]
    assert list(by_size.drain()) == []

    other = event_rows(trade_batch(range(10), exchange="X"))
    by_memory = RowBuffer(DAY, target_file_bytes=1 << 30, memory_bytes=one.nbytes + 1)
    assert list(by_memory.add(other)) == []
    assert [key.identity for key, _ in by_memory.add(one)] == ["BINANCE"]
    assert [(key.identity, group.rows().num_rows) for key, group in by_memory.drain()] == [("X", 10)]


@pytest.mark.parametrize("option", ["window_seconds", "target_file_bytes", "memory_bytes"])
def test_sizes_must_be_positive(option: str) -> None:
    from k2beam.config import WriteConfig
    from k2beam.errors import UsageError

    with pytest.raises(UsageError, match=option):
        WriteConfig(run_id="r", **{option: 0})
