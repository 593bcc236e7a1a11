"""What there is to expect of topics: counted at the broker itself, with its legal holes left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing

from pyroaring import BitMap64

from k2beam.audit.expectation import SourceFile
from k2beam.coverage import Coverage, SourcePartition, span
from k2beam.kafka.cluster import Bounds, Cluster, Topic, first_wanted
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.holes import HoleProbe
from k2beam.lake.catalog import Catalog
from k2beam.lake.commit import read_coverage
from k2beam.lake.holes import read_holes
from k2beam.lake.recorded import read_first_offsets


def topics_as_source(
    catalog: Catalog, namespace: str, config: KafkaConfig, names: Sequence[str], pattern: str | None = None
) -> SourceFile:
    """The topics as the broker has them, as one source of the audit of ``namespace``."""
    cluster = Cluster(config)
    topics = cluster.topics(names, pattern)
    claimed, first_offsets = read_coverage(catalog, namespace), read_first_offsets(catalog, namespace)
    # The audit reports a file that can't be read; of its holes the broker is asked.
    holes = read_holes(catalog, namespace, on_unreadable=lambda error: None)
    with closing(HoleProbe(config, topics, known=holes)) as probe:
        expected = count_topics(cluster, topics, probe, claimed, first_offsets, holes)
    return SourceFile(f"kafka:{config.bootstrap}", expected)


def count_topics(
    cluster: Cluster,
    topics: Sequence[Topic],
    probe: HoleProbe,
    claimed: Coverage,
    first_offsets: Mapping[SourcePartition, int] | None = None,
    known: Coverage | None = None,
) -> Coverage:
    """Every offset of ``topics`` that must be in the tables.

    That is what the broker has now, without the holes it has by right (transaction markers,
    compaction): ``known`` ones, and those that are looked for where ``claimed`` has nothing. Offsets between the first
    one claimed or recorded (``first_offsets``) and the first one that the broker still has are expected as well: what
    retention took before it was read is lost, and must be seen to be.
    """
    wanted, holes = {}, {}
    known = known or Coverage()
    for key, bound in cluster.bounds(topics).items():
        taken = claimed[key]
        wanted[key] = since_first(bound, taken, (first_offsets or {}).get(SourcePartition(*key))) - known[key]
        unknown = wanted[key] - taken
        unknown.remove_range(0, bound.low)
        holes[key] = probe.probe(*key, unknown) if unknown else BitMap64()
    return _without_holes(wanted, holes, cluster.bounds(topics) if any(holes.values()) else {})


def _without_holes(
    wanted: Mapping[tuple[str, int], BitMap64],
    holes: Mapping[tuple[str, int], BitMap64],
    now: Mapping[tuple[str, int], Bounds],
) -> Coverage:
    """What is wanted but for the holes. Where the log begins further on ``now``, retention made the hole: a loss."""
    expected = Coverage()
    for (source, partition), offsets in wanted.items():
        legal = holes[source, partition].copy()
        if legal:
            legal.remove_range(0, now[source, partition].low)
        left = offsets - legal
        if left:
            expected.add_many(source, partition, left)
    return expected


def missing_of(
    bounds: Mapping[tuple[str, int], Bounds],
    covered: Coverage,
    first_offsets: Mapping[SourcePartition, int] | None = None,
) -> Coverage:
    """What belongs in the tables, as :func:`since_first` has it for each partition, and is not ``covered``."""
    return Coverage(
        {
            SourcePartition(*key): since_first(bound, covered[key], (first_offsets or {}).get(SourcePartition(*key)))
            - covered[key]
            for key, bound in bounds.items()
        }
    )


def since_first(bound: Bounds, taken: BitMap64, recorded: int | None = None) -> BitMap64:
    """Every offset of a partition that belongs in the tables, to the broker's end.

    They begin with the lowest of three: the broker's first, the first one ``taken``, and the ``recorded`` one, from
    which the first job was to read.
    """
    first = first_wanted(bound, taken)
    if recorded is not None:
        first = min(first, recorded)
    return span(first, bound.end)
