"""Finds the calls of metrics: what is called on a handle of k2beam.metrics.handle, and nothing that looks like it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .receivers import Receivers, Verdict
from .source import Module, Project
from .values import CannotTell, NeedsCaller, Place, Values, shown

METHODS = {"increment": "counter", "gauge": "gauge", "histogram": "histogram", "remove_gauge": "gauge"}
"""The methods of a handle that take a metric, and the type that each is for."""
_METRIC = "k2_"


@dataclass(frozen=True, slots=True, eq=False)
class CallSite:
    """One use of a handle's method. ``call`` is None where the method is only taken, to be called elsewhere.

    ``doubt``: why it can't be told whether this is a call of a metric, or of which method; empty where it can.
    """

    module: Module
    node: ast.expr
    method: str
    call: ast.Call | None
    doubt: str = ""

    @property
    def lines(self) -> range:
        whole = self.call or self.node
        return range(whole.lineno, (whole.end_lineno or whole.lineno) + 1)

    def __str__(self) -> str:
        return f"{self.module.shown}:{self.lines.start}"


def python_files(paths: Iterable[Path]) -> list[Path]:
    """The Python files that the paths name or hold, each once."""
    found = (file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path]))
    return sorted({file.resolve() for file in found})


def call_sites(project: Project, files: Iterable[Path]) -> list[CallSite]:
    """Every use of a handle's methods in some files, in the order of the source.

    A handle is what is named or annotated so (``self._metrics``, ``metrics``, ``handle: Metrics``), made by
    ``Metrics(...)`` or opened by a MetricsConfig, and what a function returns that gives one of these. What is known to
    be something else, such as Beam's own metrics, is none. Where that isn't known, a call with the name of a metric
    is a site in doubt, and so is a method that is reached by ``getattr``.
    """
    modules = [project.load(file) for file in files]
    finder = _Finder(project)
    return [site for module in modules for site in sorted(finder.sites(module), key=lambda one: one.node.lineno)]


class _Finder:
    """Finds the sites of a module."""

    def __init__(self, project: Project) -> None:
        self._receivers = Receivers(project)
        self._values = Values(project)

    def sites(self, module: Module) -> Iterator[CallSite]:
        for node in ast.walk(module.tree):
            site = None
            match node:
                case ast.Attribute(value=owner, attr=method, ctx=ast.Load()) if method in METHODS:
                    site = self._site(module, node, owner, method)
                case ast.Call(func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=str(method)), *_]):
                    site = self._site(module, node, owner, method, by_name=True) if method in METHODS else None
                case ast.Call(func=ast.Name(id="getattr"), args=[owner, _, *_]):
                    site = self._any_method(module, node, owner)
            if site is not None:
                yield site

    def _site(
        self, module: Module, node: ast.expr, owner: ast.expr, method: str, by_name: bool = False
    ) -> CallSite | None:
        call = _called(module, node)
        verdict = self._receivers.verdict(owner, module, method)
        if verdict is Verdict.HANDLE:
            return CallSite(module, node, method, call)
        if verdict is Verdict.CLASS:
            return CallSite(module, node, method, call, f"{method} is taken from the class; call it on a handle")
        if verdict is Verdict.UNKNOWN and (by_name or (call is not None and self._names_metric(module, call))):
            doubt = f"whether {shown(owner)} is a handle of metrics is not known here; annotate it"
            return CallSite(module, node, method, call, doubt)
        return None

    def _any_method(self, module: Module, node: ast.Call, owner: ast.expr) -> CallSite | None:
        """A method whose name is known only when the program runs."""
        call = _called(module, node)
        is_handle = self._receivers.verdict(owner, module) in {Verdict.HANDLE, Verdict.CLASS}
        if is_handle or (call is not None and self._names_metric(module, call)):
            doubt = "the method is chosen when the program runs; call it by its name"
            return CallSite(module, node, "getattr", call, doubt)
        return None

    def _names_metric(self, module: Module, call: ast.Call) -> bool:
        """Whether the first argument may be the name of a metric; a parameter may."""
        match call.args[:1]:
            case [ast.JoinedStr(values=[ast.Constant(value=str(start)), *_])]:
                return start.startswith(_METRIC)
            case [first]:
                try:
                    return any(one.value.startswith(_METRIC) for one in self._values.texts(first, Place(module)))
                except NeedsCaller:
                    return True
                except CannotTell:
                    return False
        return False


def _called(module: Module, node: ast.expr) -> ast.Call | None:
    above = module.parents[node]
    return above if isinstance(above, ast.Call) and above.func is node else None
