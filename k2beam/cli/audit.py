"""The command ``k2beam audit``: the audit report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from k2beam.cli.guard import guarded
from k2beam.cli.kafka_options import kafka_security, optional_kafka
from k2beam.cli.lake_options import archive_stores, check_exists, existing_lake, lake_config
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_object, emit_rows
from k2beam.cli.progress import progress, step_progress
from k2beam.config import LakeConfig
from k2beam.errors import UsageError
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.login import check_login

if TYPE_CHECKING:
    from k2beam.audit.compare import CompareReport
    from k2beam.audit.expectation import SourceFile
    from k2beam.audit.report import AuditReport
    from k2beam.lake.catalog import Catalog

SHOWN_SYMBOLS = 20
_SOURCES = ("source", "partition", "first", "last", "end", "expected", "received", "dead", "missing", "duplicate")
_SYMBOLS = ("exchange", "symbol", "kind", "expected", "received", "missing", "duplicate", "unsequenced")
_TABLES = ("table", "rows", "files", "bytes", "snapshot_id", "coverage_without_rows", "rows_without_coverage")
_COMPARED = ("table", "rows", "other_rows", "digest", "other_digest", "same")
_PINNED = (
    *("table", "snapshot_id", "rows", "rows_found", "digest", "digest_found"),
    *("coverage", "coverage_found", "problem"),
)

SourceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--source", metavar="PATH", help="An archive that must be in the tables: file, glob or folder; repeatable."
    ),
]
MendOption = Annotated[
    bool, typer.Option("--mend/--no-mend", help="Append to the gap ledger what differs from a recount, or fail.")
]
FullOption = Annotated[
    bool, typer.Option("--full", help="Believe nothing: read the sequence numbers of all rows, also of certified days.")
]
CompareOption = Annotated[
    str | None,
    typer.Option(
        "--compare",
        metavar="OTHER",
        help="Folder of another warehouse that must have the same rows, gaps and dead letters.",
    ),
]
PinOption = Annotated[
    str | None,
    typer.Option("--pin", metavar="NAME", help="Only whether the state of this tag is still what it was."),
]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("audit")(audit_command)


@guarded
@with_options(lake=lake_config, security=kafka_security)
def audit_command(
    source: SourceOption = None,
    *,
    lake: LakeConfig,
    bootstrap: Annotated[
        str | None, typer.Option(metavar="HOSTS", help="Kafka's addresses: count --topic and --topic-pattern there.")
    ] = None,
    topic: Annotated[list[str] | None, typer.Option(help="A topic that must be in the tables; repeatable.")] = None,
    topic_pattern: Annotated[str | None, typer.Option(help="Regular expression that matches whole names.")] = None,
    mend: MendOption = True,
    full: FullOption = False,
    compare: CompareOption = None,
    pin: PinOption = None,
    security: KafkaConfig,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Recount the tables from their rows: is anything lost, or there twice? Exits with 1 if so."""
    kafka = optional_kafka(bootstrap, security)
    check_exists(lake)
    from k2beam.audit.audit import audit
    from k2beam.lake.catalog import open_catalog

    if pin is not None:
        if source or kafka or topic or topic_pattern or compare:
            raise UsageError("--pin goes alone: a pinned state is compared with what was remembered of it")
        _check_pin(lake, pin, output)
        return
    opened = open_catalog(lake, create=False)
    other = None if compare is None else open_catalog(existing_lake(compare), create=False)
    with step_progress(f"auditing {lake.describe()}") as tell:
        report = audit(
            opened,
            lake.namespace,
            tuple(source or ()),
            stores=archive_stores(source or (), lake.catalog),
            counted=_topics(opened, lake.namespace, kafka, tuple(topic or ()), topic_pattern),
            mend=mend,
            full=full,
            on_step=tell,
        )
    compared = None if other is None else _compare(opened, other, lake.namespace)
    _emit(report, compared, output)
    if not report.ok or (compared is not None and not compared.same):
        raise typer.Exit(1)


def _check_pin(lake: LakeConfig, name: str, output: OutputFormat) -> None:
    from k2beam.audit.pins import check_pin
    from k2beam.lake.catalog import open_catalog

    with step_progress(f"auditing {name} of {lake.describe()}") as tell:
        findings = check_pin(open_catalog(lake, create=False), lake.namespace, name, tell)
    emit_rows(_PINNED, map(asdict, findings), output)
    problems = [f"table {finding.table} {finding.problem}" for finding in findings if finding.problem]
    for problem in problems:
        typer.echo(f"Problem: {problem}", err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"PASSED: {name} is what it was.", err=True)


def _topics(
    lake: Catalog, namespace: str, kafka: KafkaConfig | None, topics: tuple[str, ...], pattern: str | None
) -> tuple[SourceFile, ...]:
    """The topics as the broker has them, as one source."""
    if kafka is None:
        if topics or pattern:
            raise UsageError("--topic and --topic-pattern are counted at a broker: give --bootstrap HOSTS")
        return ()
    from k2beam.kafka.count import topics_as_source

    check_login(kafka)
    return (topics_as_source(lake, namespace, kafka, topics, pattern),)


def _compare(lake: Catalog, other: Catalog, namespace: str) -> CompareReport:
    from k2beam.audit.compare import compare

    with progress("comparing"):
        return compare(lake, other, namespace)


def _emit(report: AuditReport, compared: CompareReport | None, output: OutputFormat) -> None:
    if output is OutputFormat.TABLE:
        _print_report(report)
        if compared is not None:
            _print_comparison(compared)
    elif output is OutputFormat.CSV:
        emit_rows([*_SOURCES, "missing_ranges"], map(asdict, report.sources), output)
        if compared is not None:
            typer.echo(_comparison_verdict(compared), err=True)
    else:
        emit_object(report.to_dict() | ({} if compared is None else {"compare": compared.to_dict()}), output)


def _print_comparison(compared: CompareReport) -> None:
    typer.echo()
    rows = [{**asdict(table), "same": table.same} for table in compared.tables]
    _section("Compared with the other warehouse", _COMPARED, rows)
    for table in compared.tables:
        for example in table.examples:
            typer.echo(f"Only in {example.only_in} ({table.table}, {example.count:,} times):")
            emit_object(example.row, OutputFormat.JSONL)
    typer.secho(_comparison_verdict(compared), fg="green" if compared.same else "red", bold=True)


def _comparison_verdict(compared: CompareReport) -> str:
    different = [table.table for table in compared.tables if not table.same]
    if different:
        return f"DIFFERENT: {', '.join(different)}."
    return f"SAME: {sum(table.rows for table in compared.tables):,} rows, dead letters and open gaps in both."


def _print_report(report: AuditReport) -> None:
    _section("Sources: offsets", _SOURCES, [asdict(row) for row in report.sources])
    _section("Tables: rows and coverage", _TABLES, [asdict(row) for row in report.tables])
    gappy = sorted((row for row in report.symbols if row.missing), key=lambda row: -row.missing)
    shown = gappy[:SHOWN_SYMBOLS]
    _section("Symbols with sequence gaps (of the exchange: no failure)", _SYMBOLS, [asdict(row) for row in shown])
    if len(gappy) > len(shown):
        typer.echo(f"… and {len(gappy) - len(shown):,} more; --output json has them all")
    typer.echo(_ledger_line(report))
    if copies := sum(row.duplicate for row in report.symbols):
        typer.echo(
            f"Copies: {copies:,} rows have a number that another row of their symbol has; queries take each once"
        )
    typer.echo(
        f"Days recounted: {report.days.remembered:,} as they are remembered, {report.days.read:,} from their rows"
    )
    for note in report.notes:
        typer.echo(f"Note: {note}")
    for problem in report.problems:
        typer.echo(f"Problem: {problem}")
    typer.secho(_verdict(report), fg="green" if report.ok else "red", bold=True)


def _section(title: str, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        typer.secho(title, bold=True)
        emit_rows(columns, rows, OutputFormat.TABLE)
        typer.echo()


def _ledger_line(report: AuditReport) -> str:
    ledger = report.ledger
    text = f"Gap ledger: {ledger.unfilled:,} open, {ledger.recounted:,} by a recount of {len(report.symbols):,} symbols"
    if not ledger.checked:
        return f"{text}: not compared, since there are rows that can't be read"
    return f"{text}; {ledger.stale:,} stale rows, {ledger.mended:,} mended"


def _verdict(report: AuditReport) -> str:
    if not report.ok:
        count = len(report.problems)
        return f"FAILED: {count:,} problem{'s' if count > 1 else ''}."
    offsets = sum(row.expected for row in report.sources)
    unverified = sum(row.end == "unverified" for row in report.sources)
    text = f"PASSED: all {offsets:,} expected offsets are in the tables or the dead letters, each once."
    if unverified:
        text += f" Source partitions with an unverified end: {unverified:,}; their lost tails show only with --source."
    return text
