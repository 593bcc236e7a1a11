"""The demo again and again, clean and faulty in turns: whether the whole live path is right each time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

FAULTS = "gaps=12,duplicates=15,malformed=18"


class DemoFailed(SystemExit):
    """A run was not right; the program ends with 1."""


def _run(options: tuple[str, ...]) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "k2beam.cli.main", "demo", "--output", "json", *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


Run = Callable[[tuple[str, ...]], tuple[int, str, str]]
"""Runs the demo with some options: its exit code, standard output and standard error."""


def demos(number: int, run: Run = _run) -> Iterator[str]:
    """A line for each of ``number`` runs; odd ones are clean, even ones have faults, and each has another feed.

    Raises DemoFailed, which says what was wrong, at the first that is not ok.
    """
    for turn in range(1, number + 1):
        faulty = turn % 2 == 0
        options = ("--seed", str(turn), *(("--faults", FAULTS) if faulty else ()))
        name = f"{turn}/{number} {'faulty' if faulty else 'clean'}"
        started = time.monotonic()
        report = _report(name, *run(options))
        yield (
            f"{name}: ok, {report['produced']:,} messages, {sum(report['written'].values()):,} rows, "
            f"{report['dead_letters']:,} dead letters, {report['gaps']:,} gaps, {time.monotonic() - started:.1f} s"
        )


def _report(name: str, code: int, out: str, err: str) -> dict[str, Any]:
    """The report of a run that was right."""
    try:
        report: dict[str, Any] = json.loads(out)
    except json.JSONDecodeError:
        raise DemoFailed(f"{name}: no report, exit code {code}: {err[-2000:]}") from None
    if code or not report["ok"] or report["problems"]:
        problems = "; ".join(report["problems"]) or err[-2000:]
        raise DemoFailed(f"{name}: NOT ok, exit code {code}: {problems}")
    return report
