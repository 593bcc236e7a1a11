"""The commands ``k2beam dlq …``: the messages that could not be used."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Annotated

import typer

import k2beam
from k2beam.cli.batches import Destination, destination_options, emit_batches
from k2beam.cli.guard import guarded
from k2beam.cli.lake_options import existing_lake
from k2beam.cli.maintain import ApplyOption
from k2beam.cli.metrics_options import MetricsOptions, metrics_options
from k2beam.cli.names import split_names
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_object, emit_rows
from k2beam.cli.progress import consumed_progress
from k2beam.cli.query_options import emit_all
from k2beam.cli.registry_options import OptionalRegistryOption, optional_registry, registry_login
from k2beam.config import LakeConfig
from k2beam.query.selections import DEAD_LETTER_COLUMNS, DeadLetterSelection
from k2beam.registry.config import RegistryConfig

dlq_app = typer.Typer(help="Dead letters: messages that could not be used, kept whole.", no_args_is_help=True)


LimitOption = Annotated[int | None, typer.Option("--limit", min=0, help="At most so many.")]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(dlq_app, name="dlq")


def letter_options(
    error_class: Annotated[
        list[str] | None, typer.Option("--class", metavar="A,B,…", help="Only these error classes; may be repeated.")
    ] = None,
    stage: Annotated[
        list[str] | None, typer.Option("--stage", metavar="A,B,…", help="Only these stages, such as decode.")
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option("--source", metavar="A,B,…", help="Only these sources, as the list shows them.")
    ] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Only what failed from then on.")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only what failed before then.")] = None,
) -> DeadLetterSelection:
    """The group of options, for :func:`k2beam.cli.option_groups.with_options`."""
    return DeadLetterSelection(
        split_names(error_class, "--class"),
        split_names(stage, "--stage"),
        split_names(source, "--source"),
        start=start,
        end=end,
    )


@dlq_app.command("list")
@guarded
@with_options(selection=letter_options, lake=existing_lake)
def show_list(
    *,
    selection: DeadLetterSelection,
    limit: LimitOption = None,
    lake: LakeConfig,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """The dead letters by source, partition and offset, without those that became events since."""
    from k2beam.query.dead_letters import list_dead_letters

    opened, selection = k2beam.Lake.of(lake), replace(selection, limit=limit)
    emit_rows(DEAD_LETTER_COLUMNS, list_dead_letters(opened.catalog, opened.namespace, selection), output)


@dlq_app.command("stats")
@guarded
@with_options(selection=letter_options, lake=existing_lake)
def stats(*, selection: DeadLetterSelection, lake: LakeConfig, output: OutputOption = OutputFormat.TABLE) -> None:
    """How many dead letters there are of each error class, stage and source."""
    from k2beam.query.dead_letters import LetterCount, count_dead_letters

    opened = k2beam.Lake.of(lake)
    emit_all(LetterCount, count_dead_letters(opened.catalog, opened.namespace, selection), output)


@dlq_app.command("export")
@guarded
@with_options(selection=letter_options, lake=existing_lake, to=destination_options)
def export(*, selection: DeadLetterSelection, limit: LimitOption = None, lake: LakeConfig, to: Destination) -> None:
    """The whole dead letters, with their payloads: to look at elsewhere, or to show to who sent them."""
    from k2beam.query.dead_letters import select_dead_letters

    opened, selection = k2beam.Lake.of(lake), replace(selection, limit=limit)
    schema, letters = select_dead_letters(opened.catalog, opened.namespace, selection)
    emit_batches(schema, letters, to)


@dlq_app.command("replay")
@guarded
@with_options(selection=letter_options, lake=existing_lake, login=registry_login, metrics=metrics_options)
def replay_letters(
    context: typer.Context,
    *,
    selection: DeadLetterSelection,
    apply: ApplyOption = False,
    registry: OptionalRegistryOption = None,
    login: RegistryConfig,
    lake: LakeConfig,
    metrics: MetricsOptions,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Decode dead letters again, by today's code, schemas and rules. Beam's own options follow after --."""
    from k2beam.job.dead_letters import EVENT, OF_FILE, UNKNOWN_SCHEMA, ReplayCount

    schemas = optional_registry(registry, login)
    resolver = None if schemas is None else k2beam.RegistryResolver(schemas)
    if apply:
        with consumed_progress("dlq replay", total=0):
            stats = k2beam.replay_dead_letters(
                lake, selection, context.obj or (), resolver=resolver, metrics=metrics.config
            )
        metrics.push(stats)
        emit_object(stats.as_dict(), output, title="dlq replay")
        typer.echo(
            f"{sum(stats.written.values()):,} became rows; {stats.already_covered:,} fail again and stay.", err=True
        )
        return
    counts = k2beam.preview_dead_letters(lake, selection, resolver=resolver)
    emit_all(ReplayCount, counts, output)
    by_outcome = Counter[str]()
    for one in counts:
        by_outcome[one.outcome] += one.letters
    told = f"Nothing was changed. With --apply: {by_outcome[EVENT]:,} become rows."
    if resolver is None and (unknown := by_outcome[UNKNOWN_SCHEMA]):
        told += (
            f" Of {unknown:,} the writer's schema is not known here: give --registry URL, or read their archive again "
            "with `k2beam ingest archive … --replay-dead-letters`."
        )
    if of_files := by_outcome[OF_FILE]:
        told += f" {of_files:,} are of files: read those again with `k2beam ingest … --replay-dead-letters`."
    typer.echo(told, err=True)


@dlq_app.command("show")
@guarded
@with_options(lake=existing_lake)
def show(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The source, as `dlq list` shows it.")],
    partition: Annotated[int, typer.Argument(metavar="PARTITION", help="Its partition.")],
    offset: Annotated[int, typer.Argument(metavar="OFFSET", help="An offset that it stands for.")],
    *,
    lake: LakeConfig,
    output: OutputOption = OutputFormat.JSON,
) -> None:
    """Everything about one dead letter: provenance, error, key, payload, headers, record."""
    from k2beam.query.dead_letters import show_dead_letter

    opened = k2beam.Lake.of(lake)
    emit_object(show_dead_letter(opened.catalog, opened.namespace, source, partition, offset), output)
