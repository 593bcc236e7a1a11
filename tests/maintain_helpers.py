"""A small table that is committed to again and again, for what looks after tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pyiceberg.table import Table

from k2beam.config import NAMESPACE, Retention
from k2beam.lake.catalog import open_catalog
from k2beam.lake.commit import commit_files
from k2beam.lake.scan import load_readable
from tests.lake_helpers import QUICK, lake_config, offsets_in, stage

TABLE = "trades_v2"


class KeptLake:
    """Trades of one symbol, a row a commit unless told otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalog = open_catalog(lake_config(folder))
        self.rows = 0

    def commit(self, times: int = 1, rows: int = 1, keep: int | None = None) -> None:
        """Commit so many times; ``keep``: the snapshots that a commit leaves (None: all)."""
        retention = None if keep is None else Retention(keep)
        for _ in range(times):
            file = stage(self.folder, range(self.rows, self.rows + rows))
            commit_files(self.catalog, NAMESPACE, TABLE, [file], run_id="r", policy=QUICK, retention=retention)
            self.rows += rows

    def table(self) -> Table:
        return load_readable(self.catalog, NAMESPACE, TABLE)

    def snapshot_ids(self) -> list[int]:
        """Of the main branch, oldest first."""
        return [entry.snapshot_id for entry in self.table().history()]

    def files(self, pattern: str = "*") -> set[str]:
        """The names of the table's files, of data and metadata."""
        return {path.name for path in (self.folder / NAMESPACE / TABLE).rglob(pattern) if path.is_file()}

    def holds(self, offsets: Iterable[int] | None = None) -> bool:
        """Whether the rows are those that were committed, or those of ``offsets``."""
        return offsets_in(self.folder) == (list(range(self.rows)) if offsets is None else sorted(offsets))
