"""How a bounded run ends when something else than its input is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from k2beam.cli.main import main
from k2beam.errors import LakeError
from k2beam.logs import configure_logging

configure_logging()  # as the program does before it loads Beam, which else writes by itself
import transforms.write_iceberg

def fail(*_):
    raise {error}

transforms.write_iceberg.write_rows = fail
main(["--log-level", "{level}", "ingest", "archive", "samples/asx", "--warehouse", "{folder}"])
"""


def run_with(error: str, folder: Path, level: str = "INFO") -> str:
    """The standard error of a run, in a process of its own, in which files can't be written."""
    program = PROGRAM.format(error=error, level=level, folder=folder)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("OSError(28, 'No space left on device')", "[Errno 28] No space left on device"),
        ("LakeError('table t: it is gone')", "table t: it is gone"),
    ],
)
def test_what_can_be_mended_is_told_in_one_sentence_and_its_trace_at_debug(
    tmp_path: Path, error: str, told: str
) -> None:
    sentence = f"Error: the job ended: {told}; run it again: what was committed is left out, the rest is taken\n"
    assert run_with(error, tmp_path / "info") == sentence
    detailed = run_with(error, tmp_path / "debug", "DEBUG")
    assert detailed.endswith(sentence)
    assert "Traceback" in detailed


def test_a_defect_keeps_its_trace(tmp_path: Path) -> None:
    found = run_with("TypeError('a mistake')", tmp_path)
    assert "Traceback" in found
    assert "TypeError: a mistake" in found
