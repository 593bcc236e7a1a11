"""FilterCovered: what is in any table is left out, and counted."""

from __future__ import annotations

import itertools
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from k2beam.config import NAMESPACE
from k2beam.coverage import Coverage
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.model import Block, BlockBatch, DeadLetter, DeadLetterBatch, RawBatch
from tests.lake_helpers import QUICK, lake_config, raw_batch, stage
from transforms.filter_covered import FilterCovered, offsets_by_kind, source_kind, without_covered


def raw(offsets: list[int], source: str = "s", partition: int = 0) -> RawBatch:
    return raw_batch((source, partition, offset) for offset in offsets)


def covering(*ranges: tuple[str, int, int, int]) -> Coverage:
    coverage = Coverage()
    for item in ranges:
        coverage.add_range(*item)
    return coverage


def test_raw_rows_are_filtered_by_source_and_partition() -> None:
    batch = raw_batch(itertools.product(("s", "t"), (0, 1), (1, 2, 3)))
    kept = without_covered(batch, covering(("s", 0, 2, 3), ("t", 1, 0, 1))).data.to_pylist()
    assert [(row["source"], row["partition"], row["offset"]) for row in kept] == [
        ("s", 0, 1), ("s", 1, 1), ("s", 1, 2), ("s", 1, 3),
        ("t", 0, 1), ("t", 0, 2), ("t", 0, 3), ("t", 1, 2), ("t", 1, 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("last_covered", "kept"), [(9, [10]), (8, [0, 10]), (19, []), (15, [10])], ids=["whole", "part", "all", "next part"]
)
def test_a_block_goes_only_when_all_of_it_is_covered(last_covered: int, kept: list[int]) -> None:
    blocks = tuple(Block(first, 10, 100, b"p") for first in (0, 10))
    batch = BlockBatch("s", 0, "f.avro", "{}", blocks)
    found = without_covered(batch, covering(("s", 0, 0, last_covered)))
    assert [block.first_offset for block in found.blocks] == kept


def test_dead_letters_of_covered_ranges_go() -> None:
    def dead_letter(offset: int, last: int) -> DeadLetter:
        return DeadLetter("s", 0, offset, "read", "broken_block", "m", None, offset_last=last)

    batch = DeadLetterBatch((dead_letter(0, 4), dead_letter(5, 9)))
    assert without_covered(batch, covering(("s", 0, 0, 7))).dead_letters == (dead_letter(5, 9),)
    assert offsets_by_kind(batch) == {"other": 10}


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("kafka:c/t/1", "kafka"),
        ("archive:00ff", "archive"),
        ("csv:00ff", "csv"),
        ("s3:bucket", "other"),
        ("KAFKA:c", "other"),
        ("kafka2:c", "other"),
        ("trades of 2024", "other"),
        ("", "other"),
    ],
)
def test_whatever_a_source_is_called_its_kind_is_one_of_four(source: str, kind: str) -> None:
    assert source_kind(source) == kind


def test_offsets_are_told_by_the_kind_of_their_own_source() -> None:
    sources = ("kafka:c/t/1", "archive:a", "mine:x", "yours:y")
    mixed = raw_batch((source, 0, offset) for offset, source in enumerate((*sources, "kafka:d/t/1")))
    assert offsets_by_kind(mixed) == {"kafka": 2, "archive": 1, "other": 2}
    assert offsets_by_kind(raw([])) == {}
    assert offsets_by_kind(BlockBatch("csv:x", 0, "f", "{}", (Block(0, 7, 0, b""),))) == {"csv": 7}
    dead_letters = tuple(DeadLetter(source, 0, 5, "read", "c", "m", None, offset_last=7) for source in sources)
    assert offsets_by_kind(DeadLetterBatch(dead_letters)) == {"kafka": 3, "archive": 3, "other": 6}


def test_letters_of_the_readers_are_dead_letters_of_beam_too(tmp_path: Path) -> None:
    """Only those that go on; the counters of decoding and validation have the others."""
    catalog = open_catalog(lake_config(tmp_path))
    commit_files(catalog, NAMESPACE, "trades_v2", [stage(tmp_path, range(5), source="s")], run_id="r", policy=QUICK)
    dead_letters = (
        DeadLetter("s", 0, 2, "read", "broken_block", "m", None, offset_last=4),
        DeadLetter("s", 0, 5, "read", "broken_block", "m", None, offset_last=14),
        DeadLetter("s", 0, 15, "read", "damaged", "m", None),
    )
    pipeline = TestPipeline(runner="FnApiRunner")
    batches = pipeline | beam.Create([DeadLetterBatch(dead_letters)]).with_output_types(DeadLetterBatch)
    batches | FilterCovered(lake_config(tmp_path))
    result = pipeline.run()
    result.wait_until_finish()
    found = {metric.key.metric.name: metric.result for metric in result.metrics().query()["counters"]}
    assert found == {"consumed": 14, "already_covered": 3, "dead_letters": 2, "dead_letter_offsets": 11}


def test_the_pipeline_reads_the_tables_and_counts(tmp_path: Path) -> None:
    catalog = open_catalog(lake_config(tmp_path))
    commit_files(catalog, NAMESPACE, "trades_v2", [stage(tmp_path, range(5), source="s")], run_id="r", policy=QUICK)
    pipeline = TestPipeline(runner="FnApiRunner")
    batches = pipeline | beam.Create([raw(list(range(8))), raw([1, 2])]).with_output_types(RawBatch)
    kept = batches | FilterCovered(lake_config(tmp_path))
    assert_that(kept | beam.Map(lambda batch: batch.data.column("offset").to_pylist()), equal_to([[5, 6, 7]]))
    result = pipeline.run()
    result.wait_until_finish()
    found = {metric.key.metric.name: metric.result for metric in result.metrics().query()["counters"]}
    assert (found["consumed"], found["already_covered"]) == (10, 7)


def test_only_the_coverage_of_the_tables_that_are_named_counts(tmp_path: Path) -> None:
    catalog = open_catalog(lake_config(tmp_path))
    commit_files(catalog, NAMESPACE, "trades_v2", [stage(tmp_path, range(5), source="s")], run_id="r", policy=QUICK)
    with TestPipeline(runner="FnApiRunner") as pipeline:
        batches = pipeline | beam.Create([raw(list(range(8)))]).with_output_types(RawBatch)
        kept = batches | FilterCovered(lake_config(tmp_path), tables=["quotes_v2", "dead_letters"])
        assert_that(kept | beam.Map(lambda batch: batch.num_rows), equal_to([8]))
