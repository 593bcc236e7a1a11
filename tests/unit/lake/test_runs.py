"""The record of each run in a table's properties."""

from __future__ import annotations

from dataclasses import replace

import pytest

from k2beam.errors import LakeError
from k2beam.lake.runs import RUN_PREFIX, RUNS_KEPT, RunRecord, run_record, with_run

FIRST = RunRecord(rows=10, commits=1, commit_id="a", before=None, after=1, at_ms=100)
SECOND = RunRecord(rows=5, commits=1, commit_id="b", before=1, after=2, at_ms=200)


def committed(properties: dict[str, str], run_id: str, last: RunRecord) -> dict[str, str]:
    """The properties after one more commit of a run."""
    changed, removed = with_run(properties, run_id, last)
    return {name: text for name, text in {**properties, **changed}.items() if name not in removed}


def test_rows_and_commits_add_up_and_the_last_commit_is_known() -> None:
    properties = committed(committed({}, "r", FIRST), "r", SECOND)
    assert run_record(properties, "r") == RunRecord(15, 2, "b", 1, 2, 200)
    assert run_record(properties, "other") is None


def test_runs_are_apart() -> None:
    properties = committed(committed({}, "r", FIRST), "s", SECOND)
    assert (run_record(properties, "r"), run_record(properties, "s")) == (FIRST, SECOND)


def test_the_runs_that_committed_last_are_remembered() -> None:
    properties: dict[str, str] = {}
    for number in range(RUNS_KEPT + 5):
        properties = committed(properties, f"r{number}", replace(FIRST, at_ms=number))
        properties = committed(properties, "busy", replace(FIRST, at_ms=number))
    assert len(properties) == RUNS_KEPT
    assert run_record(properties, "busy") is not None
    assert run_record(properties, "r0") is None
    assert run_record(properties, f"r{RUNS_KEPT + 4}") is not None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"rows": 1}'])
def test_a_damaged_record_is_told(text: str) -> None:
    properties = {f"{RUN_PREFIX}r": text}
    with pytest.raises(LakeError, match=r"k2\.run\.r=.* is damaged"):
        run_record(properties, "r")
    with pytest.raises(LakeError, match=r"k2\.run\.r=.* is damaged: remove it"):
        with_run(properties, "r", FIRST)
    assert set(committed(properties, "s", FIRST)) == {f"{RUN_PREFIX}s"}, "that of another run goes"
