"""What there is to expect of topics: counted at the broker itself, with its legal holes left out."""

from __future__ import annotations

from collections.abc import Iterable

from pyroaring import BitMap64

from k2beam.coverage import Coverage
from k2beam.kafka.cluster import Bounds, Cluster, Topic
from k2beam.kafka.holes import HoleProbe


def count_topics(cluster: Cluster, topics: Iterable[Topic], probe: HoleProbe, claimed: Coverage) -> Coverage:
    """Every offset of ``topics`` that must be in the tables.

    That is what the broker has now, without the holes it has by right (transaction markers,
    compaction), which are looked for where ``claimed`` has nothing. Offsets between the first one
    claimed and the first one that the broker still has are expected as well: what retention took
    before it was read is lost, and must be seen to be.
    """
    expected = Coverage()
    for (source, partition), bound in cluster.bounds(topics).items():
        taken = claimed[source, partition]
        offsets = _since_first(bound, taken)
        unknown = BitMap64(offset for offset in offsets - taken if offset >= bound.low)
        holes = probe.probe(source, partition, unknown) if unknown else BitMap64()
        wanted = offsets - holes
        if wanted:
            expected.add_many(source, partition, wanted)
    return expected


def _since_first(bound: Bounds, taken: BitMap64) -> BitMap64:
    offsets = BitMap64()
    first = min(bound.low, taken.min()) if taken else bound.low
    if bound.end > first:
        offsets.add_range(first, bound.end)
    return offsets
