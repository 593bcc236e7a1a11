"""A command that is killed at its commits, and at other moments."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def started(repository: Path, *words: str, program: tuple[str, ...] = ("k2beam.cli.main",)) -> subprocess.Popen[str]:
    """The command of these words, as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", *program, *words],
        cwd=repository,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def kill_often(repository: Path, *words: str, times: int, looked_at: Callable[[], None]) -> None:
    """Run a command and kill it before its first commit, after it, and so many ``times`` at random.

    ``looked_at`` is called after each kill at a commit.
    """
    for when in ("before", "after"):
        killed = started(repository, *words, program=("tests.integration.killed_command", when, "0"))
        killed.communicate(timeout=120)
        assert killed.returncode == -signal.SIGKILL
        looked_at()
    moments = random.Random(3)
    for _ in range(times):
        killed = started(repository, *words)
        time.sleep(moments.uniform(1, 8))
        killed.kill()
        killed.communicate(timeout=120)
