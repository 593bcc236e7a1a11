"""The commands ``k2beam dlq …``: the messages that could not be used."""

from __future__ import annotations

from typing import Annotated

import typer

import k2beam
from k2beam.cli.guard import guarded
from k2beam.cli.lake_options import existing_lake
from k2beam.cli.option_groups import with_options
from k2beam.cli.output import OutputFormat, OutputOption, emit_object, emit_rows
from k2beam.config import LakeConfig
from k2beam.query.selections import DEAD_LETTER_COLUMNS, DeadLetterSelection

dlq_app = typer.Typer(help="Dead letters: messages that could not be used, kept whole.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.add_typer(dlq_app, name="dlq")


@dlq_app.command("list")
@guarded
@with_options(lake=existing_lake)
def show_list(
    error_class: Annotated[str | None, typer.Option("--class", help="Only this error class.")] = None,
    stage: Annotated[str | None, typer.Option("--stage", help="Only this stage, such as decode.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="Only this source, as the list shows it.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=0, help="At most so many.")] = None,
    *,
    lake: LakeConfig,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """The dead letters by source, partition and offset, without those that became events since."""
    from k2beam.query.dead_letters import list_dead_letters

    opened = k2beam.Lake.of(lake)
    selection = DeadLetterSelection(error_class, stage, source, limit)
    emit_rows(DEAD_LETTER_COLUMNS, list_dead_letters(opened.catalog, opened.namespace, selection), output)


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
