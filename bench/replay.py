"""Replaying archives: the whole job beside a floor and a peer.

Floor: fastavro reading the same containers into dicts, and nothing else. Peer: what one would
write first with the same libraries, fastavro rows through ``Table.from_pylist`` into pyiceberg's own
``append``, without gaps, dead letters, validation or exactly-once.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa

from k2beam.config import NAMESPACE, LakeConfig
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import open_table
from k2beam.schemas import event_arrow_schema

CHUNK = 50_000


def replay(archive: Path, scratch: Path) -> list[dict[str, Any]]:
    """Rows a second of the floor, the peer and the job in one, two and two more workers, and their ratios."""
    floor = _rate(lambda: _floor(archive))
    measured = [
        ("floor: fastavro alone", floor),
        ("peer: rows into pyiceberg", _rate(lambda: _peer(archive, scratch / "peer"))),
        ("job, FnApiRunner", _job(archive, scratch / "fn", "--runner=FnApiRunner")),
        (
            "job, two processes",
            _job(
                archive,
                scratch / "two",
                "--runner=FnApiRunner",
                "--direct_num_workers=2",
                "--direct_running_mode=multi_processing",
            ),
        ),
    ]
    return [
        {
            "what": what,
            "rows": rows,
            "value": round(rows / seconds),
            "unit": "rows/s",
            "ratio": round(rows / seconds / (floor[0] / floor[1]), 2),
            "beside": "floor",
        }
        for what, (rows, seconds) in measured
    ]


def _rate(run: Callable[[], int]) -> tuple[int, float]:
    started = time.perf_counter()
    rows = run()
    return rows, time.perf_counter() - started


def _records(archive: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(archive.glob("*.avro")):
        with path.open("rb") as stream:
            yield from fastavro.reader(stream)


def _floor(archive: Path) -> int:
    return sum(1 for _ in _records(archive))


def _peer(archive: Path, warehouse: Path) -> int:
    table = open_table(open_catalog(LakeConfig(warehouse=str(warehouse))), NAMESPACE, "trades_v2")
    schema = event_arrow_schema("trades")
    records, count = _records(archive), 0
    while chunk := list(islice(records, CHUNK)):
        for record in chunk:
            record |= {"_source": "peer", "_partition": 0, "_offset": count, "_ingested_at": record["timestamp"]}
            count += 1
        table.append(pa.Table.from_pylist(chunk, schema=schema))
    return count


def _job(archive: Path, warehouse: Path, *options: str) -> tuple[int, float]:
    """The command itself, with its start; its own clock leaves out the imports."""
    import json

    command = [sys.executable, "-m", "k2beam.cli.main", "ingest", "archive", str(archive)]
    done = subprocess.run(
        [*command, "--warehouse", str(warehouse), "--output", "json", "--", *options],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    stats = json.loads(done.stdout)
    return stats["consumed"], stats["duration_s"]
