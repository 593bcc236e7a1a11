"""A run of the main job that kills itself with SIGKILL: run by test_crash.py as a process of its own.

Arguments: the point of the crash, how many times that point is passed first, archive, warehouse.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from k2beam.lake import transaction
from tests.replay_helpers import ingest
from transforms import write_iceberg


def killing(function: Callable[..., Any], passes: int, *, after: bool) -> Callable[..., Any]:
    """``function``, until it was called ``passes`` times: then the process dies before or after the call."""
    calls = [0]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        fatal = calls[0] > passes
        if fatal and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


def main(point: str, passes: int, archive: Path, warehouse: Path) -> None:
    if point == "after_write":
        write_iceberg.write_rows = killing(write_iceberg.write_rows, passes, after=True)
    else:
        transaction.append = killing(transaction.append, passes, after=point == "after_commit")
    ingest([archive], warehouse, target_file_bytes=2000, commit_rows=500)
    sys.exit("the crash point was never reached")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
