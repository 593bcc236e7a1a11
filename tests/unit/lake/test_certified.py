"""Remembered days: believed for the files that they were counted from, and for nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import EqualTo

from k2beam.config import NAMESPACE
from k2beam.lake import certified
from k2beam.lake.certified import MOST_FILES, CertifiedDays
from k2beam.lake.days import divide
from k2beam.lake.reconcile import reconcile
from k2beam.lake.recount import KeyRecount, recount_keys
from k2beam.lake.scan import plan_files
from k2beam.lake.tables import CERTIFIED_DAYS, CERTIFIED_SCHEMA, find_table
from tests.audit_helpers import START, Row, SmallLake, two_exchanges
from tests.lake_helpers import DAY, QUICK


@pytest.fixture
def lake(tmp_path: Path) -> SmallLake:
    return SmallLake(tmp_path)


def remembered(lake: SmallLake) -> list[dict[str, Any]]:
    table = find_table(lake.catalog, NAMESPACE, CERTIFIED_DAYS)
    return [] if table is None else table.scan().to_arrow().to_pylist()


def from_rows(lake: SmallLake) -> list[KeyRecount]:
    return sorted(recount_keys(lake.catalog, NAMESPACE))


def asked(lake: SmallLake, **options: bool) -> tuple[CertifiedDays, list[KeyRecount]]:
    days = CertifiedDays(lake.catalog, NAMESPACE, **options)
    return days, sorted(recount_keys(lake.catalog, NAMESPACE, certified=days))


def counted(lake: SmallLake) -> tuple[int, int]:
    """Days remembered and read by a recount, which must agree with the rows whatever is remembered."""
    days, found = asked(lake)
    assert found == from_rows(lake)
    return days.remembered, days.read


def alter(lake: SmallLake, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write the remembered rows anew, as only somebody else would."""
    table = lake.table(CERTIFIED_DAYS)
    table.overwrite(change(table.scan().to_arrow().cast(CERTIFIED_SCHEMA)))


def test_a_day_is_remembered_until_its_files_change(lake: SmallLake) -> None:
    two_exchanges(lake)
    assert counted(lake) == (0, 2)
    reconcile(lake.catalog, NAMESPACE)
    assert counted(lake) == (2, 0)
    lake.add([Row(10, 13), Row(11, 20, time=START + DAY)])
    assert counted(lake) == (1, 2)
    reconcile(lake.catalog, NAMESPACE)
    assert counted(lake) == (3, 0)
    lake.table("trades_v2").delete(EqualTo("_offset", 2))
    assert counted(lake) == (2, 1)


def test_a_row_says_what_it_was_counted_from(lake: SmallLake) -> None:
    two_exchanges(lake)
    reconcile(lake.catalog, NAMESPACE)
    table = lake.table("trades_v2")
    rows = {row["exchange"]: row for row in remembered(lake)}
    assert {name: (row["kind"], row["rows"], row["unsequenced"], row["symbols"]) for name, row in rows.items()} == {
        "BINANCE": ("trades", 8, 1, ["BTC", "ETH"]),
        "ASX": ("trades", 2, 0, ["BTC"]),
    }
    assert {int(row["day"].timestamp() * 1e6) for row in rows.values()} == {START - START % DAY}
    assert {row["snapshot_id"] for row in rows.values()} == {table.metadata.current_snapshot_id}
    assert {row["digest"] for row in rows.values()} == {
        day.digest for day in divide(table, "trades", plan_files(table))
    }


def test_the_digest_changes_with_files_and_with_deletes_and_with_nothing_else(lake: SmallLake) -> None:
    two_exchanges(lake)
    table = lake.table("trades_v2")
    asx, binance = (day.digest for day in divide(table, "trades", plan_files(table)))
    again = divide(table, "trades", reversed(plan_files(table)))
    assert [day.digest for day in again] == [asx, binance]
    lake.add([Row(10, 15)])
    table = lake.table("trades_v2")
    after = [day.digest for day in divide(table, "trades", plan_files(table))]
    assert (after[0], after[1] == binance) == (asx, False)


def test_what_is_not_kept_is_not_written(lake: SmallLake) -> None:
    two_exchanges(lake)
    days, _ = asked(lake)
    assert days.save() is None
    assert find_table(lake.catalog, NAMESPACE, CERTIFIED_DAYS) is None


def test_a_recount_that_left_out_a_file_is_not_remembered(lake: SmallLake) -> None:
    two_exchanges(lake)
    next(path for path in lake.data_files() if "exchange=BINANCE" in str(path)).unlink()
    days = CertifiedDays(lake.catalog, NAMESPACE, keep=True)
    list(recount_keys(lake.catalog, NAMESPACE, certified=days, on_unreadable=lambda error: None))
    days.save()
    assert [row["exchange"] for row in remembered(lake)] == ["ASX"]


def test_days_of_several_months_and_kinds_are_found(lake: SmallLake) -> None:
    for day in range(0, 100, 25):
        lake.add([Row(day, 10 + day, time=START + day * DAY)])
        lake.add([Row(1000 + day, 70 + day, time=START + day * DAY)], "quotes")
    reconcile(lake.catalog, NAMESPACE)
    assert counted(lake) == (8, 0)
    assert len(lake.data_files(CERTIFIED_DAYS)) == 6


def test_out_of_date_rows_go_away_and_the_files_stay_few(lake: SmallLake) -> None:
    for number in range(2 * MOST_FILES):
        lake.add([Row(number, number, time=START + number % 5 * DAY)])
        reconcile(lake.catalog, NAMESPACE)
        days = min(number + 1, 5)
        assert counted(lake) == (days, 0)
        assert len(remembered(lake)) <= 2 * days + 1
        assert len(lake.data_files(CERTIFIED_DAYS)) <= MOST_FILES


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["BTC", "ETH"]), st.integers(0, 12), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_was_remembered_when_a_recount_says_what_the_rows_say(
    steps: list[tuple[int, str, int, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    lake = SmallLake(tmp_path_factory.mktemp("lake"))
    for offset, (day, symbol, sequence, remember) in enumerate(steps):
        lake.add([Row(offset, sequence, time=START + day * DAY + offset, symbol=symbol)])
        if remember:
            reconcile(lake.catalog, NAMESPACE)
        counted(lake)


def test_a_damaged_row_is_not_believed_and_is_replaced(lake: SmallLake) -> None:
    two_exchanges(lake)
    reconcile(lake.catalog, NAMESPACE)
    (binance,) = (row for row in remembered(lake) if row["exchange"] == "BINANCE")
    damaged = [bytes([octet ^ 1 for octet in data]) for data in binance["slices"]]
    alter(lake, lambda rows: with_slices(rows, "BINANCE", damaged))
    assert counted(lake) == (1, 1)
    reconcile(lake.catalog, NAMESPACE)
    assert counted(lake) == (2, 0)
    assert len(remembered(lake)) == 2


def with_slices(rows: pa.Table, exchange: str, slices: list[bytes]) -> pa.Table:
    values = rows.to_pylist()
    for row in values:
        if row["exchange"] == exchange:
            row["slices"] = slices
    return pa.Table.from_pylist(values, schema=CERTIFIED_SCHEMA)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("harm", [Path.unlink, cut], ids=["gone", "cut"])
def test_a_lost_file_costs_time_and_is_replaced(lake: SmallLake, harm: Callable[[Path], None]) -> None:
    two_exchanges(lake)
    reconcile(lake.catalog, NAMESPACE)
    (victim,) = lake.data_files(CERTIFIED_DAYS)
    harm(victim)
    days, found = asked(lake)
    assert (found, days.read, victim.name in days.trouble) == (from_rows(lake), 2, True)
    reconcile(lake.catalog, NAMESPACE)
    days, found = asked(lake)
    assert (found, days.remembered, days.trouble) == (from_rows(lake), 2, "")


def test_without_its_metadata_nothing_is_remembered_and_the_job_goes_on(lake: SmallLake) -> None:
    two_exchanges(lake)
    reconcile(lake.catalog, NAMESPACE)
    Path(lake.table(CERTIFIED_DAYS).metadata_location.removeprefix("file://")).unlink()
    assert counted(lake) == (0, 2)
    assert reconcile(lake.catalog, NAMESPACE).keys == 3


def test_a_table_of_the_same_name_with_other_columns_is_left_alone(lake: SmallLake) -> None:
    lake.catalog.create_namespace_if_not_exists(NAMESPACE)
    lake.catalog.create_table((NAMESPACE, CERTIFIED_DAYS), schema=pa.schema([("x", pa.int64())]))
    table = lake.catalog.load_table((NAMESPACE, CERTIFIED_DAYS))
    table.append(pa.table({"x": [1]}))
    two_exchanges(lake)
    assert counted(lake) == (0, 2)
    assert reconcile(lake.catalog, NAMESPACE).keys == 3
    assert lake.catalog.load_table((NAMESPACE, CERTIFIED_DAYS)).scan().to_arrow().num_rows == 1


def test_a_full_recount_finds_what_is_remembered_wrong(lake: SmallLake) -> None:
    two_exchanges(lake)
    reconcile(lake.catalog, NAMESPACE)
    asx, binance = sorted(remembered(lake), key=lambda row: row["exchange"])
    wrong = [*binance["slices"][:1], asx["slices"][0]]

    def summed(rows: pa.Table) -> pa.Table:
        values = with_slices(rows, "BINANCE", wrong).to_pylist()
        for row in values:
            day = {**row, "day": int(row["day"].timestamp()) // 86_400, "certified_at": 0}
            row["checksum"] = certified._Row(**day).summed()
        return pa.Table.from_pylist(values, schema=CERTIFIED_SCHEMA)

    alter(lake, summed)
    believing, found = asked(lake)
    assert (believing.remembered, believing.wrong, found == from_rows(lake)) == (2, [], False)
    full, found = asked(lake, believe=False, keep=True)
    assert found == from_rows(lake)
    assert (full.remembered, full.read, full.wrong) == (0, 2, ["trades of BINANCE on 2023-11-14"])
    assert full.save() is not None
    assert counted(lake) == (2, 0)
    assert len(remembered(lake)) == 2


def test_what_is_remembered_does_not_depend_on_the_order_in_which_rows_are_read(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (5, 3, 4, 1, 2):
        lake.add([Row(number, 10 * number), Row(10 + number, 10 * number + 1)])
    reconcile(lake.catalog, NAMESPACE)
    monkeypatch.setattr("k2beam.lake.recount.bound_of", lambda *_: None)
    full, _ = asked(lake, believe=False)
    assert (full.read, full.wrong) == (1, [])


def test_two_at_once_both_remember(lake: SmallLake) -> None:
    two_exchanges(lake)
    reconcile(lake.catalog, NAMESPACE)
    lake.add([Row(10, 15)])
    one, _ = asked(lake, keep=True)
    lake.add([Row(11, 30, exchange="ASX")])
    other, _ = asked(lake, keep=True)
    assert one.save(policy=QUICK) is not None
    assert other.save(policy=QUICK) is not None
    assert counted(lake) == (2, 0)
    reconcile(lake.catalog, NAMESPACE)
    lake.add([Row(12, 40, exchange="ASX")])
    reconcile(lake.catalog, NAMESPACE)
    assert len(remembered(lake)) <= 5


def test_a_commit_that_landed_though_it_was_reported_lost_is_not_repeated(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_exchanges(lake)
    days, _ = asked(lake, keep=True)
    real, left = type(lake.catalog).commit_table, [CommitFailedException("x")]

    def commit_table(self: object, *arguments: Any, **options: Any) -> Any:
        result = real(self, *arguments, **options)  # type: ignore[arg-type]
        if left:
            raise left.pop()
        return result

    monkeypatch.setattr(type(lake.catalog), "commit_table", commit_table)
    receipt = days.save(policy=QUICK)
    assert receipt is not None
    assert (receipt.attempts, len(remembered(lake))) == (2, 2)


def test_a_commit_that_fails_fails_nothing_else(lake: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    two_exchanges(lake)

    def commit_table(*_: object, **__: object) -> None:
        raise CommitFailedException("x")

    days, _ = asked(lake, keep=True)
    monkeypatch.setattr(type(lake.catalog), "commit_table", commit_table)
    assert days.save(policy=QUICK) is None
    assert "can't be written" in days.trouble
    monkeypatch.undo()
    assert counted(lake) == (0, 2)


def test_a_day_that_is_cheaper_to_read_is_not_remembered(lake: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certified, "SMALL_DAY_BYTES", 0)
    # In order, a run takes a few bytes; in disorder each message does.
    lake.add([Row(number, number) for number in range(2000)], cover=False)
    lake.add([Row(number, number * 7919 % 2000, exchange="ASX") for number in range(2000)], cover=False)
    reconcile(lake.catalog, NAMESPACE)
    assert [row["exchange"] for row in remembered(lake)] == ["BINANCE"]


def test_a_day_that_no_date_can_hold_is_read(lake: SmallLake) -> None:
    lake.add([Row(0, 1, time=-5 * DAY)])
    reconcile(lake.catalog, NAMESPACE)
    assert (remembered(lake), counted(lake)) == ([], (0, 1))


def test_what_is_written_is_divided_into_files(lake: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certified, "_FILE_BYTES", 1)
    two_exchanges(lake)
    reconcile(lake.catalog, NAMESPACE)
    assert counted(lake) == (2, 0)
    assert [pq.read_table(path).num_rows for path in lake.data_files(CERTIFIED_DAYS)] == [1, 1]
