"""The recount of sequences from rows: against an independent one in SQL, and its ways of reading."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.expressions import EqualTo

from k2beam.config import NAMESPACE
from k2beam.errors import UnreadableFile
from k2beam.lake import recount as recount_module
from k2beam.lake.certified import CertifiedDays
from k2beam.lake.commit import commit_files
from k2beam.lake.recount import KeyRecount, recount_keys
from k2beam.lake.scan import file_rows, partition_value, plan_files, read_file
from k2beam.lake.tables import SPECS
from k2beam.sequence import recount
from tests.audit_helpers import HOUR, START, Row, SmallLake, event_table, two_exchanges
from tests.lake_helpers import DAY, QUICK, written_by_the_first_row

# Independent of the recount: window functions over a feed whose numbers only fall at a reset.
SQL_RECOUNT = """
with messages as (select distinct time, sequence from feed),
around as (
    select *, lag(time) over w as time_before, lag(sequence) over w as before,
        lead(sequence, 1) over w as next, lead(sequence, 2) over w as after_next
    from messages window w as (order by time, sequence)
),
epochs as (
    select time, sequence, sum(
        case when 2 * sequence < before and (
            time - time_before >= 3600000000 or (sequence < next and next < after_next and 2 * after_next < before)
        ) then 1 else 0 end
    ) over (order by time, sequence) as epoch
    from around
),
steps as (
    select epoch, sequence, min(time) as time, lag(sequence) over (partition by epoch order by sequence) as before
    from epochs group by epoch, sequence
)
select epoch, before + 1, sequence - 1, time from steps where sequence > before + 1 order by epoch, sequence
"""


@st.composite
def feeds(draw: st.DrawFn) -> list[tuple[int, int]]:
    """A feed of a few epochs: rising numbers with gaps and repeats, in any order of arrival."""
    messages, time = [], START
    for _ in range(draw(st.integers(1, 3))):
        sequence = draw(st.integers(100, 200))
        for step in draw(st.lists(st.integers(1, 4), min_size=3, max_size=12)):
            time += draw(st.integers(1, 1000))
            messages.append((time, sequence))
            sequence += step
        # The next epoch begins at less than half: after an hour, or continued by its next two messages.
        messages += [(time + wait, 10_000 + number) for number, wait in enumerate((1, 2, 3))]
        time += draw(st.sampled_from([10, HOUR]))
    repeats = draw(st.lists(st.sampled_from(messages), max_size=5))
    return draw(st.permutations(messages + repeats))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(feeds())
def test_recount_agrees_with_sql(feed: list[tuple[int, int]]) -> None:
    times, sequences = (np.array(column, dtype=np.int64) for column in zip(*feed, strict=True))
    ours = [
        (epoch.number, gap.first, gap.last, gap.opened_at) for epoch in recount(times, sequences) for gap in epoch.gaps
    ]
    with duckdb.connect() as connection:
        connection.register("feed", pa.table({"time": times, "sequence": sequences}))
        assert ours == connection.execute(SQL_RECOUNT).fetchall()


@pytest.fixture
def lake(tmp_path: Path) -> SmallLake:
    return SmallLake(tmp_path)


def gaps(found: KeyRecount) -> list[tuple[int, int]]:
    return [(gap.first, gap.last) for epoch in found.epochs for gap in epoch.gaps]


def summary(lake: SmallLake, **options: object) -> dict[tuple[str, str], tuple[list[tuple[int, int]], int, int]]:
    found = recount_keys(lake.catalog, NAMESPACE, **options)  # type: ignore[arg-type]
    return {(key.exchange, key.symbol): (gaps(key), key.rows, key.unsequenced) for key in found}


WHOLE = {
    ("BINANCE", "BTC"): ([(13, 13)], 5, 1),
    ("BINANCE", "ETH"): ([(12, 14)], 2, 0),
    ("ASX", "BTC"): ([], 2, 0),
}


def test_keys_are_gathered_over_files_and_exchanges(lake: SmallLake) -> None:
    two_exchanges(lake)
    assert summary(lake) == WHOLE


@pytest.mark.parametrize(("held", "sliced"), [(1, 1), (3, 2), (1000, 3), (1000, 1)])
def test_a_large_day_is_taken_in_parts(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch, held: int, sliced: int
) -> None:
    two_exchanges(lake)
    monkeypatch.setattr(recount_module, "ROWS_AT_ONCE", held)
    monkeypatch.setattr(recount_module, "SLICED_AT_ONCE", sliced)
    assert summary(lake) == WHOLE


def test_days_are_folded_in_their_order_whatever_the_order_of_commits(lake: SmallLake) -> None:
    late = [Row(3, 1, time=START + 2 * DAY), Row(4, 2, time=START + 2 * DAY + 1), Row(5, 4, time=START + 2 * DAY + 2)]
    lake.add(late)
    lake.add([Row(0, 100), Row(1, 102), Row(2, 104, time=START + DAY)])
    (found,) = recount_keys(lake.catalog, NAMESPACE)
    assert [(epoch.first_sequence, epoch.last_sequence) for epoch in found.epochs] == [(100, 104), (1, 4)]
    assert gaps(found) == [(101, 101), (103, 103), (3, 3)]
    assert found.epochs == recount(
        np.array([START, START + 1000, START + DAY, *(row.event_time for row in late)]),
        np.array([100, 102, 104, 1, 2, 4]),
    )


def test_a_table_without_days_is_counted_as_one(tmp_path: Path) -> None:
    lake = SmallLake(tmp_path)
    spec = SPECS["trades_v2"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(SPECS, "trades_v2", replace(spec, day_column=None, identity_column=None))
        lake.table("trades_v2")
    two_exchanges(lake)
    lake.add([Row(10, 16, time=START + 2 * DAY)])
    assert summary(lake)["BINANCE", "BTC"] == ([(13, 13), (15, 15)], 6, 1)
    certified = CertifiedDays(lake.catalog, NAMESPACE, keep=True)
    assert len(list(recount_keys(lake.catalog, NAMESPACE, certified=certified))) == 3
    assert (certified.read, certified.save()) == (1, None)


def test_a_file_with_rows_of_another_day_is_no_answer(lake: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows would be counted in a wrong order."""
    rows = event_table("trades", [Row(0, 10), Row(1, 11, time=START + DAY)])
    (staged,) = written_by_the_first_row(lake.table("trades_v2"), rows, monkeypatch)
    commit_files(lake.catalog, NAMESPACE, "trades_v2", [staged], run_id="r", policy=QUICK)
    with pytest.raises(UnreadableFile, match="rows of another day or exchange than its partition says"):
        list(recount_keys(lake.catalog, NAMESPACE))


def test_a_file_with_rows_of_another_exchange_is_no_answer(lake: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = event_table("trades", [Row(0, 10), Row(1, 11, exchange="ASX")])
    (staged,) = written_by_the_first_row(lake.table("trades_v2"), rows, monkeypatch)
    commit_files(lake.catalog, NAMESPACE, "trades_v2", [staged], run_id="r", policy=QUICK)
    with pytest.raises(UnreadableFile, match="rows of another day or exchange than its partition says"):
        list(recount_keys(lake.catalog, NAMESPACE))


def test_a_key_without_numbers_is_still_named_and_a_negative_number_is_none(lake: SmallLake) -> None:
    lake.add([Row(0), Row(1, -7)])
    assert summary(lake) == {("BINANCE", "BTC"): ([], 0, 2)}


def test_deleted_rows_do_not_count(lake: SmallLake) -> None:
    two_exchanges(lake)
    lake.table("trades_v2").delete(EqualTo("_offset", 2))
    assert summary(lake)["BINANCE", "BTC"] == ([(12, 13)], 4, 1)


def test_no_table_has_no_keys(lake: SmallLake) -> None:
    assert summary(lake) == {}


def test_a_lost_file_stops_the_recount_unless_it_is_taken_note_of(lake: SmallLake) -> None:
    two_exchanges(lake)
    victim = next(path for path in lake.data_files() if "exchange=ASX" in str(path))
    victim.unlink()
    with pytest.raises(UnreadableFile, match=victim.name):
        list(recount_keys(lake.catalog, NAMESPACE))
    noted: list[UnreadableFile] = []
    rest = [(key.exchange, key.symbol) for key in recount_keys(lake.catalog, NAMESPACE, on_unreadable=noted.append)]
    assert sorted(rest) == [("BINANCE", "BTC"), ("BINANCE", "ETH")]
    assert [error.path.endswith(victim.name) for error in noted] == [True]


def test_scan_reads_only_the_columns_and_says_the_partition(lake: SmallLake) -> None:
    lake.add([Row(5, 50), Row(4, 40)])
    table = lake.table("trades_v2")
    (task,) = plan_files(table)
    (batch,) = read_file(table, task, ("_offset", "symbol"))
    assert batch.schema.names == ["_offset", "symbol"]
    assert sorted(batch.column(0).to_pylist()) == [4, 5]
    assert (partition_value(table, task, "exchange"), partition_value(table, task, "symbol")) == ("BINANCE", None)
    assert file_rows(task) == 2
