"""Which snapshots of a table are let go of, and what is remembered of them.

An expired snapshot leaves the metadata in the commit that expires it. Its files stay for a grace, so that what
reads them now may end (see :mod:`k2beam.lake.sweep`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import RemoveSnapshotsUpdate

from k2beam.config import Retention

EXPIRED_PREFIX = "k2.expired."
"""Table properties ``k2.expired.snapshots``, ``.until-ms`` and ``.at-ms``: the fields of :class:`Expired`."""


@dataclass(frozen=True, slots=True)
class Expired:
    """What was expired of a table: how many snapshots, the commit time of the newest, and when (milliseconds UTC)."""

    snapshots: int
    until_ms: int
    at_ms: int

    def to_properties(self) -> dict[str, str]:
        """As properties of the table."""
        return {
            f"{EXPIRED_PREFIX}snapshots": str(self.snapshots),
            f"{EXPIRED_PREFIX}until-ms": str(self.until_ms),
            f"{EXPIRED_PREFIX}at-ms": str(self.at_ms),
        }

    @classmethod
    def from_properties(cls, properties: Mapping[str, str]) -> Expired | None:
        """What a table remembers; None where k2beam never expired a snapshot of it."""
        found = [properties.get(f"{EXPIRED_PREFIX}{name}", "") for name in ("snapshots", "until-ms", "at-ms")]
        return cls(*map(int, found)) if all(text.isdecimal() for text in found) else None


def expirable(metadata: TableMetadata, retention: Retention, now_ms: int, *, appended: int = 0) -> list[Snapshot]:
    """The snapshots to let go of, oldest first; ``appended`` more are about to follow the current one.

    Kept are the current one (somebody may be about to tag it, and the tag would go with it); the newest
    ``retention.snapshots`` of the main branch, with those that are appended, that are not older than
    ``retention.age_seconds``; what a tag or another branch names; what only other branches have; and, for that age,
    what no branch has (another engine may be about to publish it).
    """
    oldest_ms = now_ms - round(retention.age_seconds * 1_000)
    by_id = {snapshot.snapshot_id: snapshot for snapshot in metadata.snapshots}
    main = list(_ancestry(by_id, metadata.current_snapshot_id))
    reached = {snapshot.snapshot_id for snapshot in main}
    newest = main[: max(retention.snapshots - appended, 0)]
    kept = {snapshot.snapshot_id for snapshot in newest if snapshot.timestamp_ms >= oldest_ms}
    kept.update(snapshot.snapshot_id for snapshot in main[:1])
    for name, ref in metadata.refs.items():
        if name != MAIN_BRANCH:
            kept.add(ref.snapshot_id)
            kept.update(snapshot.snapshot_id for snapshot in _ancestry(by_id, ref.snapshot_id, until=reached))
    unreached = (snapshot for id_, snapshot in by_id.items() if id_ not in reached)
    kept.update(snapshot.snapshot_id for snapshot in unreached if snapshot.timestamp_ms >= oldest_ms)
    gone = [snapshot for id_, snapshot in by_id.items() if id_ not in kept]
    return sorted(gone, key=lambda snapshot: snapshot.sequence_number or 0)


def remembered(properties: Mapping[str, str], gone: Sequence[Snapshot], now_ms: int) -> dict[str, str]:
    """The table's properties once the snapshots of ``gone``, at least one, are expired too."""
    before = Expired.from_properties(properties) or Expired(0, 0, 0)
    until = max(before.until_ms, *(snapshot.timestamp_ms for snapshot in gone))
    return Expired(before.snapshots + len(gone), until, now_ms).to_properties()


def removal_of(gone: Sequence[Snapshot]) -> RemoveSnapshotsUpdate:
    """What lets go of snapshots in a commit; their files are not touched."""
    return RemoveSnapshotsUpdate.model_validate({"snapshot-ids": [snapshot.snapshot_id for snapshot in gone]})


def _ancestry(by_id: Mapping[int, Snapshot], newest: int | None, until: Collection[int] = ()) -> Iterator[Snapshot]:
    """A snapshot and those that it came from, as far as they are there and not in ``until``."""
    while newest is not None and newest not in until and newest in by_id:
        yield by_id[newest]
        newest = by_id[newest].parent_snapshot_id
