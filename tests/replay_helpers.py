"""Whole runs of the main job, and what they left in the tables."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from k2beam.archive.write import write_raw_archive
from k2beam.audit.audit import audit
from k2beam.config import NAMESPACE
from k2beam.job.bounded import run_ingest
from k2beam.job.config import MAX_DEAD_SHARE, IngestConfig
from k2beam.job.stats import IngestStats
from k2beam.lake.catalog import open_catalog
from k2beam.lake.ledger import read_ledger
from k2beam.lake.tables import DEAD_LETTERS, EVENT_TABLES, SEQUENCE_GAPS, find_table
from k2beam.model import RawRecord
from k2beam.query.dead_letters import list_dead_letters
from k2beam.query.selections import DeadLetterSelection
from k2beam.simulate.faults import parse_faults
from k2beam.simulate.simulate import Simulation, simulate
from k2beam.simulate.truth import Truth
from tests.lake_helpers import lake_config, write_config
from transforms.read_archive import ReadArchive

FAULTS = "gaps=12,duplicates=15,resets=2,late=6,out-of-order=6,malformed=18"
VOLATILE = {"_ingested_at", "failed_at"}


def simulated(folder: Path, rows: int = 4000, faults: str = FAULTS, **options: Any) -> Truth:
    """A faulty feed of trades and quotes in ``folder``."""
    settings = {"symbols": 4, "seed": 7, "kinds": ("trades", "quotes"), "files": 3, **options}
    return simulate(folder, Simulation(rows=rows, faults=parse_faults(faults), **settings))


def without_schemas(containers: Path, folder: Path) -> Path:
    """The same messages in containers of ``folder`` that bring no schemas along."""
    folder.mkdir()
    for container in sorted(containers.glob("*.avro")):
        rows = (row for batch in ReadArchive([str(container)]).local_batches() for row in batch.data.to_pylist())
        records = (
            RawRecord(
                row["source"],
                row["partition"],
                row["offset"],
                None if row["timestamp"] is None else int(row["timestamp"].timestamp() * 1_000_000),
                row["key"],
                row["value"],
                tuple((header["key"], header["value"]) for header in row["headers"] or ()),
            )
            for row in rows
        )
        write_raw_archive(str(folder / container.name), records, {})
    return folder


def resolved_by(container: Path) -> dict[int, str]:
    """The writer schemas (JSON) that a container brings along, by id."""
    return {int(ref): text for batch in ReadArchive([str(container)]).local_batches() for ref, text in batch.schemas}


def ingest(paths: Sequence[Path], warehouse: Path, *beam: str, **write: Any) -> IngestStats:
    """Run ``ingest archive`` in this process."""
    return run_archive(paths, warehouse, *beam, **write)


def run_archive(
    paths: Sequence[Path],
    warehouse: Path,
    *beam: str,
    root: Path | None = None,
    max_dead_share: float = MAX_DEAD_SHARE,
    **write: Any,
) -> IngestStats:
    """The same with a root, and a share of dead letters."""
    options = write_config(run_id=uuid.uuid4().hex, **write)
    config = IngestConfig(lake_config(warehouse), options, max_dead_share=max_dead_share)
    source = ReadArchive([str(path) for path in paths], root=None if root is None else str(root))
    return run_ingest(source, config, beam)


def contents(warehouse: Path) -> dict[str, list[str]]:
    """Every row of the event tables and the dead letters, sorted, without the wall clock."""
    catalog = open_catalog(lake_config(warehouse))
    found = {}
    for name in (*EVENT_TABLES.values(), DEAD_LETTERS):
        table = find_table(catalog, NAMESPACE, name)
        rows = table.scan().to_arrow().to_pylist() if table else []
        found[name] = sorted(repr([(key, row[key]) for key in sorted(row) if key not in VOLATILE]) for row in rows)
    return found


def open_gaps(warehouse: Path) -> set[tuple[str, str, str, int, int, int]]:
    """The ledger's unfilled intervals."""
    table = find_table(open_catalog(lake_config(warehouse)), NAMESPACE, SEQUENCE_GAPS)
    return {
        (gap.exchange, gap.symbol, gap.kind, gap.epoch, gap.first_missing, gap.last_missing)
        for gap in (read_ledger(table) if table else [])
        if gap.status != "FILLED"
    }


def unresolved_letters(warehouse: Path) -> int:
    """How many dead letters have not become events."""
    return len(list_dead_letters(open_catalog(lake_config(warehouse)), NAMESPACE, DeadLetterSelection()))


def true_gaps(truth: Truth) -> set[tuple[str, str, str, int, int, int]]:
    return {(gap.exchange, gap.symbol, gap.kind, gap.epoch, gap.first_missing, gap.last_missing) for gap in truth.gaps}


def dead_letter_classes(warehouse: Path) -> Counter[str]:
    table = find_table(open_catalog(lake_config(warehouse)), NAMESPACE, DEAD_LETTERS)
    return Counter(table.scan().to_arrow().column("error_class").to_pylist() if table else [])


def assert_audit(warehouse: Path, *sources: Path, mend: bool = False) -> None:
    """The report is good, without mending anything; a run that was killed has left the ledger for the audit to mend."""
    report = audit(open_catalog(lake_config(warehouse)), NAMESPACE, [str(source) for source in sources], mend=mend)
    assert report.ok, report.problems


def assert_truth(warehouse: Path, truth: Truth, *sources: Path) -> None:
    """The tables hold exactly what the maker of the data says."""
    rows = contents(warehouse)
    assert {kind: len(rows[EVENT_TABLES[kind]]) for kind in truth.rows} == truth.rows  # type: ignore[index]
    assert dead_letter_classes(warehouse) == Counter(truth.dead_letters)
    assert open_gaps(warehouse) == true_gaps(truth)
    assert_audit(warehouse, *sources)
