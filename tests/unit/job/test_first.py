"""The look at the first messages of a run, before anything is taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyroaring import BitMap64

from k2beam.clock import now_us
from k2beam.config import NAMESPACE
from k2beam.coverage import Coverage, SourcePartition
from k2beam.csv.mapping import parse_mapping
from k2beam.errors import K2BeamError, SchemaError, UsageError
from k2beam.job.bounded import run_ingest
from k2beam.job.config import IngestConfig
from k2beam.job.first import FIRST_MESSAGES, check_first
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import read_coverage
from k2beam.model import DeadLetterBatch, RawBatch
from tests.lake_helpers import lake_config, raw_batch
from transforms.read_archive import ReadArchive
from transforms.read_csv import ReadCsv

MAPPING = parse_mapping(
    """name = "first"
kind = "trades"
columns = ["t", "px"]
formats = ["epoch-us"]
[fields]
trade_id = "{line}"
symbol = "A"
exchange = "X"
asset_class = "equities"
timestamp = "{t}"
price = "{px}"
quantity = "1"
currency = "USD"
side = "UNKNOWN"
""",
    "here",
)
GOOD, BAD = "1000000,5", "1000000,dear"
FUTURE = f"{now_us() + 10 * 86_400_000_000},5"


def read(path: Path, *lines: str) -> ReadCsv:
    path.write_text("".join(f"{line}\n" for line in lines))
    return ReadCsv([str(path)], MAPPING, loaded_at=0)


def run(folder: Path, source: Any, **options: Any) -> dict[str, Any]:
    return run_ingest(source, IngestConfig(lake_config(folder / "w"), **options)).as_dict()


def covered(folder: Path) -> Coverage:
    return read_coverage(open_catalog(lake_config(folder / "w")), NAMESPACE)


def test_a_run_whose_first_messages_are_mostly_bad_takes_nothing(tmp_path: Path) -> None:
    path, lines = tmp_path / "t.csv", (GOOD, BAD, BAD)
    refused = r"2 of the first 3 messages would be dead letters \(2 bad_number\), such as: .*line 2: price 'dear' is"
    with pytest.raises(K2BeamError, match=refused):
        run(tmp_path, read(path, *lines))
    assert not covered(tmp_path)
    done = run(tmp_path, read(path, *lines), max_dead_share=0.7)
    assert (done["written"]["trades_v2"], done["dead_letters"]) == (1, 2)
    assert run(tmp_path, read(path, *lines))["already_covered"] == 3


def test_as_many_good_as_bad_are_taken(tmp_path: Path) -> None:
    assert run(tmp_path, read(tmp_path / "t.csv", BAD, GOOD))["dead_letters"] == 1


def test_only_the_first_messages_are_looked_at(tmp_path: Path) -> None:
    good = read(tmp_path / "t.csv", *[GOOD] * FIRST_MESSAGES, *[BAD] * 5 * FIRST_MESSAGES)
    check_first(good.local_batches(), Coverage(), None, 0.5)
    bad = read(tmp_path / "t.csv", *[BAD] * FIRST_MESSAGES, *[GOOD] * 5 * FIRST_MESSAGES)
    with pytest.raises(K2BeamError, match="would be dead letters"):
        check_first(bad.local_batches(), Coverage(), None, 0.5)


def test_when_all_are_in_the_future_it_is_the_clock_that_is_doubted(tmp_path: Path) -> None:
    with pytest.raises(K2BeamError, match=r"this machine's clock, which says 2\d{3}-.*Z: is it right\?"):
        run(tmp_path, read(tmp_path / "t.csv", FUTURE, FUTURE))
    with pytest.raises(K2BeamError, match="such as: timestamp is more than a day ahead"):
        run(tmp_path, read(tmp_path / "t.csv", FUTURE, FUTURE, BAD))


def test_a_share_of_1_looks_at_nothing() -> None:
    def never() -> Iterator[RawBatch]:
        raise AssertionError("read")
        yield

    check_first(never(), Coverage(), None, 1.0)
    check_first(iter(()), Coverage(), None, 0.0)


class Unknown:
    """A registry that knows no id."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def open(self) -> None:
        self.calls.append("open")

    def close(self) -> None:
        self.calls.append("close")

    def resolve(self, schema_id: int) -> str:
        raise SchemaError(f"no id {schema_id}")


def test_ids_that_nobody_knows_are_told() -> None:
    registry = Unknown()
    batch = raw_batch([("kafka:c/t/i", 0, offset) for offset in range(3)], b"\x00\x00\x00\x00\x07x")
    with pytest.raises(K2BeamError, match=r"3 of the first 3 .* \(3 unknown_schema_id\), such as: no id 7"):
        check_first([batch], Coverage(), registry, 0.5)
    assert registry.calls == ["open", "close"]


def test_messages_and_blocks_of_archives_are_looked_at(tmp_path: Path) -> None:
    for path in ("samples/crypto", "samples/asx"):
        check_first(ReadArchive([path]).local_batches(), Coverage(), None, 0.5)


def test_a_share_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--max-dead-share must be from 0 to 1, not 1\.5"):
        IngestConfig(lake_config(tmp_path), max_dead_share=1.5)


def test_dead_letters_that_a_killed_run_left_are_taken_by_the_next(tmp_path: Path) -> None:
    """Each table has a commit of its own: after a run that was killed between two, only dead letters are left."""
    source = read(tmp_path / "a.csv", GOOD, BAD, GOOD, GOOD, BAD, GOOD)
    name = next(batch.source for batch in source.local_batches() if not isinstance(batch, DeadLetterBatch))
    taken = Coverage({SourcePartition(name, 0): BitMap64([0, 2, 3, 5])})
    check_first(source.local_batches(), taken, None, 0.5)
    with pytest.raises(K2BeamError, match="2 of the first 4 messages would be dead letters"):
        check_first(source.local_batches(), taken, None, 0.4)


def test_what_was_taken_before_says_nothing_of_what_comes_after_it(tmp_path: Path) -> None:
    source = read(tmp_path / "a.csv", GOOD, GOOD, GOOD, BAD, BAD)
    name = next(batch.source for batch in source.local_batches() if not isinstance(batch, DeadLetterBatch))
    taken = Coverage({SourcePartition(name, 0): BitMap64([0, 1, 2])})
    with pytest.raises(K2BeamError, match="2 of the first 2 messages would be dead letters"):
        check_first(source.local_batches(), taken, None, 0.5)
