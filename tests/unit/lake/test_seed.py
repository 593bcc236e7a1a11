"""The seed of a key's state: what the tables had when the job was built, and nothing that came later."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from k2beam.clock import now_us
from k2beam.config import NAMESPACE
from k2beam.errors import UnreadableFile
from k2beam.lake.reconcile import reconcile
from k2beam.lake.seed import LedgerSeed
from k2beam.sequence import KeyState
from tests.audit_helpers import START, Row, SmallLake, two_exchanges

DAY = 86_400_000_000


@pytest.fixture
def lake(tmp_path: Path) -> SmallLake:
    return SmallLake(tmp_path)


def state_of(*messages: tuple[int, int]) -> bytes:
    """The state after messages: (milliseconds after the start, sequence)."""
    times, sequences = (np.array(column, dtype=np.int64) for column in zip(*messages, strict=True))
    return KeyState.from_messages(START + times * 1000, sequences).to_bytes()


def loaded(seed: LedgerSeed, exchange: str = "BINANCE", symbol: str = "BTC") -> bytes | None:
    state = seed.load(exchange, symbol, "trades")
    return None if state is None else state.to_bytes()


def remember(lake: SmallLake) -> None:
    reconcile(lake.catalog, NAMESPACE)


def never_read(*_: object) -> Iterator[pa.RecordBatch]:
    pytest.fail("a day that is remembered is not read")


def expire(lake: SmallLake) -> None:
    """Rewrite the table as maintenance does, and take the older snapshots and files away."""
    old = lake.data_files()
    table = lake.table("trades_v2")
    table.overwrite(table.scan().to_arrow())
    kept = lake.table("trades_v2").metadata.current_snapshot_id
    gone = [snapshot.snapshot_id for snapshot in table.snapshots() if snapshot.snapshot_id != kept]
    lake.table("trades_v2").maintenance.expire_snapshots().by_ids(gone).commit()
    for path in old:
        path.unlink()


@pytest.mark.parametrize("remembered", [True, False])
def test_it_gives_the_state_of_a_key(lake: SmallLake, remembered: bool) -> None:
    two_exchanges(lake)
    if remembered:
        remember(lake)
    seed = LedgerSeed.of_now(lake.config)
    assert loaded(seed) == state_of((0, 10), (2, 12), (4, 14), (6, 14), (7, 11))
    assert seed.load("BINANCE", "XRP", "trades") is None
    assert seed.load("BINANCE", "BTC", "quotes") is None


def test_an_empty_lake_has_none_even_when_rows_come_later(lake: SmallLake) -> None:
    seed = LedgerSeed.of_now(lake.config)
    assert loaded(seed) is None
    two_exchanges(lake)
    seed.close()
    assert loaded(seed) is None


@pytest.mark.parametrize("remembered", [True, False])
def test_what_is_committed_after_the_job_was_built_does_not_count(lake: SmallLake, remembered: bool) -> None:
    lake.add([Row(0, 10), Row(1, 11)])
    seed = LedgerSeed.of_now(lake.config)
    lake.add([Row(2, 14), Row(3, 20, symbol="ETH")])
    if remembered:
        remember(lake)
    for _ in range(2):
        # A worker opens a step, drops it when idle, and makes another from the same pickle.
        step = pickle.loads(pickle.dumps(seed))
        step.open()
        assert loaded(step) == state_of((0, 10), (1, 11))
        assert loaded(step, symbol="ETH") is None
        lake.add([Row(4, 15)])


def test_it_is_pickled_closed(lake: SmallLake) -> None:
    two_exchanges(lake)
    seed = LedgerSeed.of_now(lake.config)
    seed.open()
    copy = pickle.loads(pickle.dumps(seed))
    assert copy == seed
    assert loaded(copy, "ASX") == state_of((8, 70), (9, 71))


@pytest.mark.parametrize("remembered", [True, False])
@pytest.mark.parametrize("opened_before", [True, False])
def test_rows_of_the_job_are_left_out_also_when_the_snapshot_was_expired(
    lake: SmallLake, opened_before: bool, remembered: bool
) -> None:
    two_exchanges(lake)
    seed = LedgerSeed.of_now(lake.config)
    if opened_before:
        seed.open()
    # The helper's rows are ingested at their event time.
    lake.add([Row(10, 90, time=now_us() + DAY)])
    expire(lake)
    if remembered:
        remember(lake)
    assert loaded(seed) == state_of((0, 10), (2, 12), (4, 14), (6, 14), (7, 11))
    assert loaded(seed, "ASX") == state_of((8, 70), (9, 71))


def test_remembered_days_are_not_read(lake: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    two_exchanges(lake)
    remember(lake)
    seed = LedgerSeed.of_now(lake.config)
    monkeypatch.setattr("k2beam.lake.recount.read_ahead", never_read)
    assert loaded(seed, "ASX") == state_of((8, 70), (9, 71))


def test_remembered_days_of_an_expired_snapshot_are_not_read_where_all_rows_are_old_enough(
    lake: SmallLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_exchanges(lake)
    seed = LedgerSeed.of_now(lake.config)
    expire(lake)
    remember(lake)
    monkeypatch.setattr("k2beam.lake.recount.read_ahead", never_read)
    assert loaded(seed, "ASX") == state_of((8, 70), (9, 71))


def test_a_day_with_older_and_newer_rows_in_one_file_is_read_for_an_expired_snapshot(lake: SmallLake) -> None:
    lake.add([Row(0, 10), Row(1, 12)])
    seed = LedgerSeed(lake.config, {"trades": 1}, noted_at=START + 500)
    remember(lake)
    # The helper's rows are ingested at their event time: the second one after the moment.
    assert loaded(seed) == state_of((0, 10))


def test_a_key_without_numbers_has_no_state(lake: SmallLake) -> None:
    lake.add([Row(0), Row(1, 5, symbol="ETH")])
    assert loaded(LedgerSeed.of_now(lake.config)) is None


def test_a_lost_file_is_an_error_and_no_gap(lake: SmallLake) -> None:
    two_exchanges(lake)
    seed = LedgerSeed.of_now(lake.config)
    lake.data_files()[0].unlink()
    with pytest.raises(UnreadableFile, match="is gone"):
        seed.load("ASX", "BTC", "trades")
    with pytest.raises(UnreadableFile, match="is gone"):
        seed.load("ASX", "BTC", "trades")


def test_a_file_lost_between_two_questions_is_looked_for_in_the_newest_snapshot(lake: SmallLake) -> None:
    two_exchanges(lake)
    seed = LedgerSeed.of_now(lake.config)
    seed.open()
    old = lake.data_files()
    lake.table("trades_v2").overwrite(lake.table("trades_v2").scan().to_arrow())
    for path in old:
        path.unlink()
    assert loaded(seed, "ASX") == state_of((8, 70), (9, 71))
