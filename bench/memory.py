"""Peak memory of the job: it must not grow with the input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

PEAK = """
import sys
from bench.memory import own_peak_kib
from k2beam.cli.main import main
try:
    main(sys.argv[1:])
finally:
    sys.stderr.write(f"peak {own_peak_kib()}")
"""
"""Runs a command of k2beam and ends standard error with its peak of memory, KiB."""
_DAY_MS = 86_400_000
_STEP_MS = 5
_LINES_A_WRITE = 100_000


def own_peak_kib() -> int:
    """The high-water mark of this process's own memory, by /proc (Linux).

    What getrusage tells is also that of the process that started it, up to the start, so a benchmark that was larger
    itself would hide the job.
    """
    with Path("/proc/self/status").open(encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def memory(small: Path, large: Path, scratch: Path) -> list[dict[str, Any]]:
    """Peak resident memory (MiB) at a number of rows and at four times as many, on one in-process worker."""
    peaks = [peak_mib(archive, scratch / f"memory-{archive.name}") for archive in (small, large)]
    return _results("peak memory", (None, None), peaks)


def csv_memory(rows: int, scratch: Path) -> list[dict[str, Any]]:
    """As :func:`memory`, for one CSV file of ``rows`` lines, and another of four times as many."""
    sizes, peaks = (rows, 4 * rows), []
    for number, lines in enumerate(sizes):
        # The mapping takes the company's id from the file's name.
        path = scratch / f"asx_trades_{number}.csv"
        write_csv(path, lines)
        peaks.append(csv_peak_mib(path, scratch / f"memory-{path.stem}"))
        path.unlink()
    return _results("peak memory, CSV", sizes, peaks)


def peak_mib(archive: Path, warehouse: Path) -> int:
    """Peak resident memory of one ``ingest archive``, MiB. Raises RuntimeError where not all become rows."""
    return _peak_mib("archive", [str(archive)], warehouse)


def csv_peak_mib(path: Path, warehouse: Path) -> int:
    """Peak resident memory of one ``ingest csv`` of a file of :func:`write_csv`, MiB. Raises RuntimeError."""
    return _peak_mib("csv", [str(path), "--mapping", "asx-trades", "--symbol", "BENCH"], warehouse)


def write_csv(path: Path, lines: int) -> None:
    """A file of ``lines`` trades in the columns of the mapping asx-trades, all of one day, about 40 bytes each."""
    made = _trade_lines(lines)
    with path.open("w", encoding="ascii") as stream:
        while block := list(islice(made, _LINES_A_WRITE)):
            stream.writelines(block)


def _trade_lines(lines: int) -> Iterator[str]:
    for number in range(lines):
        seconds, millis = divmod(number * _STEP_MS % _DAY_MS, 1000)
        minutes, second = divmod(seconds, 60)
        hour, minute = divmod(minutes, 60)
        clock = f"{hour:02}:{minute:02}:{second:02}.{millis:03}"
        yield f"03/10/2014,{clock},{1 + number % 997 / 100:.2f},{1 + number % 4999},0,,\n"


def _peak_mib(command: str, arguments: Sequence[str], warehouse: Path) -> int:
    options = ["--warehouse", str(warehouse), "--output", "json", "--", "--runner=FnApiRunner"]
    line = [sys.executable, "-c", PEAK, "ingest", command, *arguments, *options]
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ingest {command} {arguments[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    stats = json.loads(done.stdout)
    if not stats["consumed"] or stats["consumed"] != sum(stats["written"].values()):
        raise RuntimeError(f"ingest {command} {arguments[0]}: not all became rows, so the peak says nothing: {stats}")
    return int(done.stderr.rpartition("peak ")[2]) // 1024


def _results(what: str, rows: Sequence[int | None], peaks: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "what": f"{what}, {name}",
            "rows": number,
            "value": peak,
            "unit": "MiB",
            "ratio": round(peak / peaks[0], 2),
            "beside": "one",
        }
        for name, number, peak in zip(("one", "four times"), rows, peaks, strict=True)
    ]
