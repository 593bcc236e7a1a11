"""The options of all ``k2beam ingest`` commands that say what a run may take, and into which tables."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import typer

from k2beam.job.config import MAX_DEAD_SHARE


class IntakeOptions(NamedTuple):
    """What of an :class:`k2beam.job.config.IngestConfig` they say."""

    adopt: bool
    max_dead_share: float


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
) -> IntakeOptions:
    """A group of options, for :func:`k2beam.cli.option_groups.with_options`."""
    return IntakeOptions(adopt, max_dead_share)
