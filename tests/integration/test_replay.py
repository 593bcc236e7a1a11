"""The main job from archives to tables: the truth, repeats, copies and halves, on each local runner."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from k2beam.archive.plan import plan_archive
from k2beam.config import NAMESPACE
from k2beam.errors import K2BeamError
from k2beam.job.stats import IngestStats
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import DEAD_LETTERS, find_table
from k2beam.simulate.truth import read_truth
from tests.archive_copies import copy_as_raw
from tests.lake_helpers import lake_config
from tests.replay_helpers import (
    FAULTS,
    assert_audit,
    assert_truth,
    contents,
    ingest,
    open_gaps,
    run_archive,
    simulated,
)

pytestmark = pytest.mark.integration

PLAIN_FAULTS = "gaps=10,duplicates=9,resets=1,late=5,out-of-order=5,negative_price=3,empty_symbol=2"


def assert_balanced(stats: IngestStats, dead_letters: int | None = None) -> None:
    """Every offset that was read is a row, a dead letter or was there already; ``letters``: offsets of dead letters."""
    dead = stats.dead_letters if dead_letters is None else dead_letters
    assert stats.consumed == sum(stats.written.values()) + dead + stats.already_covered


def test_the_runs_answer_is_the_true_answer(tmp_path: Path) -> None:
    truth = simulated(tmp_path / "in")
    stats = ingest([tmp_path / "in"], tmp_path / "wh")
    assert_truth(tmp_path / "wh", truth, tmp_path / "in")
    assert stats.consumed == truth.offsets
    assert sum(stats.written.values()) == sum(truth.rows.values())
    assert stats.dead_letters == sum(truth.dead_letters.values())
    assert (stats.errors, stats.already_covered) == (0, 0)
    assert_balanced(stats)
    assert stats.gaps["RESET"] == truth.resets
    assert stats.gaps["DUPLICATE"] == truth.duplicates
    assert sorted(stats.snapshots) == ["dead_letters", "quotes_v2", "sequence_gaps", "trades_v2"]


@pytest.mark.parametrize("envelope", ["plain", "raw"])
@pytest.mark.parametrize("options", [{}, {"target_file_bytes": 2000, "commit_rows": 500}], ids=["one", "many"])
def test_a_folder_and_a_copy_of_it_in_one_run(tmp_path: Path, envelope: str, options: dict[str, int]) -> None:
    """The copies meet within a bundle, within a commit, and across commits."""
    faults = PLAIN_FAULTS if envelope == "plain" else FAULTS
    truth = simulated(tmp_path / "in", faults=faults, envelope=envelope)
    shutil.copytree(tmp_path / "in", tmp_path / "copy")
    stats = ingest([tmp_path / "in", tmp_path / "copy"], tmp_path / "wh", **options)
    assert stats.consumed == 2 * truth.offsets
    assert stats.already_covered == truth.offsets
    assert_balanced(stats)
    assert_truth(tmp_path / "wh", truth, tmp_path / "in")


@pytest.mark.parametrize("copies", [0, 1])
def test_offsets_of_a_broken_block_are_balanced_too(tmp_path: Path, copies: int) -> None:
    """One dead letter stands for all records of the block."""
    simulated(tmp_path / "in", rows=900, faults="", envelope="plain", files=1, kinds=("trades",))
    (file,) = (tmp_path / "in").glob("*.avro")
    plan = plan_archive(str(file))
    with file.open("r+b") as opened:
        opened.seek(plan.chunks[0].start + 200)
        opened.write(b"\xff" * 50)
    for number in range(copies):
        shutil.copy(file, tmp_path / "in" / f"copy{number}.avro")
    with pytest.raises(K2BeamError, match=r"would be dead letters \(.* broken_block\)"):
        run_archive([tmp_path / "in"], tmp_path / "wh")
    stats = run_archive([tmp_path / "in"], tmp_path / "wh", max_dead_share=1.0)
    assert stats.consumed == plan.records * (1 + copies)
    assert stats.already_covered == plan.records * copies
    table = find_table(open_catalog(lake_config(tmp_path / "wh")), NAMESPACE, DEAD_LETTERS)
    assert table is not None
    dead_letters = table.scan().to_arrow().to_pylist()
    offsets = sum(dead_letter["_offset_last"] - dead_letter["_offset"] + 1 for dead_letter in dead_letters)
    assert offsets > stats.dead_letters == 1
    assert_balanced(stats, offsets)


@pytest.mark.parametrize("name", ["asx", "crypto"])
def test_a_sample_gives_its_true_answer(tmp_path: Path, repository: Path, name: str) -> None:
    sample = repository / "samples" / name
    assert_balanced(ingest([sample], tmp_path / "wh"))
    assert_truth(tmp_path / "wh", read_truth(sample), sample)


def test_the_same_archive_twice_its_raw_copy_and_its_half_first(tmp_path: Path) -> None:
    simulated(tmp_path / "in", faults=PLAIN_FAULTS, envelope="plain")
    files = sorted((tmp_path / "in").glob("*.avro"))
    ingest(files, tmp_path / "once")
    expected, gaps = contents(tmp_path / "once"), open_gaps(tmp_path / "once")
    assert_audit(tmp_path / "once", *files)

    again = ingest([*files, *files], tmp_path / "once")
    assert sum(again.written.values()) + again.dead_letters == 0
    assert again.already_covered == again.consumed > 0
    assert again.snapshots == {}

    copies = [tmp_path / "raw" / file.name for file in files]
    (tmp_path / "raw").mkdir()
    for file, copy in zip(files, copies, strict=True):
        copy_as_raw(file, copy)
    ingest(copies, tmp_path / "once")
    assert contents(tmp_path / "once") == expected
    assert_balanced(ingest(copies, tmp_path / "copy"))
    assert len(contents(tmp_path / "copy")["trades_v2"]) == len(expected["trades_v2"])
    assert contents(tmp_path / "copy")["trades_v2"] == expected["trades_v2"]
    assert contents(tmp_path / "copy")["quotes_v2"] == expected["quotes_v2"]
    assert_audit(tmp_path / "copy", *copies)

    assert_balanced(ingest(files[1::2], tmp_path / "halves"))
    assert_balanced(ingest(files, tmp_path / "halves"))
    assert contents(tmp_path / "halves") == expected
    assert_audit(tmp_path / "halves", *files)
    assert gaps == open_gaps(tmp_path / "once") == open_gaps(tmp_path / "copy") == open_gaps(tmp_path / "halves")


def test_half_of_the_records_in_another_job_first(tmp_path: Path) -> None:
    """Half of each file's messages, not whole files: blocks and batches are covered in part."""
    from k2beam.archive.header import ArchiveLimits
    from k2beam.archive.plan import plan_archive
    from k2beam.archive.reading import ArchiveReader
    from k2beam.archive.write import write_raw_archive
    from k2beam.model import RawBatch, RawRecord

    truth = simulated(tmp_path / "in")
    (tmp_path / "half").mkdir()
    for file in sorted((tmp_path / "in").glob("*.avro")):
        records, schemas = [], {}
        for chunk in plan_archive(str(file)).chunks:
            for batch in ArchiveReader(ArchiveLimits(), 1000, 1 << 20).read(chunk):
                assert isinstance(batch, RawBatch)
                schemas.update(dict(batch.schemas))
                for row in batch.data.to_pylist():
                    micros = batch.data.column("timestamp")[0].value
                    headers = tuple((header["key"], header["value"]) for header in row["headers"])
                    records.append(
                        RawRecord(
                            row["source"], row["partition"], row["offset"], micros, row["key"], row["value"], headers
                        )
                    )
        import json

        parsed = {number: json.loads(text) for number, text in schemas.items()}
        write_raw_archive(str(tmp_path / "half" / file.name), records[::2], parsed)
    assert_balanced(ingest([tmp_path / "half"], tmp_path / "wh"))
    assert_balanced(ingest([tmp_path / "in"], tmp_path / "wh"))
    assert_truth(tmp_path / "wh", truth, tmp_path / "in")


@pytest.mark.parametrize("workers", ["multi_threading", "multi_processing"])
def test_two_workers_give_the_same(tmp_path: Path, workers: str) -> None:
    truth = simulated(tmp_path / "in", files=4)
    stats = ingest(
        [tmp_path / "in"],
        tmp_path / "wh",
        "--runner=FnApiRunner",
        "--direct_num_workers=2",
        f"--direct_running_mode={workers}",
    )
    assert_balanced(stats)
    assert_truth(tmp_path / "wh", truth, tmp_path / "in")


def test_worker_processes_start_from_a_path_with_a_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "a space" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    truth = simulated(tmp_path / "in", faults="", files=1)
    stats = ingest(
        [tmp_path / "in"], tmp_path / "wh", "--direct_num_workers=2", "--direct_running_mode=multi_processing"
    )
    assert stats.consumed == truth.offsets
    assert sys.executable == str(python)


def test_prism_gives_the_same(tmp_path: Path, prism: Path) -> None:
    truth = simulated(tmp_path / "in")
    options = ("--runner=PrismRunner", f"--prism_location={prism}", "--environment_type=LOOPBACK")
    stats = ingest([tmp_path / "in"], tmp_path / "wh", *options)
    assert_truth(tmp_path / "wh", truth, tmp_path / "in")
    assert stats.consumed == truth.offsets
    again = ingest([tmp_path / "in"], tmp_path / "wh", *options)
    assert again.already_covered == truth.offsets


def test_direct_runner_finds_the_prism_that_is_at_hand(tmp_path: Path, prism: Path) -> None:
    truth = simulated(tmp_path / "in")
    ingest([tmp_path / "in"], tmp_path / "wh", "--runner=DirectRunner", f"--prism_location={prism}")
    assert_truth(tmp_path / "wh", truth, tmp_path / "in")
