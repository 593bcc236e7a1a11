"""Which calls of metrics in the source were made while the tests ran, what they changed, and which were read back.

Call sites are noted in the process that runs the test only: what runs in a process of its own, such as a worker of
Beam, is not seen, so each call needs a test that drives it itself. The workers of pytest-xdist run tests: each hands
what it noted to the process that started it, which judges.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, parser

from k2beam.metrics.handle import Metrics
from k2beam.metrics.registry import BY_NAME, STANDARD_LABELS
from scripts.validate_metrics_labels import METHODS, CallSite, call_sites

PACKAGES = ("k2beam", "transforms")
WHOLE = ("unit", "transforms")
"""The folders of tests that together drive every call."""

Recorded = set[tuple[str, int]]
"""File and line of calls; the file as the interpreter names it."""

_HANDED_ON = "calls_of_metrics"
"""Where a worker of pytest-xdist puts what it noted, in what it gives to its controller."""

_on_read: list[Callable[[str], None]] = []
"""Told the name of each sample that a test reads through :class:`Samples`."""


class CallSiteRecorder:
    """A plugin of pytest: notes the callers of metrics, and fails a run of all tests that left a call out.

    A call is left out where no test made it, or none of those that did read its metric afterwards: as a change in
    :class:`Samples`, by ``get_sample_value``, or in an exposition that was parsed. Whether the test then compared
    what it read is not seen. Says nothing where tests failed, or where only a part of them was chosen.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._chosen: set[Path] = set()
        self._partly = False
        self._workers_were_whole: list[bool] = []
        self.recorded: Recorded = set()
        self.read_back: Recorded = set()
        self._unread: defaultdict[str, Recorded] = defaultdict(set)
        self.problems: list[str] = []

    def install(self) -> None:
        """Let each method of every handle note its caller first."""
        for name in METHODS:
            setattr(Metrics, name, self._noting(getattr(Metrics, name)))
        _on_read.append(self._note_read)
        CollectorRegistry.get_sample_value = self._reading(CollectorRegistry.get_sample_value)  # type: ignore[method-assign]
        parser.text_string_to_metric_families = self._parsing(parser.text_string_to_metric_families)

    def _noting(self, method: Any) -> Any:
        def noting(handle: Metrics, name: str, /, *arguments: Any, **labels: Any) -> None:
            caller = sys._getframe(1)
            place = (caller.f_code.co_filename, caller.f_lineno)
            self.recorded.add(place)
            self._unread[str(name)].add(place)
            method(handle, name, *arguments, **labels)

        return noting

    def _reading(self, get_sample_value: Any) -> Any:
        def reading(registry: CollectorRegistry, name: str, labels: dict[str, str] | None = None) -> float | None:
            self._note_read(name)
            found: float | None = get_sample_value(registry, name, labels)
            return found

        return reading

    def _parsing(self, parse: Any) -> Any:
        def parsing(text: str) -> Iterator[Any]:
            for family in parse(text):
                self._note_read(family.name)
                yield family

        return parsing

    def _note_read(self, sample: str) -> None:
        """The calls of this test are read back that a sample, or a family, may show."""
        suffixes = ("_count", "_sum", "_bucket")
        short = next((sample.removesuffix(suffix) for suffix in suffixes if sample.endswith(suffix)), sample)
        # The parser takes _total from the name of a counter's family.
        for name in (sample, short, f"{sample}_total"):
            if name in BY_NAME:
                self.read_back |= self._unread.pop(name, set())

    def pytest_runtest_logstart(self) -> None:
        """What one test does is not read back by another."""
        self._unread.clear()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self._chosen = {item.path for item in items}

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        homes = [self._root / "tests" / folder for folder in WHOLE]
        self._partly = self._partly or any(
            item.get_closest_marker("full") is None and any(item.path.is_relative_to(home) for home in homes)
            for item in items
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        # Which tests there are is known to those who collect them: under pytest-xdist the workers, and they alone.
        whole = all(self._workers_were_whole) if self._workers_were_whole else self.is_whole(session.config.args)
        if hasattr(session.config, "workeroutput"):
            noted = {"recorded": [*map(list, self.recorded)], "read_back": [*map(list, self.read_back)]}
            session.config.workeroutput[_HANDED_ON] = {"whole": whole, **noted}
        elif exitstatus == pytest.ExitCode.OK and whole and not session.config.option.collectonly:
            self.problems = differences(all_call_sites(self._root), self.recorded, self.read_back, self._root)
            if self.problems:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker of pytest-xdist noted; one that died kept it to itself, so that all is not known."""
        handed = getattr(node, "workeroutput", {}).get(_HANDED_ON, {"whole": False, "recorded": [], "read_back": []})
        self._workers_were_whole.append(handed["whole"])
        self.recorded |= {(file, line) for file, line in handed["recorded"]}
        self.read_back |= {(file, line) for file, line in handed["read_back"]}

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.problems:
            terminalreporter.section("calls of metrics")
            for problem in self.problems:
                terminalreporter.line(problem, red=True)

    def is_whole(self, arguments: Iterable[str]) -> bool:
        """Whether every file of the folders was collected, and nothing but the long set was left out."""
        files = {path for folder in WHOLE for path in (self._root / "tests" / folder).rglob("test_*.py")}
        return bool(files) and files <= self._chosen and not self._partly and not any("::" in one for one in arguments)


def all_call_sites(root: Path) -> list[CallSite]:
    """Every call of a metric in the project, as the lint finds it."""
    return list(call_sites(root / package for package in PACKAGES))


def differences(sites: Iterable[CallSite], recorded: Recorded, read_back: Recorded, root: Path) -> list[str]:
    """The calls in the source that were not made or not read back, and those made that are not known in the source."""
    homes = [root / package for package in PACKAGES]
    made = {(Path(file), line) for file, line in recorded}
    made = {(file, line) for file, line in made if any(file.is_relative_to(home) for home in homes)}
    known = {(site.path, line): site for site in sites for line in site.lines}
    shown = {site: f"{site.path.relative_to(root)}:{site.lines.start}" for site in known.values()}
    called = {known[place] for place in made if place in known}
    read = {known[place] for file, line in read_back if (place := (Path(file), line)) in known}
    left_out = [
        f"{place}: no test made this call of {site.method}" for site, place in shown.items() if site not in called
    ]
    unknown = [
        f"{file.relative_to(root)}:{line}: this call of a metric was made, and the lint does not find it"
        for file, line in sorted(made)
        if (file, line) not in known
    ]
    unread = [
        f"{place}: a test made this call of {site.method}, and none that did read the metric back"
        for site, place in shown.items()
        if site in called - read
    ]
    return [*left_out, *unread, *unknown]


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
        for name in (name for name, value in changed.items() if value):
            for note in _on_read:
                note(name.partition("{")[0])
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
                yield f"{sample.name}{{{','.join(f'{name}={text}' for name, text in labels.items())}}}", sample.value
