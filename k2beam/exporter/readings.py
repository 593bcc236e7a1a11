"""What the exporter reads from the tables, and the gauges that it shows of them.

A reading sets its gauges when it has read all that they need, and takes those away that no longer stand for anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol, get_args

from k2beam.lake.catalog import Catalog
from k2beam.lake.freshness import DeadLetterReader, GapReader, OpenGaps, TableReader, TableState
from k2beam.lake.scan import find_readable
from k2beam.lake.tables import DEAD_LETTERS, SEQUENCE_GAPS, SPECS, Table
from k2beam.metrics.handle import Metrics
from k2beam.model import KINDS, Severity


class Reading(Protocol):
    """Something that is read at every interval, under the name of its label ``reading``."""

    name: str

    def read(self) -> Sequence[str]:
        """Read, and show it. Gives what is wrong with a part of it, whose gauges are gone.

        Raises K2BeamError, or an error of the catalog, the store or the broker, when nothing of it could be read.
        """

    def forget(self) -> None:
        """Take its gauges away."""


class Tables:
    """The tables, opened when first needed: a warehouse may be made after the exporter has started."""

    def __init__(self, open_lake: Callable[[], Catalog], namespace: str) -> None:
        self._open_lake = open_lake
        self._catalog: Catalog | None = None
        self.namespace = namespace

    @property
    def catalog(self) -> Catalog:
        """The open catalog. Raises UsageError where there is none."""
        if self._catalog is None:
            self._catalog = self._open_lake()
        return self._catalog

    def find(self, name: str) -> Table | None:
        """A table as it is now; None where it was never made. Raises UnreadableFile."""
        return find_readable(self.catalog, self.namespace, name)


class TableReading:
    """Size and freshness of one table."""

    def __init__(self, lake: Tables, table: str, metrics: Metrics) -> None:
        self.name = f"table:{table}"
        self._lake = lake
        self._table = table
        self._metrics = metrics
        self._reader = TableReader(table)

    def read(self) -> Sequence[str]:
        table = self._lake.find(self._table)
        if table is None:
            self.forget()
        else:
            self._show(self._reader.read(table))
        return ()

    def _show(self, state: TableState) -> None:
        table, data = self._table, state.data
        self._metrics.gauge("k2_table_snapshots", state.snapshots, table=table)
        self._metrics.gauge("k2_table_rows", data.rows, table=table)
        self._metrics.gauge("k2_table_data_files", data.files, table=table)
        self._metrics.gauge("k2_table_data_bytes", data.bytes, table=table)
        self._metrics.gauge("k2_table_small_files", data.small, table=table)
        if state.last_commit is None:
            self._metrics.remove_gauge("k2_table_last_commit_timestamp_seconds", table=table)
        else:
            self._metrics.gauge("k2_table_last_commit_timestamp_seconds", state.last_commit / 1e6, table=table)
        if data.newest_event is None:
            self._metrics.remove_gauge("k2_table_newest_event_timestamp_seconds", table=table)
        else:
            self._metrics.gauge("k2_table_newest_event_timestamp_seconds", data.newest_event / 1e6, table=table)

    def forget(self) -> None:
        table = self._table
        self._metrics.remove_gauge("k2_table_snapshots", table=table)
        self._metrics.remove_gauge("k2_table_rows", table=table)
        self._metrics.remove_gauge("k2_table_data_files", table=table)
        self._metrics.remove_gauge("k2_table_data_bytes", table=table)
        self._metrics.remove_gauge("k2_table_small_files", table=table)
        self._metrics.remove_gauge("k2_table_last_commit_timestamp_seconds", table=table)
        self._metrics.remove_gauge("k2_table_newest_event_timestamp_seconds", table=table)


class GapReading:
    """The open gaps; 0 is shown where there are none, also before the ledger is made."""

    name = "gaps"

    def __init__(self, lake: Tables, metrics: Metrics) -> None:
        self._lake = lake
        self._metrics = metrics
        self._reader = GapReader()

    def read(self) -> Sequence[str]:
        ledger = self._lake.find(SEQUENCE_GAPS)
        found = OpenGaps({}, {}) if ledger is None else self._reader.read(ledger)
        for kind, severity in itertools.product(KINDS, get_args(Severity)):
            count = found.gaps.get((kind, severity), 0)
            self._metrics.gauge("k2_open_gaps", count, kind=kind, severity=severity)
        for kind in KINDS:
            self._metrics.gauge("k2_missing_messages", found.missing.get(kind, 0), kind=kind)
        return ()

    def forget(self) -> None:
        for kind, severity in itertools.product(KINDS, get_args(Severity)):
            self._metrics.remove_gauge("k2_open_gaps", kind=kind, severity=severity)
        for kind in KINDS:
            self._metrics.remove_gauge("k2_missing_messages", kind=kind)


class DeadLetterReading:
    """The rows of the dead letters by stage and class."""

    name = "dead_letters"

    def __init__(self, lake: Tables, metrics: Metrics) -> None:
        self._lake = lake
        self._metrics = metrics
        self._reader = DeadLetterReader()
        self._shown: set[tuple[str, str]] = set()

    def read(self) -> Sequence[str]:
        table = self._lake.find(DEAD_LETTERS)
        found = {} if table is None else self._reader.read(table)
        self._remove(self._shown - found.keys())
        for (stage, error_class), count in found.items():
            self._metrics.gauge("k2_stored_dead_letters", count, stage=stage, error_class=error_class)
        self._shown = set(found)
        return ()

    def forget(self) -> None:
        self._remove(self._shown)
        self._shown = set()

    def _remove(self, gone: set[tuple[str, str]]) -> None:
        for stage, error_class in gone:
            self._metrics.remove_gauge("k2_stored_dead_letters", stage=stage, error_class=error_class)


def lake_readings(lake: Tables, metrics: Metrics) -> list[Reading]:
    """Everything that the tables alone tell."""
    tables: list[Reading] = [TableReading(lake, name, metrics) for name in SPECS]
    return [*tables, GapReading(lake, metrics), DeadLetterReading(lake, metrics)]
