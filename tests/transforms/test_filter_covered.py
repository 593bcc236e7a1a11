"""FilterCovered: what is in any table is left out, and counted."""

from __future__ import annotations

import itertools
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from k2beam.coverage import Coverage
from k2beam.lake.catalog import NAMESPACE, open_catalog
from k2beam.lake.commit import commit_files
from k2beam.model import Block, BlockBatch, DeadLetter, DeadLetterBatch, RawBatch
from tests.lake_helpers import QUICK, lake_config, raw_batch, stage
from transforms.filter_covered import FilterCovered, offsets_of, without_covered


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
    def letter(offset: int, last: int) -> DeadLetter:
        return DeadLetter("s", 0, offset, "read", "broken_block", "m", None, offset_last=last)

    batch = DeadLetterBatch((letter(0, 4), letter(5, 9)))
    assert without_covered(batch, covering(("s", 0, 0, 7))).letters == (letter(5, 9),)
    assert offsets_of(batch) == 10


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
