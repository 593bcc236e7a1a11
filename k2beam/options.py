"""Options: what the command line gives, as frozen configuration, and Beam's own options.

Nothing here holds a secret: catalogs and servers take theirs from their own configuration or
from named environment variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from k2beam.errors import UsageError
from k2beam.lake.catalog import LakeConfig
from k2beam.lake.config import WriteConfig
from k2beam.platform.prism import find_prism

DEFAULT_RUNNER = "FnApiRunner"
"""Beam's in-process runner: needs nothing but Python. DirectRunner would first look for Prism."""

DIRECT_RUNNERS = frozenset({"DirectRunner", "SwitchingDirectRunner", "PrismRunner"})
"""The runners that are, or may choose, Prism."""


@dataclass(frozen=True, slots=True)
class IngestConfig:
    """Everything that the pipeline needs to know, whatever its source."""

    lake: LakeConfig
    write: WriteConfig
    gap_grace_seconds: float = 5.0
    dead_letters_json: str | None = None

    def __post_init__(self) -> None:
        if self.gap_grace_seconds < 0:
            raise UsageError(f"--gap-grace must not be below 0, not {self.gap_grace_seconds}")


def beam_options(
    arguments: Sequence[str], *, streaming: bool = False, default_runner: str = DEFAULT_RUNNER
) -> PipelineOptions:
    """Beam's options from what follows ``--`` on the command line.

    Without a ``--runner`` the in-process runner is taken, and also for a DirectRunner that is given
    a number or mode of workers. A Prism that is at hand is named to the runners that may choose
    it, so that none is downloaded.
    """
    given = list(arguments)
    if not any(argument == "--runner" or argument.startswith("--runner=") for argument in given):
        given.append(f"--runner={default_runner}")
    options: PipelineOptions = PipelineOptions(given)
    chosen: dict[str, Any] = options.get_all_options()
    if chosen["runner"] in DIRECT_RUNNERS and _wants_workers(given):
        # Prism would ignore these options; the in-process runner is what has them.
        given.append(f"--runner={DEFAULT_RUNNER}")
    elif chosen["runner"] in DIRECT_RUNNERS and not chosen.get("prism_location"):
        prism = find_prism()
        if prism is not None:
            given += [f"--prism_location={prism}", "--environment_type=LOOPBACK"]
    if streaming:
        given.append("--streaming")
    return PipelineOptions(given)


def _wants_workers(arguments: Sequence[str]) -> bool:
    return any(argument.startswith(("--direct_num_workers", "--direct_running_mode")) for argument in arguments)
