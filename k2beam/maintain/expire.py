"""Lets go of old snapshots by hand, as live jobs do by themselves, and deletes the files that only they had."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import SetPropertiesUpdate

from k2beam.clock import now_us
from k2beam.config import Retention, RetryPolicy
from k2beam.lake.expiry import expirable, remembered, removal_of
from k2beam.lake.foreign import refuse_foreign
from k2beam.lake.scan import load_readable
from k2beam.lake.storage import bare, manifests_of, referenced_data
from k2beam.lake.transaction import commit_loop, commit_updates
from k2beam.maintain.orphans import UnusedFile, delete_files, old_files


@dataclass(frozen=True, slots=True)
class Expiry:
    """What expiring a table does, or would do: snapshots that go and stay, files that go and their bytes."""

    table: str
    snapshots: int
    kept: int
    files: int
    bytes: int


def expire(
    catalog: Catalog,
    namespace: str,
    name: str,
    retention: Retention,
    older_than: timedelta,
    *,
    apply: bool,
    policy: RetryPolicy | None = None,
    on_delete: Callable[[UnusedFile], None] = lambda file: None,
) -> Expiry:
    """Expire the snapshots of a table that ``retention`` doesn't keep; without ``apply`` only say what that would do.

    One commit takes them out of the metadata. Then the files that only they had are deleted, as far as they are older
    than ``older_than``; what is younger, or was left by a crash in between, is an orphan later. Tags and branches stay
    readable. Repeating it is right, also beside jobs that write and others that maintain.

    Raises LakeError where another warehouse may have files of it (:mod:`k2beam.lake.foreign`), UnreadableFile where
    metadata is gone or damaged, CommitConflict and CommitUnknown.
    """
    table = load_readable(catalog, namespace, name)
    refuse_foreign(table)
    gone = expirable(table.metadata, retention, _now_ms())
    if apply and gone:
        gone = _commit(catalog, namespace, name, retention, policy or RetryPolicy())
        table = load_readable(catalog, namespace, name)
    ids = {snapshot.snapshot_id for snapshot in gone}
    kept = [snapshot for snapshot in table.metadata.snapshots if snapshot.snapshot_id not in ids]
    files: list[UnusedFile] = []
    if gone:
        freed = _freed(table, gone, kept)
        # Anew: a busy job has deleted the metadata file that was looked at, and the folder is known by it.
        fresh = load_readable(catalog, namespace, name)
        files = [file for file in old_files(fresh, older_than) if file.path in freed]
    if apply:
        delete_files(table, files, on_delete)
    return Expiry(name, len(gone), len(kept), len(files), sum(file.bytes for file in files))


def _commit(catalog: Catalog, namespace: str, name: str, retention: Retention, policy: RetryPolicy) -> list[Snapshot]:
    """Take the snapshots out of the metadata; those that were taken out, in whatever try."""
    taken: dict[int, Snapshot] = {}

    def plan(table: Table) -> Sequence[Snapshot] | None:
        gone = expirable(table.metadata, retention, _now_ms())
        taken.update((snapshot.snapshot_id, snapshot) for snapshot in gone)
        return gone or None

    outcome = commit_loop(lambda: load_readable(catalog, namespace, name), plan, policy, commit=_remove)
    left = {snapshot.snapshot_id for snapshot in outcome.table.metadata.snapshots}
    return [snapshot for snapshot in taken.values() if snapshot.snapshot_id not in left]


def _remove(table: Table, gone: Sequence[Snapshot]) -> None:
    properties = SetPropertiesUpdate(updates=remembered(table.properties, gone, _now_ms()))
    commit_updates(table, (properties, removal_of(gone)))


def _freed(table: Table, gone: Sequence[Snapshot], kept: Sequence[Snapshot]) -> set[str]:
    """The bare paths of what some snapshots have and the kept ones have not; each manifest is read once."""
    kept_manifests = manifests_of(table, kept)
    own_manifests = {
        path: manifest for path, manifest in manifests_of(table, gone).items() if path not in kept_manifests
    }
    data = set(referenced_data(table, own_manifests.values()))
    if data:
        data.difference_update(referenced_data(table, kept_manifests.values()))
    lists = {snapshot.manifest_list for snapshot in gone}
    return data | {bare(path) for path in (*lists, *own_manifests)}


def _now_ms() -> int:
    return now_us() // 1_000
