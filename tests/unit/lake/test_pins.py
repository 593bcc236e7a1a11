"""States kept under a name: what is tagged, remembered, completed and taken away."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.types import StringType

from k2beam.audit.pins import PinFinding, check_pin
from k2beam.config import NAMESPACE, Retention
from k2beam.errors import LakeError, UsageError
from k2beam.lake import pins as module
from k2beam.lake.expiry import expirable
from k2beam.lake.pins import PIN_PREFIX, find_pins, pin_tables, unpin_tables
from k2beam.maintain.expire import expire
from k2beam.query.lake import Lake
from tests.audit_helpers import Row, SmallLake
from tests.lake_helpers import QUICK
from tests.maintain_helpers import TABLE, KeptLake


@pytest.fixture
def lake(tmp_path: Path) -> KeptLake:
    lake = KeptLake(tmp_path)
    lake.commit(3, rows=4)
    return lake


def pin(lake: KeptLake | SmallLake, name: str = "close") -> dict[str, module.Pin]:
    return pin_tables(lake.catalog, NAMESPACE, name, policy=QUICK)


def problems(lake: KeptLake | SmallLake, name: str = "close") -> dict[str, str | None]:
    return {finding.table: finding.problem for finding in check_pin(lake.catalog, NAMESPACE, name)}


def test_a_pin_remembers_the_rows_and_stays_while_others_are_committed(lake: KeptLake) -> None:
    pinned = pin(lake)[TABLE]
    assert (pinned.rows, pinned.tables, pinned.snapshot_id) == (12, (TABLE,), lake.snapshot_ids()[-1])
    lake.commit(5, keep=2)
    assert find_pins(lake.catalog, NAMESPACE) == {"close": {TABLE: pinned}}
    assert problems(lake) == {TABLE: None}
    assert Lake(str(lake.folder)).trades(as_of="close").num_rows == 12
    gone = expirable(lake.table().metadata, Retention(1, 1e-9), 1 << 60)
    assert pinned.snapshot_id not in {snapshot.snapshot_id for snapshot in gone}


def test_the_digest_is_that_of_the_rows_and_not_of_their_files(tmp_path: Path) -> None:
    digests = set()
    for name, commits in (("few", [12]), ("many", [4, 1, 7])):
        lake = KeptLake(tmp_path / name)
        for rows in commits:
            lake.commit(1, rows=rows)
        pinned = pin(lake)[TABLE]
        digests.add((pinned.rows, pinned.digest, pinned.coverage))
    assert len(digests) == 1


def test_all_tables_are_pinned_and_those_made_later_are_not(tmp_path: Path) -> None:
    lake = SmallLake(tmp_path)
    lake.add([Row(0, 1), Row(1, 2)])
    lake.bury(5, 9)
    assert set(pin(lake)) == {TABLE, "dead_letters"}
    lake.add([Row(7, 1)], "quotes")
    assert problems(lake) == {TABLE: None, "dead_letters": None}


def test_another_value_is_another_digest(tmp_path: Path) -> None:
    lake = SmallLake(tmp_path)
    lake.add([Row(0, 1), Row(1, 2)])
    pin(lake)
    other = SmallLake(tmp_path / "other")
    other.add([Row(0, 1), Row(1, 3)])
    lake.data_files()[0].write_bytes(other.data_files()[0].read_bytes())
    (finding,) = check_pin(lake.catalog, NAMESPACE, "close")
    assert finding.problem == "has other rows than it had"
    assert (finding.rows, finding.coverage) == (finding.rows_found, finding.coverage_found)
    assert finding.digest != finding.digest_found


@pytest.mark.parametrize("damage", ["byte", "gone"])
def test_a_damaged_file_is_told(lake: KeptLake, damage: str) -> None:
    pin(lake)
    path = min(lake.folder.rglob("*.parquet"))
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[4] ^= 0xFF
        path.write_bytes(content)
    (finding,) = check_pin(lake.catalog, NAMESPACE, "close")
    assert finding.problem is not None
    assert path.name in finding.problem or finding.digest != finding.digest_found


def test_an_interrupted_tag_is_completed(lake: KeptLake, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "read_pinned", killed)
        with pytest.raises(KeyboardInterrupt):
            pin(lake)
    at_first = lake.snapshot_ids()[-1]
    lake.commit(3, keep=1)
    assert problems(lake) == {TABLE: "was not read when it was tagged: `k2beam snapshots tag close` completes it"}
    pinned = pin(lake)[TABLE]
    assert (pinned.snapshot_id, pinned.rows) == (at_first, 12)
    assert problems(lake) == {TABLE: None}


def interrupted_after_the_first(lake: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tables, of which one is tagged."""
    lake.add([Row(0, 1), Row(1, 2)])
    lake.bury(5, 9)
    time.sleep(0.002)  # snapshots are told apart by milliseconds
    tag, tagged = module._tag, []

    def killed_at_the_second(*arguments: Any) -> module.Pin:
        if tagged:
            raise KeyboardInterrupt
        tagged.append(tag(*arguments))
        return tagged[0]

    with monkeypatch.context() as patched:
        patched.setattr(module, "_tag", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            pin(lake)


def test_a_tag_is_completed_with_what_there_was_when_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = SmallLake(tmp_path)
    interrupted_after_the_first(lake, monkeypatch)
    time.sleep(0.002)
    lake.add([Row(2, 3)])
    lake.bury(6, 9)
    assert {table: found.rows for table, found in pin(lake).items()} == {TABLE: 2, "dead_letters": 1}
    assert problems(lake) == {TABLE: None, "dead_letters": None}


def test_a_tag_whose_moment_is_gone_is_not_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = SmallLake(tmp_path)
    interrupted_after_the_first(lake, monkeypatch)
    (tagged,) = find_pins(lake.catalog, NAMESPACE)["close"]
    (other,) = {TABLE, "dead_letters"} - {tagged}
    time.sleep(0.002)
    lake.add([Row(2, 3)])
    lake.bury(6, 9)
    expire(lake.catalog, NAMESPACE, other, Retention(1), timedelta(0), apply=True)
    with pytest.raises(LakeError, match=rf"{other} has no snapshot of that time any more: .* untag close"):
        pin(lake)


def test_a_name_is_taken_once_and_free_again(lake: KeptLake) -> None:
    pin(lake)
    lake.commit()
    with pytest.raises(UsageError, match="there is a tag close already"):
        pin(lake)
    assert unpin_tables(lake.catalog, NAMESPACE, "close") == [TABLE]
    assert not any(name.startswith(PIN_PREFIX) for name in lake.table().properties)
    assert list(lake.table().metadata.refs) == ["main"]
    assert pin(lake)[TABLE].rows == 13
    for command in (unpin_tables, check_pin):
        with pytest.raises(UsageError, match="there is no tag open; the tags are close"):
            command(lake.catalog, NAMESPACE, "open")


@pytest.mark.parametrize("name", ["", "2026-01-05", "a b", "ü", "x" * 101, "a/b"])
def test_a_name_that_can_not_be_one(lake: KeptLake, name: str) -> None:
    with pytest.raises(UsageError, match="a tag is named by a letter"):
        pin(lake, name)


def test_a_tag_of_another_program_is_not_taken_over(lake: KeptLake) -> None:
    lake.table().manage_snapshots().create_tag(lake.snapshot_ids()[0], "close").commit()
    with pytest.raises(UsageError, match="has a tag or branch close of another program"):
        pin(lake)
    assert Lake(str(lake.folder)).trades(as_of="close").num_rows == 4


def test_nothing_to_pin(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="no table has a snapshot yet"):
        pin(SmallLake(tmp_path))


@pytest.mark.parametrize("moved", [True, False])
def test_a_tag_that_was_moved_or_taken_away_is_told(lake: KeptLake, moved: bool) -> None:
    pin(lake)
    with lake.table().manage_snapshots() as change:
        change.remove_tag("close")
    if moved:
        lake.table().manage_snapshots().create_tag(lake.snapshot_ids()[0], "close").commit()
    said = f"was moved to snapshot {lake.snapshot_ids()[0]}" if moved else "is gone"
    assert problems(lake) == {TABLE: f"is not tagged any more: the tag {said}"}


def test_a_table_that_lost_its_tag_is_told(tmp_path: Path) -> None:
    lake = SmallLake(tmp_path)
    lake.add([Row(0, 1)])
    lake.bury(5)
    pin(lake)
    with lake.table(TABLE).transaction() as transaction:
        transaction.remove_properties(f"{PIN_PREFIX}close")
    assert PinFinding(TABLE, "has lost the tag, or is gone") in check_pin(lake.catalog, NAMESPACE, "close")


def test_a_damaged_record_is_told(lake: KeptLake) -> None:
    with lake.table().transaction() as transaction:
        transaction.set_properties({f"{PIN_PREFIX}close": "{}"})
    with pytest.raises(LakeError, match=r"k2\.pin\.close=.* is damaged"):
        find_pins(lake.catalog, NAMESPACE)


def test_a_column_that_was_added_later_changes_no_digest(lake: KeptLake) -> None:
    pin(lake)
    with lake.table().update_schema() as schema:
        schema.add_column("venue_flags", StringType())
    assert problems(lake) == {TABLE: None}


def test_the_digest_of_a_release_is_that_of_the_next(tmp_path: Path) -> None:
    """Pins are kept for years: rows that were written down once must always have this digest."""
    lake = SmallLake(tmp_path)
    lake.add([Row(0, 1), Row(1, None, symbol="ETH")])
    lake.bury(5, 9)
    found = {table: (one.rows, one.digest, one.coverage) for table, one in pin(lake).items()}
    assert found == {
        TABLE: (2, "e263e586674a947bdaf4d7f740db3a8f", "d8613557d1d0db5983565d2445403fb7"),
        "dead_letters": (1, "0aa28c62fab1de3487703db921c0a617", "8e1c51830810a1fb8b8d82fb2fa71936"),
    }
