"""`k2beam demo`: the whole live path in one command, and that it leaves no server behind."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from k2beam import demo
from k2beam.audit.report import AuditReport, DaysFinding, LedgerFinding
from k2beam.cli import demo as demo_command
from k2beam.demo import DemoConfig, Found, Scrape, judge, run_demo
from k2beam.errors import K2BeamError, UsageError
from k2beam.job.config import Reader
from k2beam.job.stats import IngestStats
from k2beam.model import Gap
from k2beam.simulate.truth import TrueGap, Truth, read_truth
from k2beam.stack.stack import LocalStack

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("prism")]

CLEAN = {"trades_v2": 2500, "quotes_v2": 2500, "reference_data_v2": 0}


def states(keep: Path) -> set[str]:
    """How the servers are that were started."""
    return {status.state for status in LocalStack(keep / "stack", ()).status()}


def app() -> typer.Typer:
    """The command alone, as a group so that it keeps its name."""
    found = typer.Typer()
    demo_command.register(found)
    found.callback()(lambda: None)
    return found


def test_a_clean_feed_is_whole_without_errors_gaps_and_dead_letters(tmp_path: Path, reader: Reader) -> None:
    keep = tmp_path / "keep"
    command = ["demo", "--rows", "5000", "--keep", str(keep), "--reader", reader, "--output", "json"]
    done = CliRunner().invoke(app(), command)
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["ok"], report["problems"], report["audit_ok"], report["metrics_ok"]) == (True, [], True, True)
    assert (report["errors"], report["gaps"], report["dead_letters"]) == (0, 0, 0)
    assert report["produced"] == 5000
    assert report["written"] == CLEAN
    assert report["metrics"] == {**CLEAN, "dead_letters": 0}
    assert report["queried"] == {"trades": 2500, "quotes": 2500, "reference_data": 0}
    assert report["commits"]["count"] == sum(map(len, report["snapshots"].values())) >= 2
    commits = report["commits"]
    assert 0 < commits["min_ms"] <= commits["mean_ms"] <= commits["max_ms"]
    assert commits["first_at"] <= commits["last_at"]
    assert "PASSED" in done.stderr
    assert states(keep) == {"stopped"}


def test_a_faulty_feed_gives_its_true_answer(repository: Path, tmp_path: Path, reader: Reader) -> None:
    sample = repository / "samples" / "crypto"
    truth = read_truth(sample)
    report = run_demo(DemoConfig(source=sample, keep=tmp_path / "keep", reader=reader))
    assert report.problems == ()
    assert report.truth
    assert report.queried == {"reference_data": 0, **truth.rows}
    assert report.dead_letters == report.metrics["dead_letters"] == sum(truth.dead_letters.values())
    assert report.gaps == len(truth.gaps) > 0
    assert states(tmp_path / "keep") == {"stopped"}


def fails() -> None:
    raise K2BeamError("it failed")


def is_terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("happens", "raised"), [(fails, K2BeamError), (is_terminated, SystemExit)])
def test_the_servers_end_whatever_happens(
    happens: Callable[[], None], raised: type[BaseException], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = []

    def through(_: Reader, stack: LocalStack, *__: object) -> None:
        seen.append([status.state for status in stack.status()])
        happens()

    monkeypatch.setattr(demo, "_SERVICES", {Reader.LIBRDKAFKA: ("kafka",)})
    monkeypatch.setattr(demo, "_through", through)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(raised):
        run_demo(DemoConfig(rows=10, keep=tmp_path / "keep"))
    assert seen == [["ready"]]
    assert states(tmp_path / "keep") == {"stopped"}
    assert signal.getsignal(signal.SIGTERM) == before


GAP = Gap("X", "S", "trades", 0, 5, 6, "OPEN", 0, "id")
TRUTH = Truth({}, 11, {"trades": 10}, {"bad_magic": 1}, 0, 0, gaps=(TrueGap("X", "S", "trades", 0, 5, 6),))
STATS = IngestStats(
    consumed=11,
    written={"trades_v2": 10, "quotes_v2": 0, "reference_data_v2": 0},
    errors=0,
    dead_letters=1,
    already_covered=0,
    gaps={},
    duration_s=1.0,
    throughput_per_s=11.0,
)
FOUND = Found(
    stats=STATS,
    rows={"trades": 10, "quotes": 0, "reference_data": 0},
    dead_letters={"bad_magic": 1},
    gaps=(GAP,),
    metrics=Scrape(Counter(trades_v2=10, dead_letters=1)),
    audit_report=AuditReport((), (), (), LedgerFinding(True, 1, 1, 0, 0), DaysFinding(0, 0, 0), ()),
)


def test_what_is_right_has_no_problems() -> None:
    assert judge(FOUND, 11, TRUTH) == ()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (replace(FOUND, stats=replace(STATS, errors=1)), "could not be read"),
        (replace(FOUND, gaps=()), "1 true gaps are not in the ledger"),
        (replace(FOUND, gaps=(GAP, replace(GAP, epoch=1))), "1 in it are none"),
        (replace(FOUND, dead_letters={"truncated": 1}), "dead letters are"),
        (replace(FOUND, metrics=Scrape(Counter(trades_v2=9, dead_letters=1))), "metrics say 9"),
        (replace(FOUND, audit_report=replace(FOUND.audit_report, problems=("lost",))), "audit: lost"),
    ],
)
def test_each_wrong_is_told(found: Found, said: str) -> None:
    (problem,) = judge(found, 11, TRUTH)
    assert said in problem


def test_a_row_too_few_is_told_by_every_count() -> None:
    assert len(judge(replace(FOUND, rows={**FOUND.rows, "trades": 9}), 12, TRUTH)) == 3


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--keep"):
        DemoConfig(keep=tmp_path)
    with pytest.raises(UsageError, match="--source"):
        DemoConfig(source=tmp_path / "file")
