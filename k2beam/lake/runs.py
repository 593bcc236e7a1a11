"""What each run has committed to a table, kept in the table: its snapshots may be expired while it still runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from k2beam.errors import LakeError

RUN_ID = "k2.run-id"
"""Entry of a snapshot's summary: the run that committed it."""

RUN_PREFIX = "k2.run."
"""Table properties ``k2.run.<run id>``: the fields of :class:`RunRecord`, as JSON."""

RUNS_KEPT = 64
"""A table remembers so many runs, those that committed last."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run has committed to a table: rows and commits so far, and of the last commit its id and time.

    ``before`` and ``after`` are the ids of the snapshots before and after that commit (``before`` is None for the
    first of the table), ``at_ms`` is milliseconds UTC.
    """

    rows: int
    commits: int
    commit_id: str
    before: int | None
    after: int
    at_ms: int


def run_record(properties: Mapping[str, str], run_id: str) -> RunRecord | None:
    """What a run has committed to the table with these properties; None for nothing.

    Raises LakeError for a property that is damaged.
    """
    name = f"{RUN_PREFIX}{run_id}"
    return _parse(name, properties[name]) if name in properties else None


def with_run(properties: Mapping[str, str], run_id: str, last: RunRecord) -> tuple[dict[str, str], list[str]]:
    """The properties to set once a run committed ``last`` (the rows of one commit), and those to remove.

    Records of other runs that are damaged go too. Raises LakeError for one of this run.
    """
    name = f"{RUN_PREFIX}{run_id}"
    before = run_record(properties, run_id)
    total = last if before is None else _added(before, last)
    others = {key: _at_ms(key, text) for key, text in properties.items() if key.startswith(RUN_PREFIX) and key != name}
    oldest = sorted(others, key=lambda key: others[key])
    damaged = sum(at_ms < 0 for at_ms in others.values())
    return {name: json.dumps(asdict(total))}, oldest[: max(damaged, len(oldest) + 1 - RUNS_KEPT)]


def _at_ms(name: str, text: str) -> int:
    """When a run committed last; -1 where its record is damaged."""
    try:
        return _parse(name, text).at_ms
    except LakeError:
        return -1


def _added(before: RunRecord, last: RunRecord) -> RunRecord:
    rows, commits = before.rows + last.rows, before.commits + last.commits
    return RunRecord(rows, commits, last.commit_id, last.before, last.after, last.at_ms)


def _parse(name: str, text: str) -> RunRecord:
    try:
        return RunRecord(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise LakeError(f"table property {name}={text!r} is damaged: remove it") from error
