"""Whether pinned states of the tables are still what they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyiceberg.catalog import Catalog

from k2beam.errors import UnreadableFile, UsageError
from k2beam.lake.pins import Content, Pin, find_pins, read_pinned, unknown_pin
from k2beam.lake.scan import find_readable


@dataclass(frozen=True, slots=True)
class PinFinding:
    """One table of a pin: what was pinned, what is there now (None: it can't be told), and what is wrong."""

    table: str
    problem: str | None
    snapshot_id: int | None = None
    rows: int | None = None
    rows_found: int | None = None
    digest: str | None = None
    digest_found: str | None = None
    coverage: str | None = None
    coverage_found: str | None = None


def check_pin(
    catalog: Catalog, namespace: str, name: str, on_step: Callable[[str], None] = lambda step: None
) -> list[PinFinding]:
    """Read the rows of a pinned state again, and compare their number and digests with what was remembered.

    Reads all columns of all rows of the tagged snapshots. Raises UsageError where no table has the tag.
    """
    pins = find_pins(catalog, namespace).get(name, {})
    if not pins:
        raise UsageError(unknown_pin(catalog, namespace, name))
    findings = []
    for table in sorted({*pins, *(table for pin in pins.values() for table in pin.tables)}):
        on_step(f"reading {table}")
        findings.append(_finding(catalog, namespace, table, name, pins.get(table)))
    return findings


def _finding(catalog: Catalog, namespace: str, table: str, name: str, pin: Pin | None) -> PinFinding:
    if pin is None:
        return PinFinding(table, "has lost the tag, or is gone")
    if pin.digest is None:
        return _found(table, pin, None, f"was not read when it was tagged: `k2beam snapshots tag {name}` completes it")
    try:
        opened = find_readable(catalog, namespace, table)
        snapshot = opened.metadata.snapshot_by_id(pin.snapshot_id) if opened is not None else None
        if opened is None or snapshot is None:
            return _found(table, pin, None, "has lost the snapshot")
        ref = opened.metadata.refs.get(name)
        if ref is None or ref.snapshot_id != pin.snapshot_id:
            moved = "is gone" if ref is None else f"was moved to snapshot {ref.snapshot_id}"
            return _found(table, pin, None, f"is not tagged any more: the tag {moved}")
        content = read_pinned(opened, snapshot)
    except UnreadableFile as error:
        return _found(table, pin, None, f"file {error.path} {error.reason}")
    same = (content.rows, content.digest, content.coverage) == (pin.rows, pin.digest, pin.coverage)
    return _found(table, pin, content, None if same else "has other rows than it had")


def _found(table: str, pin: Pin, content: Content | None, problem: str | None) -> PinFinding:
    return PinFinding(
        table,
        problem,
        snapshot_id=pin.snapshot_id,
        rows=pin.rows,
        rows_found=content.rows if content else None,
        digest=pin.digest,
        digest_found=content.digest if content else None,
        coverage=pin.coverage,
        coverage_found=content.coverage if content else None,
    )
