"""Peak memory of the job: it must not grow with the rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

_PROGRAM = """
import resource, sys
from k2beam.cli.main import main
try:
    main(sys.argv[1:])
finally:
    sys.stderr.write(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}")
"""


def memory(small: Path, large: Path, scratch: Path) -> list[dict[str, Any]]:
    """Peak resident memory (MiB) at a number of rows and at four times as many, on one in-process worker."""
    peaks = [peak_mib(archive, scratch / f"memory-{archive.name}") for archive in (small, large)]
    return [
        {"what": f"peak memory, {what}", "rows": None, "value": peak, "unit": "MiB", "ratio": round(peak / peaks[0], 2),
         "beside": "one"}
        for what, peak in zip(("one", "four times"), peaks, strict=True)
    ]  # fmt: skip


def peak_mib(archive: Path, warehouse: Path) -> int:
    """Peak resident memory of one ``ingest archive``, MiB."""
    arguments = ["ingest", "archive", archive, "--warehouse", warehouse, "--", "--runner=FnApiRunner"]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    return int(done.stderr.rsplit(b"peak ", 1)[1]) // 1024
