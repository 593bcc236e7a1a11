"""Archived messages on their way back into topics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.errors import ArchiveError, UsageError
from k2beam.produce.republish import (
    ArchivedMessage,
    _topic_names,
    archived_messages,
    archived_schemas,
    reframed,
)
from k2beam.simulate.simulate import Simulation, simulate


@settings(max_examples=100)
@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.binary())
def test_a_known_id_is_replaced_and_nothing_else(ours: int, theirs: int, body: bytes) -> None:
    value = b"\x00" + ours.to_bytes(4, "big") + body
    assert reframed(value, {ours: theirs}) == b"\x00" + theirs.to_bytes(4, "big") + body
    assert reframed(value, {ours ^ 1: theirs}) == value


@pytest.mark.parametrize("value", [None, b"", b"\x00\x00\x00\x00", b"\x01\x00\x00\x00\x01body"])
def test_what_has_no_frame_stays_as_it_is(value: bytes | None) -> None:
    assert reframed(value, {1: 7, 0: 7}) == value


def test_messages_come_in_the_order_of_each_partition(tmp_path: Path) -> None:
    truth = simulate(tmp_path, Simulation(rows=300, kinds=("trades", "quotes"), files=3))
    (tmp_path / "trades-00001.avro").rename(tmp_path / "trades-last.avro")
    messages = archived_messages(tmp_path)
    assert len(messages) == truth.offsets
    ends = {(source.source, source.partition): source.last + 1 for source in truth.sources}
    for key, end in ends.items():
        assert [each.offset for each in messages if (each.source, each.partition) == key] == list(range(end))
    assert min(message.timestamp for message in messages) > Simulation(rows=1).start
    assert set(archived_schemas(tmp_path)) == {1, 2}


def test_a_damaged_container_is_refused(tmp_path: Path) -> None:
    simulate(tmp_path, Simulation(rows=300))
    path = tmp_path / "trades-00001.avro"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArchiveError, match=r"trades-00001\.avro.*whole container"):
        archived_messages(tmp_path)


@pytest.mark.parametrize("topic_id", ["cKjm95eKRxqEfmSj4Vg9w_", "cKjm95eKRxqEfmSj4V/g9w", "a/b/c=="])
def test_a_topic_id_may_have_slashes(topic_id: str) -> None:
    message = ArchivedMessage(f"kafka:cluster/market.crypto.trades.x/{topic_id}", 0, 0, 0, None, None, ())
    assert _topic_names([message], "copy.") == {message.source: "copy.market.crypto.trades.x"}
    with pytest.raises(UsageError, match="names no topic, as kafka:CLUSTER/TOPIC/ID does"):
        _topic_names([replace(message, source="archive:0123")], "")


def test_records_are_no_messages(tmp_path: Path) -> None:
    simulate(tmp_path, Simulation(rows=10, envelope="plain"))
    with pytest.raises(UsageError, match="raw_record"):
        archived_schemas(tmp_path)
