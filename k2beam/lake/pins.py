"""States of the tables that are kept under a name: a pin is a tag on a snapshot of each table, with what it held.

The tag keeps the snapshot from expiring; what it held is a property of the table, so that the audit can tell later
whether it is still so, after a compaction or in a copy of the warehouse too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import (
    RemovePropertiesUpdate,
    RemoveSnapshotRefUpdate,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
    TableUpdate,
)

from k2beam.clock import now_us
from k2beam.config import RetryPolicy
from k2beam.coverage import Coverage
from k2beam.errors import LakeError, UsageError
from k2beam.lake.digest import RowDigest, digest_rows
from k2beam.lake.offsets import OffsetCount
from k2beam.lake.scan import find_readable, load_readable, plan_files, read_file, table_name
from k2beam.lake.tables import CERTIFIED_DAYS, COVERED_TABLES, SPECS
from k2beam.lake.transaction import commit_loop, commit_updates

PIN_PREFIX = "k2.pin."
"""Table properties ``k2.pin.<name>``: the fields of :class:`Pin`, as JSON."""

PINNED = tuple(name for name in SPECS if name != CERTIFIED_DAYS)
"""The tables that a pin is of: all but what is made anew from them."""

PIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,99}")
"""Names begin with a letter, so that none is a time or the id of a snapshot."""


@dataclass(frozen=True, slots=True)
class Content:
    """What the rows of a snapshot are: how many, a digest of all their columns, and one of the offsets they stand for.

    Neither depends on the order of rows or on files. ``coverage`` is empty for a table whose rows stand for no offsets.
    """

    rows: int
    digest: str
    coverage: str


@dataclass(frozen=True, slots=True)
class Pin:
    """A table as it was when it was pinned (milliseconds UTC), and the tables that were pinned with it.

    ``rows``, ``digest`` and ``coverage`` are as in :class:`Content`; None until the rows were read.
    """

    snapshot_id: int
    pinned_at_ms: int
    tables: tuple[str, ...]
    rows: int | None = None
    digest: str | None = None
    coverage: str | None = None


def pin_tables(
    catalog: Catalog,
    namespace: str,
    name: str,
    *,
    policy: RetryPolicy | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> dict[str, Pin]:
    """Keep the state of all tables that have a snapshot under ``name``: tag them, then read their rows for the digests.

    The tables are tagged one after the other, in a moment: what a running job commits meanwhile may be in one and not
    yet in another. One that was interrupted is completed by the same command, with the snapshots that the other tables
    had when the first was tagged. Reads all columns of all rows.

    Raises UsageError for a name that can't be one or is taken, LakeError where there is no table yet or one has no
    snapshot of that moment any more, UnreadableFile, CommitConflict and CommitUnknown.
    """
    if PIN_NAME.fullmatch(name) is None:
        raise UsageError(f"a tag is named by a letter and up to 99 letters, digits, dots, _ and -, not {name!r}")
    policy = policy or RetryPolicy()
    pins = dict(find_pins(catalog, namespace).get(name, {}))
    if pins and all(pin.digest is not None for pin in pins.values()) and set(_named(pins)) == set(pins):
        raise UsageError(f"there is a tag {name} already; take another name, or `k2beam snapshots untag {name}` first")
    tables = _named(pins) or _with_snapshots(catalog, namespace)
    if not tables:
        raise LakeError("there is nothing to tag: no table has a snapshot yet")
    begun_at_ms = min((pin.pinned_at_ms for pin in pins.values()), default=None)
    for table in tables:
        if table not in pins:
            on_step(f"tagging {table}")
            pins[table] = _tag(catalog, namespace, table, name, tables, begun_at_ms, policy)
    for table, pin in pins.items():
        if pin.digest is None:
            on_step(f"reading {table}")
            pins[table] = _digested(catalog, namespace, table, name, pin, policy)
    return pins


def unpin_tables(catalog: Catalog, namespace: str, name: str, policy: RetryPolicy | None = None) -> list[str]:
    """Take a tag and what is remembered of it away; the tables that had it. Raises UsageError where none has."""

    def plan(table: Table) -> list[TableUpdate]:
        updates: list[TableUpdate] = []
        if name in table.metadata.refs:
            updates.append(RemoveSnapshotRefUpdate.model_validate({"ref-name": name}))
        if f"{PIN_PREFIX}{name}" in table.properties:
            updates.append(RemovePropertiesUpdate(removals=[f"{PIN_PREFIX}{name}"]))
        return updates

    pinned = list(find_pins(catalog, namespace).get(name, {}))
    if not pinned:
        raise UsageError(unknown_pin(catalog, namespace, name))
    for table in pinned:
        _change(catalog, namespace, table, plan, policy or RetryPolicy())
    return pinned


def find_pins(catalog: Catalog, namespace: str) -> dict[str, dict[str, Pin]]:
    """The pins by name, and then by table. Raises UnreadableFile, and LakeError for a damaged property."""
    found: dict[str, dict[str, Pin]] = {}
    for table_id in PINNED:
        table = find_readable(catalog, namespace, table_id)
        for name, pin in _pins_of(table.properties).items() if table is not None else ():
            found.setdefault(name, {})[table_id] = pin
    return found


def unknown_pin(catalog: Catalog, namespace: str, name: str) -> str:
    """What to say where no table has a tag of k2beam of this name."""
    return f"there is no tag {name}; the tags are {', '.join(sorted(find_pins(catalog, namespace))) or 'none yet'}"


def read_pinned(table: Table, snapshot: Snapshot) -> Content:
    """Read all rows of a snapshot, in the columns that it had, file by file.

    Raises UnreadableFile for a file that is gone or damaged.
    """
    total, count = RowDigest(), OffsetCount()
    name = table.name()[-1]
    schema = table.schema() if snapshot.schema_id is None else table.schemas()[snapshot.schema_id]
    columns = [field.name for field in schema.fields]
    for task in plan_files(table, snapshot=snapshot):
        for batch in read_file(table, task, columns, snapshot=snapshot):
            total += digest_rows(batch)
            if name in COVERED_TABLES:
                count.add_rows(batch)
    coverage = Coverage(count.offsets).digest() if name in COVERED_TABLES else ""
    return Content(total.rows, str(total), coverage)


def _pins_of(properties: Mapping[str, str]) -> dict[str, Pin]:
    pins = {}
    for name, text in properties.items():
        if name.startswith(PIN_PREFIX):
            try:
                values = json.loads(text)
                pins[name.removeprefix(PIN_PREFIX)] = Pin(**{**values, "tables": tuple(values["tables"])})
            except (ValueError, TypeError, KeyError) as error:
                raise LakeError(f"table property {name}={text!r} is damaged") from error
    return pins


def _named(pins: Mapping[str, Pin]) -> tuple[str, ...]:
    """The tables that the first of the pins says were to be pinned together."""
    return next(iter(pins.values())).tables if pins else ()


def _with_snapshots(catalog: Catalog, namespace: str) -> tuple[str, ...]:
    tables = {name: find_readable(catalog, namespace, name) for name in PINNED}
    return tuple(name for name, table in tables.items() if table is not None and table.current_snapshot() is not None)


def _tag(
    catalog: Catalog,
    namespace: str,
    table_id: str,
    name: str,
    tables: tuple[str, ...],
    at_ms: int | None,
    policy: RetryPolicy,
) -> Pin:
    """Tag the snapshot that a table had at a time (None: now), and remember it in the same commit."""
    pins: list[Pin] = []

    def plan(table: Table) -> Sequence[TableUpdate]:
        known = _pins_of(table.properties).get(name)
        if known is not None:
            pins.append(known)
            return ()
        snapshot_id = table.metadata.current_snapshot_id if at_ms is None else _snapshot_at(table, name, at_ms)
        if snapshot_id is None or name in table.metadata.refs:
            raise UsageError(
                f"table {table_name(table)} has a tag or branch {name} of another program; take another name"
            )
        pins.append(Pin(snapshot_id, now_us() // 1_000, tables))
        ref = {"ref-name": name, "type": SnapshotRefType.TAG, "snapshot-id": snapshot_id}
        return SetSnapshotRefUpdate.model_validate(ref), _remembered(name, pins[-1])

    _change(catalog, namespace, table_id, plan, policy)
    return pins[-1]


def _snapshot_at(table: Table, name: str, at_ms: int) -> int:
    """The snapshot that a table had at a time (milliseconds UTC). Raises LakeError where it's not there any more."""
    snapshot = table.snapshot_as_of_timestamp(at_ms)
    if snapshot is None:
        raise LakeError(
            f"the tag {name} was begun at {datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}, and table "
            f"{table_name(table)} has no snapshot of that time any more: `k2beam snapshots untag {name}`, and tag again"
        )
    return snapshot.snapshot_id


def _digested(catalog: Catalog, namespace: str, table_id: str, name: str, pin: Pin, policy: RetryPolicy) -> Pin:
    """Read the rows of a pinned snapshot, and remember what they are."""
    table = load_readable(catalog, namespace, table_id)
    snapshot = table.metadata.snapshot_by_id(pin.snapshot_id)
    if snapshot is None:
        raise LakeError(f"table {table_name(table)} has lost the snapshot {pin.snapshot_id} that is tagged {name}")
    content = read_pinned(table, snapshot)
    complete = replace(pin, **asdict(content))

    def plan(table: Table) -> Sequence[TableUpdate]:
        ref = table.metadata.refs.get(name)
        if ref is None or ref.snapshot_id != pin.snapshot_id:
            raise LakeError(f"table {table_name(table)} has lost the tag {name} meanwhile: tag again")
        return () if _pins_of(table.properties).get(name) == complete else (_remembered(name, complete),)

    _change(catalog, namespace, table_id, plan, policy)
    return complete


def _remembered(name: str, pin: Pin) -> TableUpdate:
    return SetPropertiesUpdate(updates={f"{PIN_PREFIX}{name}": json.dumps(asdict(pin))})


def _change(
    catalog: Catalog,
    namespace: str,
    table_id: str,
    plan: Callable[[Table], Sequence[TableUpdate]],
    policy: RetryPolicy,
) -> None:
    """Apply what ``plan`` wants of the fresh table, in one commit; nothing where it wants nothing."""

    commit_loop(
        lambda: load_readable(catalog, namespace, table_id),
        lambda table: plan(table) or None,
        policy,
        commit=commit_updates,
    )
