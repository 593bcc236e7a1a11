"""The command, which tells what it did besides: elements taken from the runner, calls of Python, Arrow's allocations.

``python cost_command.py REPORT.json ARGUMENTS…``. Counts, no times: they are the same on a busy machine.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa
from apache_beam.runners.worker.bundle_processor import DataInputOperation

from k2beam.cli.main import main

elements: list[None] = []
calls: list[int] = []
"""Of each thread that has begun."""


def count_elements() -> None:
    """Count what comes to a step over the Fn API; ``append`` is one operation whatever thread calls it."""
    output = DataInputOperation.output

    def counted(self: Any, *args: Any) -> None:
        elements.append(None)
        output(self, *args)

    DataInputOperation.output = counted


def count_calls() -> None:
    """Count calls of Python's functions in this thread and in those that begin from now on."""

    def begin(*_event: Any) -> None:
        number = len(calls)
        calls.append(0)

        def note(_frame: FrameType, event: str, _argument: Any) -> None:
            if event == "call":
                calls[number] += 1

        sys.setprofile(note)

    threading.setprofile(begin)
    begin()


if __name__ == "__main__":
    report = Path(sys.argv[1])
    count_elements()
    count_calls()
    try:
        main(sys.argv[2:])
    finally:
        sys.setprofile(None)
        pool = pa.default_memory_pool()
        found = {"elements": len(elements), "calls": sum(calls), "arrow_allocations": pool.num_allocations()}
        report.write_text(json.dumps({**found, "arrow_bytes": pool.total_bytes_allocated()}), encoding="utf-8")
