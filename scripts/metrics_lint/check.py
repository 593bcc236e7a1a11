"""Compares the calls of metrics with the registry."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from k2beam.metrics.registry import STANDARD_LABELS, MetricSpec

from .callers import callers
from .calls import METHODS, CallSite
from .source import Project
from .values import CannotTell, Frame, Key, Labels, NeedsCaller, Place, Text, Values

_LIKE = 0.7
_LIKE_METRIC = 0.85
_FRAMES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What would mend a call: the text or label ``item`` becomes ``becomes``, or goes where that is None."""

    item: Text | Key
    becomes: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """One thing that is wrong with a call, or that can't be told of it."""

    path: str
    line: int
    metric: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.metric}: {self.message}"


@dataclass(slots=True)
class Report:
    """All findings, and what each call wants of the places where names and labels are written.

    ``wishes``: for each constant, keyword or key, by identity, what the calls that use it want it to be: itself too.
    """

    findings: list[Finding] = field(default_factory=list)
    wishes: dict[ast.AST, list[Change]] = field(default_factory=dict)

    def wish(self, item: Text | Key, becomes: str | None) -> None:
        self.wishes.setdefault(item.node, []).append(Change(item, becomes))


class Checker:
    """Checks call sites against the specifications of metrics, by name."""

    def __init__(self, project: Project, specs: Mapping[str, MetricSpec]) -> None:
        self._project = project
        self._specs = specs
        self._values = Values(project)

    def check(self, sites: Iterable[CallSite]) -> Report:
        """What is wrong with some calls."""
        report = Report()
        for site in sites:
            self._check(site, report)
        report.findings = sorted({str(one): one for one in report.findings}.values(), key=lambda f: (f.path, f.line))
        return report

    def _check(self, site: CallSite, report: Report) -> None:
        if site.call is not None and not site.call.args and not site.doubt:
            message = "no metric is given; write its name as the first argument"
            report.findings.append(Finding(site.module.shown, site.lines.start, site.method, message))
            return
        try:
            if site.doubt:
                raise CannotTell(site.doubt)
            if site.call is None:
                raise CannotTell(f"{site.method} is taken here and called elsewhere; call it where its labels are")
            for frame, names, labels in self._ways(site, None, 0):
                at = site.call if frame is None else frame.outermost()
                self._compare(site, at, names, labels, report)
        except CannotTell as reason:
            self._untold(site, reason, report)

    # --- what a call can be

    def _ways(
        self, site: CallSite, frame: Frame | None, depth: int
    ) -> Iterator[tuple[Frame | None, list[Text], list[Labels]]]:
        """The names and labels of a call; a helper's parameters are followed to each of the helper's callers."""
        call, place = site.call, Place(site.module, frame)
        assert call is not None
        if isinstance(call.args[0], ast.Starred):
            raise CannotTell("the metric's name is not the first argument")
        if any(isinstance(one, ast.Starred) for one in call.args):
            raise CannotTell("how many arguments a * gives is decided when the program runs")
        try:
            names = self._values.texts(call.args[0], place)
            labels = self._values.keywords(call, place)
        except NeedsCaller as needed:
            if depth >= _FRAMES:
                raise CannotTell(f"{needed.name} comes through more than {_FRAMES} functions") from None
            for function, caller in callers(self._project, needed):
                yield from self._ways(site, _appended(frame, Frame(function, caller, None)), depth + 1)
            return
        yield frame, names, labels

    def _compare(
        self, site: CallSite, at: ast.Call, names: Sequence[Text], keywords: Sequence[Labels], report: Report
    ) -> None:
        values = [None if site.method == "remove_gauge" else one.get("value") for one in keywords]
        labels = [
            {name: key for name, key in one.items() if key is not value}
            for one, value in zip(keywords, values, strict=True)
        ]
        pairs = [(name, one) for name in names for one in labels]
        wrong = [pair for pair in pairs if self._is_wrong(site, *pair)]
        if wrong and len(names) > 1 and len(labels) > 1:
            right = [pair for pair in pairs if pair not in wrong]
            if {name for name, _ in right} == {*names} and len({id(one) for _, one in right}) == len(labels):
                raise CannotTell("which labels go with which name is decided when the program runs")
        for (name, one), value in zip(pairs, values * len(names), strict=True):
            problems = [*_argument_problems(site, value), *self._problems(site, name, one, report)]
            if problems:
                message = ", ".join(problems)
                report.findings.append(Finding(site.module.shown, at.lineno, name.value, message))

    def _is_wrong(self, site: CallSite, name: Text, labels: Labels) -> bool:
        spec = self._specs.get(name.value)
        return spec is None or spec.type != METHODS[site.method] or {*labels} != {*spec.labels}

    # --- what is wrong

    def _problems(self, site: CallSite, name: Text, labels: Labels, report: Report) -> list[str]:
        spec = self._specs.get(name.value)
        if spec is None:
            return self._unknown_metric(site, name, labels, report)
        report.wish(name, name.value)
        if spec.type != METHODS[site.method]:
            for key in labels.values():
                report.wish(key, key.name)
            method = next(method for method, kind in METHODS.items() if kind == spec.type)
            return [f"is a {spec.type}, not a {METHODS[site.method]}; call {method}"]
        return _label_problems(spec, labels, report)

    def _unknown_metric(self, site: CallSite, name: Text, labels: Labels, report: Report) -> list[str]:
        near = near_metrics(name.value, self._specs)
        for key in labels.values():
            report.wish(key, key.name)
        spec = self._specs[near[0]] if len(near) == 1 else None
        fits = spec is not None and spec.type == METHODS[site.method] and {*spec.labels} == {*labels}
        report.wish(name, spec.name if spec is not None and fits else name.value)
        return ["is not in k2beam.metrics.registry; add it there", *_meant(near)]

    def _untold(self, site: CallSite, reason: CannotTell, report: Report) -> None:
        """A call that can't be told is accepted where its line names the test that drives it."""
        tests = [test for line in site.lines if (test := site.module.covering_tests.get(line))]
        message = f"cannot tell: {reason}"
        if not tests:
            message += "; write name and labels at the call, or name its test: # metrics: covered by PATH::TEST"
        elif all(has_test(self._project.root, test) for test in tests):
            return
        else:
            message += f"; and there is no test {', '.join(tests)}"
        first = site.call.args[0] if site.call and site.call.args else None
        metric = first.value if isinstance(first, ast.Constant) else site.method
        report.findings.append(Finding(site.module.shown, site.lines.start, str(metric), message))


def _argument_problems(site: CallSite, value: Key | None) -> list[str]:
    """What Python itself would refuse about the name and the value; ``value``: that given by its name."""
    assert site.call is not None
    given, most = len(site.call.args), 1 if site.method == "remove_gauge" else 2
    if given > most:
        return [
            f"{given} positional arguments; {site.method} takes {'the name' if most == 1 else 'name and value'} only"
        ]
    if value is not None and (given == 2 or value.twice):
        return ["the value is given twice"]
    if value is None and given < 2 and site.method in {"gauge", "histogram"}:
        return [f"no value is given; {site.method} needs one"]
    return []


def _label_problems(spec: MetricSpec, labels: Labels, report: Report) -> list[str]:
    missing = [label for label in spec.labels if label not in labels]
    standard = [name for name in labels if name in STANDARD_LABELS and name not in spec.labels]
    unknown = [name for name in labels if name not in spec.labels and name not in STANDARD_LABELS]
    renamed = _renamed(unknown, missing)
    left = {*missing} - {*renamed.values()}
    for name, key in labels.items():
        if name in renamed:
            report.wish(key, renamed[name])
        elif name in standard or (name in unknown and not left):
            # While a label is missing, an unknown one may be that label under another name.
            report.wish(key, None)
        else:
            report.wish(key, name)
    twice = [name for name, key in labels.items() if key.twice]
    near = [one for name in unknown for one in get_close_matches(name, missing, cutoff=_LIKE)]
    return [
        *([f"missing label(s) {', '.join(missing)}"] if missing else []),
        *([f"unknown label(s) {', '.join(unknown)}"] if unknown else []),
        *([f"label(s) {', '.join(twice)} given twice, by name and by **"] if twice else []),
        *([f"standard label(s) {', '.join(standard)}, which the handle adds"] if standard else []),
        *_meant(near),
    ]


def _renamed(unknown: Sequence[str], missing: Sequence[str]) -> dict[str, str]:
    """The labels that are misspelt beyond doubt: each is like one missing label, which is like it alone."""
    near = {name: get_close_matches(name, missing, cutoff=_LIKE) for name in unknown}
    meant = [label for labels in near.values() for label in labels]
    return {name: labels[0] for name, labels in near.items() if len(labels) == 1 and meant.count(labels[0]) == 1}


def near_metrics(name: str, specs: Mapping[str, MetricSpec]) -> list[str]:
    """The metrics whose names are like a name, the likest first; what all names share doesn't count."""
    cores = {_core(known): known for known in specs}
    return [cores[core] for core in get_close_matches(_core(name), cores, cutoff=_LIKE_METRIC)]


def _core(name: str) -> str:
    return name.removeprefix("k2_").removesuffix("_total")


def _meant(near: Sequence[str]) -> list[str]:
    return [f"did you mean {' or '.join(dict.fromkeys(near))}?"] if near else []


def _appended(frame: Frame | None, last: Frame) -> Frame:
    """The frames of a call with one more at the far end."""
    return last if frame is None else Frame(frame.function, frame.call, _appended(frame.above, last))


def has_test(root: Path, test: str) -> bool:
    """Whether ``PATH::NAME`` (or ``PATH::CLASS::NAME``) names a test below ``root``."""
    path, *names = test.split("::")
    file = root / path
    if not names or not names[-1].startswith("test") or not file.is_file():
        return False
    found: Sequence[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    for name in names:
        children = [child for node in found for child in ast.iter_child_nodes(node)]
        found = [child for child in children if getattr(child, "name", None) == name]
    return bool(found)
