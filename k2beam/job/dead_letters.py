"""Dead letters decoded again: first to see what becomes of them, then into the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from k2beam.config import LakeConfig
from k2beam.errors import UsageError
from k2beam.job.bounded import run_ingest
from k2beam.job.config import IngestConfig
from k2beam.job.first import judge_messages, opened_decoder
from k2beam.job.stats import IngestStats
from k2beam.lake.catalog import open_catalog
from k2beam.metrics.config import DEFAULT_METRICS, MetricsConfig
from k2beam.query.dead_letters import count_dead_letters
from k2beam.query.selections import DeadLetterSelection
from k2beam.query.stored_letters import OF_FILES, StoredLetters, as_messages
from transforms.read_dead_letters import ReadDeadLetters

_ALL = DeadLetterSelection()

EVENT = "event"
"""The outcome of a dead letter that is good now."""

OF_FILE = "read the file again"
"""The outcome of one that comes from a container or a CSV file."""

UNKNOWN_SCHEMA = "unknown_schema_id"
"""The outcome of one whose writer's schema nobody here knows."""


@dataclass(frozen=True, slots=True)
class ReplayCount:
    """So many ``letters`` of a class and source have one outcome: :data:`EVENT`, :data:`OF_FILE`, or an error class."""

    error_class: str
    source: str
    outcome: str
    letters: int


def preview_dead_letters(
    lake: LakeConfig, selection: DeadLetterSelection = _ALL, *, resolver: Any = None
) -> list[ReplayCount]:
    """What would become of the dead letters of ``selection`` today; nothing is written. The most letters come first.

    ``resolver`` gives writer schemas by id. Raises LakeError for what can't be read, RegistryError for a registry that
    does not answer, UsageError for a selection with a limit.

    Examples:
        >>> from k2beam import DeadLetterSelection, LakeConfig, preview_dead_letters
        >>> counts = preview_dead_letters(LakeConfig("warehouse"), DeadLetterSelection(error_class="bad_magic"))
        >>> [(one.error_class, one.outcome, one.letters) for one in counts]
        [('bad_magic', 'bad_magic', 1), ('bad_magic', 'bad_magic', 1)]
    """
    _without_limit(selection)
    found = Counter[tuple[str, str, str]]()
    for count in count_dead_letters(open_catalog(lake), lake.namespace, selection):
        if count.source.startswith(OF_FILES):
            found[count.error_class, count.source, OF_FILE] += count.letters
    stored = StoredLetters.of_now(lake, selection)
    with opened_decoder(resolver) as decoder:
        for letters in (letters for path in stored.plan().chunks for letters in stored.letters(path)):
            names = ("_source", "_partition", "_offset", "error_class")
            rows = zip(*(letters.column(name).to_pylist() for name in names), strict=True)
            classes = {((source, partition), offset): told for source, partition, offset, told in rows}
            for one in judge_messages(as_messages(letters), decoder):
                found[classes[one.place, one.offset], one.place[0], one.error_class or EVENT] += 1
    counts = [ReplayCount(*key, letters) for key, letters in found.items()]
    return sorted(counts, key=lambda count: (-count.letters, count.error_class, count.source, count.outcome))


def replay_dead_letters(
    lake: LakeConfig,
    selection: DeadLetterSelection = _ALL,
    beam_arguments: Sequence[str] = (),
    *,
    resolver: Any = None,
    metrics: MetricsConfig = DEFAULT_METRICS,
) -> IngestStats:
    """Decode the dead letters of ``selection`` again: what is good now becomes events, and the rest stays as it is.

    Of a container or a CSV file there are none among them: ``run_ingest`` takes those of the file again where its
    configuration says ``replay_dead_letters``. Of the stats, ``already_covered`` counts what fails again.

    Exactly once for each (source, partition, offset), however often it is run, killed or not, and beside a live job.
    Raises as :func:`k2beam.job.bounded.run_ingest` does, and UsageError for a selection with a limit.

    Examples:
        >>> from k2beam import LakeConfig, replay_dead_letters
        >>> stats = replay_dead_letters(LakeConfig("warehouse"))
        >>> stats.consumed, sum(stats.written.values()), stats.already_covered
        (18, 0, 18)
    """
    _without_limit(selection)
    config = IngestConfig(lake, metrics=metrics, max_dead_share=1, replay_dead_letters=True)
    return run_ingest(ReadDeadLetters(lake, selection), config, beam_arguments, resolver=resolver)


def _without_limit(selection: DeadLetterSelection) -> None:
    if selection.limit is not None:
        raise UsageError("dead letters are replayed by class, stage, source and time; a limit has no meaning there")
