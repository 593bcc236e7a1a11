"""The recorder of call sites: what it notes, when it judges, and what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest, parser

from k2beam.metrics.handle import Metrics
from scripts.validate_metrics_labels import METHODS
from tests import metrics_recorder
from tests.metrics_recorder import CallSiteRecorder, Samples, all_call_sites, differences

SOURCE = """\
from k2beam.metrics.handle import Metrics

def f(metrics: Metrics) -> None:
    metrics.increment(
        "k2_rows_written_total",
        3,
        table="t",
    )
    metrics.gauge("k2_freshness_seconds", 1, table="t")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("k2beam", "transforms", "tests/unit", "tests/transforms"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "k2beam" / "code.py").write_text(SOURCE, encoding="utf-8")
    for name in ("unit/test_a.py", "unit/test_b.py", "transforms/test_c.py"):
        (tmp_path / "tests" / name).write_text("", encoding="utf-8")
    return tmp_path


def item(path: Path, *markers: str) -> Any:
    return SimpleNamespace(path=path, get_closest_marker=lambda name: name if name in markers else None)


def collected(root: Path, *names: str) -> CallSiteRecorder:
    recorder = CallSiteRecorder(root)
    recorder.pytest_collection_modifyitems([item(root / "tests" / name) for name in names])
    return recorder


ALL = ("unit/test_a.py", "unit/test_b.py", "transforms/test_c.py")
OPTION = SimpleNamespace(collectonly=False)


def test_calls_in_any_of_their_lines_are_known(project: Path) -> None:
    file = str(project / "k2beam" / "code.py")
    sites = all_call_sites(project)
    both = {(file, 5), (file, 9)}
    assert differences(sites, {*both, (str(project / "tests" / "x.py"), 1)}, both, project) == []
    assert differences(sites, {(file, 9)}, both, project) == ["k2beam/code.py:4: no test made this call of increment"]
    assert differences(sites, {(file, 4), (file, 9), (file, 3)}, both, project) == [
        "k2beam/code.py:3: this call of a metric was made, and the lint does not find it"
    ]
    assert differences(sites, both, {(file, 4)}, project) == [
        "k2beam/code.py:9: a test made this call of gauge, and none that did read the metric back"
    ]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, project: Path) -> CallSiteRecorder:
    """A recorder of its own; what it puts in place goes with the test."""
    for name in METHODS:
        monkeypatch.setattr(Metrics, name, getattr(Metrics, name))
    monkeypatch.setattr(metrics_recorder, "_on_read", [])
    monkeypatch.setattr(CollectorRegistry, "get_sample_value", CollectorRegistry.get_sample_value)
    monkeypatch.setattr(parser, "text_string_to_metric_families", parser.text_string_to_metric_families)
    recorder = CallSiteRecorder(project)
    recorder.install()
    return recorder


@pytest.fixture
def call(project: Path, installed: CallSiteRecorder) -> Callable[[Metrics], None]:
    """The project's one function, as if it had been imported."""
    found: dict[str, Any] = {}
    exec(compile(SOURCE, str(project / "k2beam" / "code.py"), "exec"), found)
    function: Callable[[Metrics], None] = found["f"]
    return function


def lines(recorded: set[tuple[str, int]]) -> list[int]:
    return sorted(line for _, line in recorded)


def test_a_call_notes_where_it_stands(
    project: Path, installed: CallSiteRecorder, call: Callable[[Metrics], None]
) -> None:
    registry = CollectorRegistry()
    samples = Samples("c", registry)
    call(Metrics("c", registry=registry))
    assert len(differences(all_call_sites(project), installed.recorded, installed.read_back, project)) == 2
    assert samples.changed() == {"k2_rows_written_total{table=t}": 3, "k2_freshness_seconds{table=t}": 1}
    assert samples.changed() == {}
    assert differences(all_call_sites(project), installed.recorded, installed.read_back, project) == []


@pytest.mark.parametrize(
    ("read", "found"),
    [
        (lambda registry: registry.get_sample_value("k2_rows_written_total", {}), [4]),
        (lambda registry: registry.get_sample_value("k2_write_duration_seconds_count", {}), []),
        (lambda registry: list(parser.text_string_to_metric_families(generate_latest(registry).decode())), [4, 9]),
        (generate_latest, []),
    ],
)
def test_only_what_a_test_reads_is_read_back(
    installed: CallSiteRecorder,
    call: Callable[[Metrics], None],
    read: Callable[[CollectorRegistry], Any],
    found: list[int],
) -> None:
    registry = CollectorRegistry()
    call(Metrics("c", registry=registry))
    read(registry)
    assert lines(installed.read_back) == found


def test_what_another_test_reads_does_not_count(installed: CallSiteRecorder, call: Callable[[Metrics], None]) -> None:
    registry = CollectorRegistry()
    call(Metrics("c", registry=registry))
    installed.pytest_runtest_logstart()
    registry.get_sample_value("k2_rows_written_total", {})
    assert (lines(installed.recorded), installed.read_back) == ([4, 9], set())


def test_only_a_whole_run_is_judged(project: Path) -> None:
    assert collected(project, *ALL).is_whole(["tests"])
    assert collected(project, *ALL, "integration/test_d.py").is_whole([])
    assert not collected(project, *ALL[1:]).is_whole(["tests"])
    assert not collected(project, *ALL).is_whole(["tests", "tests/unit/test_a.py::test_x"])


def test_the_long_set_and_what_needs_servers_may_be_left_out_and_nothing_else(project: Path) -> None:
    recorder = collected(project, *ALL)
    recorder.pytest_deselected([item(project / "tests" / ALL[0], "full")])
    recorder.pytest_deselected([item(project / "tests" / "integration" / "test_d.py")])
    assert recorder.is_whole([])
    recorder.pytest_deselected([item(project / "tests" / ALL[0])])
    assert not recorder.is_whole([])


def test_a_run_that_only_collects_is_not_judged(project: Path) -> None:
    recorder = collected(project, *ALL)
    config = SimpleNamespace(args=[], option=SimpleNamespace(collectonly=True))
    session: Any = SimpleNamespace(config=config, exitstatus=0)
    recorder.pytest_sessionfinish(session, 0)
    assert (recorder.problems, session.exitstatus) == ([], 0)


@pytest.mark.parametrize(("status", "judged"), [(0, True), (1, False), (2, False)])
def test_a_call_that_no_test_made_fails_the_run(project: Path, status: int, judged: bool) -> None:
    recorder = collected(project, *ALL)
    session: Any = SimpleNamespace(config=SimpleNamespace(args=[], option=OPTION), exitstatus=status)
    recorder.pytest_sessionfinish(session, status)
    assert session.exitstatus == (1 if judged else status)
    assert len(recorder.problems) == (2 if judged else 0)


def worker(root: Path, arguments: list[str], *names: str, line: int) -> Any:
    """A worker of pytest-xdist, as its controller sees it at the end: it collected some files and made one call."""
    recorder = collected(root, *names)
    recorder.recorded = recorder.read_back = {(str(root / "k2beam" / "code.py"), line)}
    session: Any = SimpleNamespace(config=SimpleNamespace(args=arguments, workeroutput={}), exitstatus=0)
    recorder.pytest_sessionfinish(session, 0)
    assert (session.exitstatus, recorder.problems) == (0, [])
    # It gets there as plain data.
    return SimpleNamespace(workeroutput=json.loads(json.dumps(session.config.workeroutput)))


@pytest.mark.parametrize(
    ("line", "status", "problems"),
    [(9, 0, []), (4, 0, ["k2beam/code.py:9: no test made this call of gauge"]), (4, 1, [])],
)
def test_what_workers_of_xdist_noted_is_judged_together(
    project: Path, line: int, status: int, problems: list[str]
) -> None:
    controller = CallSiteRecorder(project)
    controller.pytest_testnodedown(worker(project, ["tests"], *ALL, line=4))
    controller.pytest_testnodedown(worker(project, ["tests"], *ALL, line=line))
    session: Any = SimpleNamespace(config=SimpleNamespace(args=["tests"], option=OPTION), exitstatus=status)
    controller.pytest_sessionfinish(session, status)
    assert (controller.problems, session.exitstatus) == (problems, 1 if problems else status)


def test_a_run_in_workers_that_is_not_whole_is_not_judged(project: Path) -> None:
    whole = worker(project, [], *ALL, line=4)
    died = SimpleNamespace()
    for other in (worker(project, [], *ALL[1:], line=4), worker(project, ["a.py::test_a"], *ALL, line=4), died):
        controller = CallSiteRecorder(project)
        for node in (whole, other):
            controller.pytest_testnodedown(node)
        session: Any = SimpleNamespace(config=SimpleNamespace(args=[], option=OPTION), exitstatus=0)
        controller.pytest_sessionfinish(session, 0)
        assert (controller.problems, session.exitstatus) == ([], 0)
