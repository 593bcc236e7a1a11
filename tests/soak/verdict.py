"""Whether nothing is lost, nothing is there twice, and every gap is a true one, at the end of a run with faults."""

from __future__ import annotations

from dataclasses import dataclass

from tests.replay_helpers import true_gaps
from tests.soak.rig import CATALOG, Rig

_LAKE = ("--catalog", CATALOG)


@dataclass(frozen=True)
class Verdict:
    """Rows as the audit counted them, and what is wrong (empty: nothing)."""

    rows: int
    dead_letters: int
    gaps: int
    problems: tuple[str, ...]


def judge(rig: Rig, *, replay: bool = True) -> Verdict:
    """Audit at the broker, gaps against the maker's truth and, with ``replay``, the tables against a replay."""
    problems = []
    report = rig.ask("audit", *_LAKE, "--bootstrap", rig.stack.bootstrap, "--topic", rig.topic)
    problems += [f"audit: {problem}" for problem in report["problems"]]
    if not report["ok"]:
        problems.append("audit: not ok")
    names = ("exchange", "symbol", "kind", "epoch", "first_missing", "last_missing")
    found = {tuple(gap[name] for name in names) for gap in rig.ask("gaps", *_LAKE)}
    if found != true_gaps(rig.truth):
        problems.append(f"gaps: {len(found - true_gaps(rig.truth))} false, {len(true_gaps(rig.truth) - found)} missed")
    rows, dead = (sum(one[name] for one in report["sources"]) for name in ("received", "dead"))
    if rows + dead != rig.truth.offsets:
        problems.append(f"{rows:,} rows and {dead:,} dead letters of {rig.truth.offsets:,} messages")
    if replay:
        problems += _compared(rig)
    return Verdict(rows, dead, len(found), tuple(problems))


def _compared(rig: Rig) -> list[str]:
    """What differs from the tables that a replay of the topic's archive makes."""
    archive, lake = str(rig.home / "archive"), str(rig.home / "replayed")
    kafka = ("--bootstrap", rig.stack.bootstrap, "--registry", rig.stack.registry_url)
    rig.ask("archive", "kafka", archive, "--topic", rig.topic, *kafka)
    rig.ask("ingest", "archive", archive, "--warehouse", lake)
    compared = rig.ask("audit", *_LAKE, "--compare", lake)["compare"]
    return [f"replay: {table['table']} differs" for table in compared["tables"] if not table["same"]]
