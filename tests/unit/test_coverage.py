"""Coverage against plain sets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2beam.coverage import PROPERTY_PREFIX, Coverage
from k2beam.errors import LakeError

entries = st.lists(
    st.tuples(st.sampled_from(["kafka:c/t/1", "archive:é.x"]), st.integers(0, 3), st.integers(0, 2**40)), max_size=60
)


def coverage_of(items: list[tuple[str, int, int]]) -> Coverage:
    coverage = Coverage()
    for source, partition, offset in items:
        coverage.add_many(source, partition, [offset])
    return coverage


def as_set(coverage: Coverage) -> set[tuple[str, int, int]]:
    return {(key.source, key.partition, offset) for key in coverage for offset in coverage[key]}


@given(entries, entries)
def test_set_algebra(left: list[tuple[str, int, int]], right: list[tuple[str, int, int]]) -> None:
    a, b = coverage_of(left), coverage_of(right)
    assert as_set(a | b) == set(left) | set(right)
    assert as_set(a & b) == set(left) & set(right)
    assert as_set(a - b) == set(left) - set(right)
    assert a.issubset(b) == (set(left) <= set(right))
    assert a.intersects(b) == bool(set(left) & set(right))
    assert len(a) == len(set(left))
    assert bool(a) == bool(left)


@given(entries)
def test_properties_and_bytes_keep_everything(items: list[tuple[str, int, int]]) -> None:
    coverage = coverage_of(items)
    properties = coverage.to_properties()
    assert Coverage.from_properties({**properties, "other": "x"}) == coverage
    assert Coverage.from_bytes(coverage.to_bytes()) == coverage
    assert Coverage.from_properties(properties).digest() == coverage.digest()


@given(entries, st.lists(st.integers(0, 2**40), max_size=40))
def test_covered_mask(items: list[tuple[str, int, int]], offsets: list[int]) -> None:
    coverage = coverage_of(items)
    mask = coverage.covered("archive:é.x", 1, np.array(offsets, dtype=np.int64))
    assert mask.tolist() == [("archive:é.x", 1, offset) in as_set(coverage) for offset in offsets]


def test_digest_tells_sets_apart() -> None:
    assert coverage_of([("a", 0, 1)]).digest() != coverage_of([("a", 1, 1)]).digest()
    assert coverage_of([("a", 0, 1)]).digest() != coverage_of([("a", 0, 2)]).digest()


def test_only_touched_partitions_become_properties() -> None:
    coverage = coverage_of([("a", 0, 1), ("a", 1, 2)])
    assert list(coverage.to_properties(only=coverage_of([("a", 1, 9)]))) == [f"{PROPERTY_PREFIX}1.a"]


def test_a_contiguous_feed_is_small() -> None:
    coverage = Coverage()
    coverage.add_range("kafka:c/t/1", 0, 0, 100_000_000)
    assert sum(len(text) for text in coverage.to_properties().values()) < 10_000


@pytest.mark.parametrize("text", ["", "not base85 \x00", "c${NoKmcn44u"])
def test_damaged_property_is_refused(text: str) -> None:
    with pytest.raises(LakeError, match="damaged"):
        Coverage.from_properties({f"{PROPERTY_PREFIX}0.a": text})
