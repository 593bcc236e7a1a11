"""Reading dead letters again, as the messages that they were."""

from __future__ import annotations

from typing import Any

import apache_beam as beam

from k2beam.config import LakeConfig
from k2beam.lake.tables import DEAD_LETTERS
from k2beam.query.selections import DeadLetterSelection
from k2beam.query.stored_letters import StoredLetters
from transforms.planned import PlannedBatches, ReadPlanned

_ALL = DeadLetterSelection()


class ReadDeadLetters(beam.PTransform):  # type: ignore[misc]
    """Read the dead letters of ``lake`` that ``selection`` names, with their payloads: RawBatches.

    What has become an event since is left out, and what came from a container or a CSV file too: its file is to be read
    again. Each letter has the source, partition and offset of its message, so that an event which is made of it takes
    its place, once.

    Delivery: bounded, of the snapshot that there is when the pipeline is built; a retried bundle gives the same
    messages again. Exactly once is made by the coverage at the commit.

    Counters (namespace k2beam): records_read (handed on).

    Examples:
        >>> import apache_beam as beam
        >>> from k2beam import LakeConfig
        >>> from transforms.read_dead_letters import ReadDeadLetters
        >>> with beam.Pipeline(runner="FnApiRunner") as pipeline:
        ...     read = pipeline | ReadDeadLetters(LakeConfig("warehouse"))
        ...     sizes = read.batches | beam.Map(lambda batch: batch.num_rows) | beam.CombineGlobally(sum)
        ...     _ = sizes | beam.Map(print)
        18
    """

    def __init__(self, lake: LakeConfig, selection: DeadLetterSelection = _ALL) -> None:
        super().__init__()
        self._lake = lake
        self._selection = selection

    def expand(self, pbegin: Any) -> PlannedBatches:
        source = StoredLetters.of_now(self._lake, self._selection)
        read: PlannedBatches = pbegin | ReadPlanned(source, [DEAD_LETTERS], broken="broken_letters")
        return read
