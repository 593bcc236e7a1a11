"""The command ``k2beam ingest csv``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import k2beam
from k2beam.cli.intake_options import IntakeOptions, OnlyMissingOption, ReplayLettersOption, intake_options
from k2beam.cli.kafka_options import kafka_security
from k2beam.cli.lake_options import lake_config
from k2beam.cli.metrics_options import MetricsOptions, metrics_options
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_object, emit_rows
from k2beam.cli.registry_options import registry_login
from k2beam.clock import now_us
from k2beam.config import LakeConfig, WriteConfig
from k2beam.errors import UsageError
from k2beam.job.config import IngestConfig
from k2beam.kafka.config import KafkaConfig
from k2beam.kafka.login import check_login
from k2beam.registry.config import RegistryConfig

if TYPE_CHECKING:
    from k2beam.csv.files import CsvFile
    from k2beam.csv.reader import CsvReader

_ARCHIVE = "archive:"
_MIB = 1 << 20


def register_csv(ingest_app: typer.Typer) -> None:
    """Add the command to the group ``ingest``."""
    ingest_app.command("csv")(csv_files)


@with_options(
    lake=lake_config, intake=intake_options, security=kafka_security, login=registry_login, metrics=metrics_options
)
def csv_files(
    context: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="CSV files, all of one mapping.")],
    mapping: Annotated[
        str,
        typer.Option(help="A known one, such as asx-trades or binance-trades, or a FILE.toml: what the columns mean."),
    ],
    to: Annotated[str, typer.Option(help="tables, archive:OUT.avro (a plain v2 container) or topic.")] = "tables",
    symbol: Annotated[str | None, typer.Option(help="The symbol of all files, where the mapping asks for it.")] = None,
    company: Annotated[str | None, typer.Option(help="The company id, where the files' names do not tell it.")] = None,
    companies: Annotated[
        str | None, typer.Option(metavar="CSV", help="Symbols by company id: a CSV file with both, and a header.")
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Take a last line without a line end: nobody writes the files any more.")
    ] = False,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="A corrected file: its rows take the place of those that were taken before."),
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what the first lines of each file become; nothing is written.")
    ] = False,
    replay_dead_letters: ReplayLettersOption = False,
    only_missing: OnlyMissingOption = False,
    *,
    lake: LakeConfig,
    bootstrap: Annotated[str | None, typer.Option(metavar="HOSTS", help="Kafka brokers, for --to topic.")] = None,
    registry: Annotated[str | None, typer.Option(metavar="URL", help="Schema registry, for --to topic.")] = None,
    dead_letters: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="For --to topic: bad lines go to FILE.dead_letters.jsonl, a new file; by default one for the run.",
        ),
    ] = None,
    dead_letters_json: Annotated[
        str | None, typer.Option(help="For --to tables: folder for a copy of the dead letters as JSON lines.")
    ] = None,
    target_file_mb: Annotated[int, typer.Option(min=1, help="Parquet size at which a data file is closed, MiB.")] = 64,
    memory_mb: Annotated[int, typer.Option(min=1, help="Rows that a worker buffers before it writes, MiB.")] = 96,
    intake: IntakeOptions,
    security: KafkaConfig,
    login: RegistryConfig,
    metrics: MetricsOptions,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Take vendor ticks from CSV into the tables, an archive or a topic. Beam's own options follow after --."""
    from k2beam.csv.companies import read_companies
    from k2beam.csv.files import FileVariables, check_files
    from k2beam.csv.mapping import load_mapping
    from k2beam.csv.reader import CsvReader

    reader = CsvReader(load_mapping(mapping))
    given = {"symbol": symbol, "company_id": company}
    symbols = read_companies(companies) if companies else {}
    variables = FileVariables(
        tuple((name, text) for name, text in given.items() if text is not None), tuple(symbols.items())
    )
    if to not in ("tables", "topic"):
        metrics.refuse_for(f"--to {to}")
    if replace and to != "tables":
        raise UsageError("--replace is for --to tables: what was delivered elsewhere can't be taken back")
    if (replay_dead_letters or only_missing) and to != "tables":
        raise UsageError("--replay-dead-letters and --only-missing are for --to tables")
    if only_missing and replace:
        raise UsageError("--only-missing and --replace exclude each other: what a file replaces is not missing")
    loaded_at = now_us()
    # Before Beam is loaded, which takes seconds.
    checked = check_files(files, reader.mapping, variables, loaded_at, complete=complete)
    if explain:
        _show(checked, reader, complete, output)
        return
    if to == "tables":
        from transforms.read_csv import ReadCsv

        write = WriteConfig(target_file_bytes=target_file_mb * _MIB, memory_bytes=memory_mb * _MIB)
        config = IngestConfig(
            lake,
            write,
            dead_letters_json=dead_letters_json,
            metrics=metrics.config,
            replay_dead_letters=replay_dead_letters,
            only_missing=only_missing,
            **intake._asdict(),
        )
        source = ReadCsv(
            files,
            reader.mapping,
            loaded_at=loaded_at,
            variables=variables,
            complete=complete,
            corrected=replace,
            evolve=intake.evolve,
        )
        stats = k2beam.run_ingest(source, config, context.obj or ())
        metrics.push(stats)
        emit_object(stats.as_dict(), output, title="ingest csv")
        return
    from k2beam.csv.deliver import produce, write_archive

    if to.startswith(_ARCHIVE) and to != _ARCHIVE:
        done, warnings = write_archive(checked, reader, Path(to.removeprefix(_ARCHIVE)), complete=complete)
    elif to == "topic":
        if not bootstrap or not registry:
            raise UsageError("--to topic needs --bootstrap HOSTS and --registry URL")
        kafka = security.at(bootstrap)
        check_login(kafka)
        with metrics.counting() as counts:
            handle = counts.open("producer")
            producer = k2beam.MarketDataProducer(
                bootstrap, login.at(registry), config=kafka.client_options(), metrics=handle
            )
            try:
                done, warnings = produce(checked, reader, producer, dead_letters, complete=complete)
            finally:
                producer.close()
    else:
        raise UsageError(f"--to takes tables, archive:OUT.avro or topic, not {to!r}")
    for warning in warnings:
        typer.echo(f"Warning: {warning}", err=True)
    emit_object(done.as_dict(), output, title="ingest csv")


def _show(files: Sequence[CsvFile], reader: CsvReader, complete: bool, output: OutputFormat) -> None:
    from k2beam.csv.explain import Explained, explain

    found = explain(files, reader, complete=complete)
    if output is not OutputFormat.TABLE:
        emit_rows(Explained._fields, found, output)
        return
    for one in found:
        what = "a dead letter" if one.error_class else f"an event of {reader.mapping.kind}" if one.event else "left out"
        told = one.event or {"error_class": one.error_class, "error_message": one.error_message}
        emit_object(told, output, title=f"{one.file}, line {one.line}: {what}")
