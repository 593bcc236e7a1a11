"""The long set: a million rows and four, exact each time, and memory that does not grow with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.memory import peak_mib
from tests.replay_helpers import assert_audit, assert_truth, ingest, simulated

pytestmark = [pytest.mark.integration, pytest.mark.full]

FAULTS = "gaps=400,duplicates=500,resets=8,late=200,out-of-order=300,malformed=900"


@pytest.mark.parametrize(
    "options",
    [
        ("--runner=FnApiRunner",),
        ("--runner=DirectRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing"),
        ("--runner=DirectRunner",),
    ],
    ids=["one worker", "two processes", "DirectRunner"],
)
def test_a_million_faulty_messages(tmp_path: Path, prism: Path, options: tuple[str, ...]) -> None:
    truth = simulated(tmp_path / "in", rows=1_000_000, faults=FAULTS, symbols=200, files=8, rate=5000.0)
    ingest([tmp_path / "in"], tmp_path / "wh", *options)
    assert_truth(tmp_path / "wh", truth, tmp_path / "in")
    again = ingest([tmp_path / "in"], tmp_path / "wh", *options)
    assert again.already_covered == truth.offsets


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    options = {"faults": "", "symbols": 200, "files": 8, "envelope": "plain", "kinds": ("trades",)}
    simulated(tmp_path / "one", rows=1_000_000, **options)
    simulated(tmp_path / "four", rows=4_000_000, **options)
    one, four = (peak_mib(tmp_path / name, tmp_path / f"wh-{name}") for name in ("one", "four"))
    assert four <= 1.15 * one
    assert_audit(tmp_path / "wh-four", tmp_path / "four")
