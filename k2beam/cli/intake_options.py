"""The options of all ``k2beam ingest`` commands that say what a run may take, and into which tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from k2beam.errors import UsageError
from k2beam.job.config import MAX_DEAD_SHARE

if TYPE_CHECKING:
    from k2beam.sequence import SequenceRules

KNOWN = "known"
"""Of ``--sequences``: the rules that come with the package."""


ReplayLettersOption = Annotated[
    bool,
    typer.Option("--replay-dead-letters", help="Decode again what is a dead letter; what is good now becomes events."),
]
OnlyMissingOption = Annotated[
    bool,
    typer.Option("--only-missing", help="Leave out events whose exchange's number the tables have from elsewhere."),
]
"""Both are of the commands that read files whole: a live job begins where the last one ended."""


class IntakeOptions(NamedTuple):
    """What of an :class:`k2beam.job.config.IngestConfig` they say."""

    adopt: bool
    max_dead_share: float
    sequences: SequenceRules | None
    evolve: bool


def intake_options(
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Take over tables of another program, where their columns fit.")
    ] = False,
    max_dead_share: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Take nothing if more of the first 1,000 messages would be dead letters; 1: take all."
        ),
    ] = MAX_DEAD_SHARE,
    sequences: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="How exchanges number their messages, kept with the tables; or known."),
    ] = None,
    evolve: Annotated[
        bool, typer.Option("--evolve", help="Add columns for fields that the tables lack; else vendor_data has them.")
    ] = False,
) -> IntakeOptions:
    """A group of options, for :func:`k2beam.cli.option_groups.with_options`. Raises UsageError for what is no rules."""
    return IntakeOptions(adopt, max_dead_share, None if sequences is None else _rules(sequences), evolve)


def _rules(given: str) -> SequenceRules:
    import k2beam.sequence

    path = Path(k2beam.sequence.__file__).with_name("known.toml") if given == KNOWN else Path(given)
    try:
        return k2beam.sequence.SequenceRules.parse(path.read_text("utf-8"), f"--sequences {given}")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--sequences {given}: can't be read: {error}") from error
