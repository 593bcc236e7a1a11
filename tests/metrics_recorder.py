"""Which calls of metrics in the source were made while the tests ran, and what they changed.

Call sites are noted in this process only: what runs in a process of its own, such as a worker's, is not seen, so each
call needs a test that drives it here.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry

from k2beam.metrics.handle import Metrics
from k2beam.metrics.registry import STANDARD_LABELS
from scripts.metrics_lint.calls import METHODS, CallSite, call_sites, python_files
from scripts.metrics_lint.source import Project

PACKAGES = ("k2beam", "transforms")
WHOLE = ("unit", "transforms")
"""The folders of tests that together drive every call."""

Recorded = set[tuple[str, int]]
"""File and line of calls; the file as the interpreter names it."""


class CallSiteRecorder:
    """A plugin of pytest: notes the callers of metrics, and fails a run of all tests that left a call out.

    Says nothing where tests failed, or where only a part of them was chosen.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._chosen: set[Path] = set()
        self._partly = False
        self.recorded: Recorded = set()
        self.problems: list[str] = []

    def install(self) -> None:
        """Let each method of every handle note its caller first."""
        for name in METHODS:
            setattr(Metrics, name, self._noting(getattr(Metrics, name)))

    def _noting(self, method: Any) -> Any:
        recorded = self.recorded

        def noting(*arguments: Any, **labels: Any) -> None:
            caller = sys._getframe(1)
            recorded.add((caller.f_code.co_filename, caller.f_lineno))
            method(*arguments, **labels)

        return noting

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self._chosen = {item.path for item in items}

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        self._partly = self._partly or any(item.get_closest_marker("full") is None for item in items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK and self.is_whole(session.config.args):
            self.problems = differences(all_call_sites(self._root), self.recorded, self._root)
            if self.problems:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.problems:
            terminalreporter.section("calls of metrics")
            for problem in self.problems:
                terminalreporter.line(problem, red=True)

    def is_whole(self, arguments: Iterable[str]) -> bool:
        """Whether every file of the folders was collected, and nothing but the long set was left out."""
        files = {path for folder in WHOLE for path in (self._root / "tests" / folder).glob("test_*.py")}
        return bool(files) and files <= self._chosen and not self._partly and not any("::" in one for one in arguments)


def all_call_sites(root: Path) -> list[CallSite]:
    """Every call of a metric in the project, as the lint finds it."""
    return call_sites(Project(root), python_files(root / package for package in PACKAGES))


def differences(sites: Iterable[CallSite], recorded: Recorded, root: Path) -> list[str]:
    """The calls in the source that were not made, and the calls made that are not known in the source."""
    homes = [root / package for package in PACKAGES]
    made = {(Path(file), line) for file, line in recorded}
    made = {(file, line) for file, line in made if any(file.is_relative_to(home) for home in homes)}
    known = {(site.module.path, line): site for site in sites for line in site.lines}
    called = {known[place] for place in made if place in known}
    left_out = [
        f"{site}: no test made this call of {site.method}"
        for site in dict.fromkeys(known.values())
        if site not in called
    ]
    unknown = [
        f"{file.relative_to(root)}:{line}: this call of a metric was made, and the lint does not find it"
        for file, line in sorted(made)
        if (file, line) not in known
    ]
    return [*left_out, *unknown]


class Samples:
    """What changes in a Prometheus registry: the samples of one component, by name and labels.

    A histogram shows as its count, and its sum where that is no time. Samples that differ in the standard labels
    alone are added up.
    """

    def __init__(self, component: str, registry: CollectorRegistry = REGISTRY) -> None:
        self._component = component
        self._registry = registry
        self._before = self._read()

    def changed(self) -> dict[str, float]:
        """``name{label=value,...}`` without the standard labels, and by how much it changed since the last call."""
        now = self._read()
        changed = {name: value - self._before.get(name, 0.0) for name, value in now.items()}
        self._before = now
        return {name: value for name, value in changed.items() if value}

    def _read(self) -> dict[str, float]:
        total: defaultdict[str, float] = defaultdict(float)
        for name, value in self._samples():
            total[name] += value
        return total

    def _samples(self) -> Iterator[tuple[str, float]]:
        for family in self._registry.collect():
            for sample in family.samples:
                if sample.labels.get("component") != self._component or not family.name.startswith("k2_"):
                    continue
                if sample.name.endswith(("_bucket", "_created", "_seconds_sum")):
                    continue
                assert {*sample.labels} >= {*STANDARD_LABELS}
                labels = {name: sample.labels[name] for name in sorted({*sample.labels} - {*STANDARD_LABELS})}
                value = self._registry.get_sample_value(sample.name, sample.labels)
                assert value is not None
                yield f"{sample.name}{{{','.join(f'{name}={text}' for name, text in labels.items())}}}", value
