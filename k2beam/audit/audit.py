"""The audit: recounts the lake from its rows and says whether anything is lost or there twice.

It believes no counter and no coverage: every data file's provenance columns are read. An event
outranks a dead letter of the same offset, which is then hidden and no duplicate. See docs/reference/audit.md
for what the report proves.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyroaring import BitMap64

from k2beam.archive.count import count_archive
from k2beam.archive.files import expand_paths
from k2beam.archive.stores import Stores
from k2beam.audit.expectation import Expectation, SourceFile, describe, lost_files
from k2beam.audit.report import AuditReport, DaysFinding, LedgerFinding, SourceFinding, SymbolFinding, TableFinding
from k2beam.coverage import LEFT_OUT_PREFIX, PROPERTY_PREFIX, Coverage, SourcePartition, runs
from k2beam.errors import ArchiveError, LakeError, UnreadableFile
from k2beam.lake.certified import CertifiedDays
from k2beam.lake.holes import read_holes
from k2beam.lake.offsets import OffsetCount, count_offsets, may_cover
from k2beam.lake.reconcile import LedgerDiff, compare_ledger, mend_ledger
from k2beam.lake.recorded import recorded_ends
from k2beam.lake.recount import KeyRecount, recount_keys
from k2beam.lake.scan import find_readable
from k2beam.lake.tables import COVERED_TABLES, DEAD_LETTERS
from k2beam.sequence import SequenceKey

SHOWN_RANGES = 10


@dataclass
class _Findings:
    """What an audit has found so far."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)

    def file(self, error: UnreadableFile) -> None:
        """A file that can't be read: reported once, though two passes meet it."""
        if str(error) not in self.unreadable:
            self.unreadable.add(str(error))
            self.problems.append(str(error))


def audit(
    catalog: Catalog,
    namespace: str,
    sources: Sequence[str] = (),
    *,
    counted: Sequence[SourceFile] = (),
    mend: bool = True,
    full: bool = False,
    stores: Stores | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> AuditReport:
    """Recount everything in ``namespace`` and compare it with what there is to expect.

    ``sources`` are archives (files, globs, folders; by URI, opened by ``stores``) whose offsets must all be in the
    tables; without them the recorded ends count, and failing these only the holes are seen. ``counted`` are further
    sources that the caller has counted, such as topics at their broker. The gap ledger is
    compared with a recount of the rows and, with ``mend``, put right by appending to it; nothing else is
    written. The sequence numbers of days that are remembered of the same files are not read again; with ``full`` they
    are, all rows are read, and what is remembered is compared and, with ``mend``, put right. Each table is read at one
    snapshot. ``on_step`` is told what comes next.

    Raises UsageError when a path of ``sources`` has no file. A file of the tables or of the source that
    can't be read is a problem in the report, not an exception.

    Examples:
        >>> from k2beam import Lake
        >>> from k2beam.audit.audit import audit
        >>> lake = Lake("warehouse")
        >>> report = audit(lake.catalog, lake.namespace, ["samples/crypto"], mend=False)
        >>> report.ok, sum(source.received for source in report.sources), sum(source.dead for source in report.sources)
        (True, 5982, 18)
    """
    findings = _Findings()
    files = [*_count_sources(sources, stores, findings, on_step), *counted]
    expectation = Expectation()
    for file in files:
        expectation.add_file(file)
    tables, counts = _count_tables(catalog, namespace, expectation, findings, on_step)
    if not tables and not expectation.keys:
        findings.problems.append(f"none of the tables of {namespace} exist: there is nothing to audit")
    _report_lost_files(files, counts, expectation.left_out, findings)
    source_findings = _check_sources(expectation, counts, findings)
    on_step("recounting sequences")
    certified = CertifiedDays(catalog, namespace, believe=not full, keep=full and mend)
    recounts = list(recount_keys(catalog, namespace, certified=certified, on_unreadable=findings.file))
    ledger = _check_ledger(catalog, namespace, recounts, mend, findings)
    days = _check_days(certified, findings)
    return AuditReport(
        sources=source_findings,
        symbols=_symbols(recounts),
        tables=tables,
        ledger=ledger,
        days=days,
        problems=tuple(findings.problems),
        notes=tuple(findings.notes),
    )


def _count_sources(
    paths: Sequence[str],
    stores: Stores | None,
    findings: _Findings,
    on_step: Callable[[str], None],
) -> list[SourceFile]:
    files = []
    for path in expand_paths(paths, stores) if paths else ():
        on_step(f"counting {path}")
        try:
            counted = count_archive(path, stores=stores)
        except (ArchiveError, OSError) as error:
            findings.problems.append(f"source file {path} can't be counted: {error}")
            continue
        findings.notes.extend(
            f"source file {path}: {problem.message} (byte {problem.position})" for problem in counted.problems
        )
        files.append(SourceFile(path, counted.coverage))
    return files


def _count_tables(
    catalog: Catalog,
    namespace: str,
    expectation: Expectation,
    findings: _Findings,
    on_step: Callable[[str], None],
) -> tuple[tuple[TableFinding, ...], dict[str, OffsetCount]]:
    # What was covered before any row is counted has its row then, in whichever table, whatever a job commits meanwhile.
    claims = {
        name: _claimed(table, findings)
        for name in COVERED_TABLES
        if (table := _find(catalog, namespace, name, findings)) is not None
    }
    tables: dict[str, Table] = {}
    counts: dict[str, OffsetCount] = {}
    for name in claims:
        on_step(f"counting {name}")
        if (table := _find(catalog, namespace, name, findings)) is not None:
            tables[name], counts[name] = table, count_offsets(table, name, findings.file)
            _expect_recorded(expectation, table, findings)
            expectation.left_out.update(_claimed(table, findings, LEFT_OUT_PREFIX))
    found = {name: Coverage(count.offsets) for name, count in counts.items()}
    # Read after the claims, as holes are recorded before they are covered: what was covered then is among them.
    expectation.holes = read_holes(catalog, namespace, on_unreadable=findings.file)
    rows = may_cover(found, expectation.holes)
    return tuple(
        _check_coverage(
            table, counts[name], found[name] - _claimed(table, findings), claims[name] - rows[name], findings
        )
        for name, table in tables.items()
    ), counts


def _find(catalog: Catalog, namespace: str, name: str, findings: _Findings) -> Table | None:
    try:
        return find_readable(catalog, namespace, name)
    except UnreadableFile as error:
        findings.file(error)
        return None


def _expect_recorded(expectation: Expectation, table: Table, findings: _Findings) -> None:
    try:
        expectation.add_recorded(recorded_ends(table.properties))
    except LakeError as error:
        findings.problems.append(str(error))


def _claimed(table: Table, findings: _Findings, prefix: str = PROPERTY_PREFIX) -> Coverage:
    try:
        return Coverage.from_properties(table.properties, prefix)
    except LakeError as error:
        problem = f"table {table.name()[-1]}: {error}"
        if problem not in findings.problems:
            findings.problems.append(problem)
        return Coverage()


def _check_coverage(
    table: Table, count: OffsetCount, without_coverage: Coverage, without_rows: Coverage, findings: _Findings
) -> TableFinding:
    """Report the rows of a table that its coverage lacks, and what it covered before the count without a row."""
    name = table.name()[-1]
    discrepancies = (
        (without_rows, "are covered but have no row; they would never be taken again"),
        (without_coverage, "have rows but are not covered; they would be taken again"),
    )
    mend = (
        "bring the files back that can't be read, and audit again"
        if findings.unreadable
        else "`k2beam maintain coverage --rebuild` makes it what the rows say"
    )
    findings.problems += [
        f"table {name}: file {path} {wrong}; a query may leave them out: let another engine rewrite it"
        for path, wrong in count.misplaced.items()
    ]
    for offsets, consequence in discrepancies:
        for key in offsets:
            findings.problems.append(f"table {name}: {_offsets(offsets[key])} of {_place(key)} {consequence}: {mend}")
    return TableFinding(
        table=name,
        rows=count.rows,
        files=count.files,
        bytes=count.bytes,
        snapshot_id=table.metadata.current_snapshot_id,
        coverage_without_rows=len(without_rows),
        rows_without_coverage=len(without_coverage),
    )


def _report_lost_files(
    files: Sequence[SourceFile], counts: dict[str, OffsetCount], left_out: Coverage, findings: _Findings
) -> None:
    seen = left_out.copy()
    for count in counts.values():
        seen.update(Coverage(count.offsets))
    for file in lost_files(files, seen):
        findings.problems.append(
            f"source file {file.path} is lost: none of its {len(file.coverage):,} offsets is in the tables; ingest it"
        )


def _check_sources(
    expectation: Expectation, counts: dict[str, OffsetCount], findings: _Findings
) -> tuple[SourceFinding, ...]:
    seen = {key for count in counts.values() for key, offsets in count.offsets.items() if offsets}
    rows = []
    for key in sorted(seen | expectation.keys):
        row = _check_source(key, expectation, counts)
        rows.append(row)
        if row.missing:
            findings.problems.append(
                f"{_place(key)}: {row.missing:,} of {row.expected:,} offsets are missing: "
                f"{describe(row.missing_ranges, row.missing)}"
            )
        if row.duplicate:
            findings.problems.append(_duplicates(key, row.duplicate, counts))
    return tuple(rows)


def _check_source(key: SourcePartition, expectation: Expectation, counts: dict[str, OffsetCount]) -> SourceFinding:
    events, surplus = _events(key, counts)
    dead_letters = counts[DEAD_LETTERS].offsets.get(key, BitMap64()) if DEAD_LETTERS in counts else BitMap64()
    dead = dead_letters - events
    seen = events | dead
    missing = expectation.missing(key, seen, SHOWN_RANGES)
    return SourceFinding(
        source=key.source,
        partition=key.partition,
        first=seen.min() if seen else None,
        last=seen.max() if seen else None,
        end=expectation.end(key),
        expected=len(seen) + missing.count,
        received=len(events),
        dead=len(dead),
        missing=missing.count,
        duplicate=surplus + sum(count.surplus[key] for count in counts.values()),
        missing_ranges=missing.ranges,
    )


def _events(key: SourcePartition, counts: dict[str, OffsetCount]) -> tuple[BitMap64, int]:
    """The offsets in the event tables, and how often one is in a further table."""
    tables = _event_offsets(key, counts)
    events = BitMap64.union(BitMap64(), *tables)
    return events, sum(map(len, tables)) - len(events)


def _event_offsets(key: SourcePartition, counts: dict[str, OffsetCount]) -> list[BitMap64]:
    return [count.offsets[key] for name, count in counts.items() if name != DEAD_LETTERS and key in count.offsets]


def _duplicates(key: SourcePartition, surplus: int, counts: dict[str, OffsetCount]) -> str:
    places = [f"in {name} {_offsets(count.doubled[key])}" for name, count in counts.items() if key in count.doubled]
    shared = BitMap64()
    for one, other in itertools.combinations(_event_offsets(key, counts), 2):
        shared |= one & other
    if shared:
        places.append(f"in more than one event table {_offsets(shared)}")
    return f"{_place(key)}: {surplus:,} extra rows: {'; '.join(places)}"


def _check_ledger(
    catalog: Catalog, namespace: str, recounts: Iterable[KeyRecount], mend: bool, findings: _Findings
) -> LedgerFinding:
    try:
        diff = compare_ledger(catalog, namespace, recounts)
    except UnreadableFile as error:
        findings.file(error)
        diff = LedgerDiff(0, 0, ())
    stale = len(diff.changes)
    if findings.unreadable:
        # Rows that can't be read now may be restored: they must not become gaps in the ledger.
        return LedgerFinding(False, diff.unfilled, diff.recounted, stale, 0)
    mended = mend_ledger(catalog, namespace, diff.changes) if mend else None
    if stale and not mend:
        findings.problems.append(
            f"sequence_gaps: {stale:,} rows differ from a recount; audit without --no-mend appends the right ones"
        )
    return LedgerFinding(True, diff.unfilled, diff.recounted, stale, mended.rows if mended else 0)


def _check_days(certified: CertifiedDays, findings: _Findings) -> DaysFinding:
    """What is remembered of days, after the recount; where it may be written, it is put right."""
    mended = certified.save() is not None and not certified.trouble
    if certified.trouble:
        findings.notes.append(certified.trouble)
    for day in certified.wrong:
        said = f"certified_days: what was remembered of the {day} is not what its rows say"
        if mended:
            findings.notes.append(f"{said}; it is put right")
        else:
            findings.problems.append(f"{said}: audit with --full and without --no-mend puts it right")
    return DaysFinding(certified.remembered, certified.read, len(certified.wrong))


def _symbols(recounts: Iterable[KeyRecount]) -> tuple[SymbolFinding, ...]:
    """What the recounts of each symbol say together: there is one for each session of a rule."""
    by_key: dict[SequenceKey, list[KeyRecount]] = defaultdict(list)
    for recount in recounts:
        by_key[SequenceKey(recount.exchange, recount.symbol, recount.kind)].append(recount)
    return tuple(_symbol(key, of_key) for key, of_key in sorted(by_key.items()))


def _symbol(key: SequenceKey, recounts: Sequence[KeyRecount]) -> SymbolFinding:
    epochs = [epoch for recount in recounts for epoch in recount.epochs]
    expected = sum(epoch.last_sequence - epoch.first_sequence + 1 for epoch in epochs)
    missing = sum(epoch.missing for epoch in epochs)
    return SymbolFinding(
        *key,
        expected=expected,
        received=expected - missing,
        missing=missing,
        duplicate=sum(recount.rows for recount in recounts) - (expected - missing),
        unsequenced=sum(recount.unsequenced for recount in recounts),
    )


def _place(key: SourcePartition) -> str:
    return f"source {key.source} partition {key.partition}"


def _offsets(bitmap: BitMap64) -> str:
    noun = "offset" if len(bitmap) == 1 else "offsets"
    return f"{len(bitmap):,} {noun} ({describe(list(itertools.islice(runs(bitmap), SHOWN_RANGES)), len(bitmap))})"
