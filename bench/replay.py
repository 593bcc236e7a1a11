"""Replaying archives: the whole job beside a floor and a peer.

Floor: fastavro reading the same containers into dicts, and nothing else. Peer: what one would
write first with the same libraries, fastavro rows through ``Table.from_pylist`` into pyiceberg's own
``append``, without gaps, dead letters, validation or exactly-once.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa

from bench.compaction import result_line
from k2beam.config import NAMESPACE, LakeConfig
from k2beam.lake.catalog import open_catalog
from k2beam.lake.tables import open_table
from k2beam.schemas import event_arrow_schema
from k2beam.simulate.simulate import Simulation, simulate

CHUNK = 50_000
FEW, MANY = 10, 20_000


def replay(archive: Path, scratch: Path) -> Iterator[dict[str, Any]]:
    """Rows a second of the floor, the peer and the job in one and in two processes, and CPU seconds of a million."""
    floor = _measured(lambda: _floor(archive))
    processes = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
    measured = {
        "floor: fastavro alone": floor,
        "peer: rows into pyiceberg": _measured(lambda: _peer(archive, scratch / "peer")),
        "job, FnApiRunner": _job(archive, scratch / "fn", "--runner=FnApiRunner"),
        "job, two processes": _job(archive, scratch / "two", "--runner=FnApiRunner", *processes),
    }
    for what, taken in measured.items():
        yield result_line(what, taken.rows, round(taken.rate), "rows/s", round(taken.rate / floor.rate, 2), "floor")
    for what, taken in measured.items():
        yield result_line(what, taken.rows, round(taken.cpu_of_million, 2), "CPU s/million")


def many_symbols(rows: int, runs: int, scratch: Path) -> Iterator[dict[str, Any]]:
    """Rows a second and CPU seconds of a million, of 10 symbols and of 20,000: the medians of runs in turns."""
    taken: dict[int, list[_Taken]] = {FEW: [], MANY: []}
    for symbols in taken:
        simulate(scratch / str(symbols), Simulation(rows=rows, symbols=symbols, seed=1, envelope="plain", files=8))
    for run in range(runs):
        for symbols, measured in taken.items():
            archive = scratch / str(symbols)
            measured.append(_job(archive, scratch / f"lake-{symbols}-{run}", "--runner=FnApiRunner"))
    rates = {symbols: statistics.median(one.rate for one in measured) for symbols, measured in taken.items()}
    for symbols, rate in rates.items():
        yield _beside_few(symbols, rows, round(rate), "rows/s", rate / rates[FEW])
    costs = {symbols: statistics.median(one.cpu_of_million for one in measured) for symbols, measured in taken.items()}
    for symbols, cost in costs.items():
        yield _beside_few(symbols, rows, round(cost, 2), "CPU s/million", cost / costs[FEW])


def _beside_few(symbols: int, rows: int, value: float, unit: str, ratio: float) -> dict[str, Any]:
    return result_line(f"{symbols:,} symbols", rows, value, unit, round(ratio, 2), f"{FEW} symbols")


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a run took, all of its processes together."""

    rows: int
    seconds: float
    cpu_s: float

    @property
    def rate(self) -> float:
        return self.rows / self.seconds

    @property
    def cpu_of_million(self) -> float:
        return self.cpu_s / self.rows * 1_000_000


def _measured(run: Callable[[], int]) -> _Taken:
    started, cpu = time.perf_counter(), time.process_time()
    rows = run()
    return _Taken(rows, time.perf_counter() - started, time.process_time() - cpu)


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


def _job(archive: Path, warehouse: Path, *options: str) -> _Taken:
    """The command itself; its own clock leaves out the imports, and processor time does not."""
    command = [sys.executable, "-m", "k2beam.cli.main", "ingest", "archive", str(archive)]
    before = _of_children()
    done = subprocess.run(
        [*command, "--warehouse", str(warehouse), "--output", "json", "--", *options],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    stats = json.loads(done.stdout)
    return _Taken(stats["consumed"], stats["duration_s"], _of_children() - before)


def _of_children() -> float:
    """CPU seconds of all processes that were started here and have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
