"""Finds the calls of metrics: what is called on a handle of k2beam.metrics.handle, and nothing that looks like it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .source import Module, Project
from .values import dotted_name

METHODS = {"increment": "counter", "gauge": "gauge", "histogram": "histogram", "remove_gauge": "gauge"}
"""The methods of a handle that take a metric, and the type that each is for."""
_HANDLE = "k2beam.metrics.handle.Metrics"
_DEEPEST = 10


@dataclass(frozen=True, slots=True, eq=False)
class CallSite:
    """One use of a handle's method. ``call`` is None where the method is only taken, to be called elsewhere."""

    module: Module
    node: ast.Attribute
    call: ast.Call | None

    @property
    def method(self) -> str:
        return self.node.attr

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

    A handle is what is named or annotated so (``self._metrics``, ``metrics``, ``handle: Metrics``) or made by
    ``Metrics(...)``; what comes from outside the project, such as Beam's own metrics, is none.
    """
    modules = [project.load(file) for file in files]
    return [site for module in modules for site in sorted(_sites(project, module), key=lambda one: one.node.lineno)]


def _sites(project: Project, module: Module) -> Iterator[CallSite]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr in METHODS and isinstance(node.ctx, ast.Load):
            if not _Receiver(project, module).is_handle(node.value):
                continue
            above = module.parents[node]
            yield CallSite(module, node, above if isinstance(above, ast.Call) and above.func is node else None)


class _Receiver:
    """Decides whether an expression is a handle."""

    def __init__(self, project: Project, module: Module) -> None:
        self._project = project
        self._module = module

    def is_handle(self, expression: ast.expr, depth: int = 0) -> bool:
        if depth > _DEEPEST:
            return False
        match expression:
            case ast.IfExp(body=first, orelse=second):
                return self.is_handle(first, depth + 1) or self.is_handle(second, depth + 1)
            case ast.BoolOp(values=values):
                return any(self.is_handle(value, depth + 1) for value in values)
            case ast.NamedExpr(value=value) | ast.Await(value=value):
                return self.is_handle(value, depth + 1)
            case ast.Call(func=function):
                return self._is_class(function) or self._is_named_so(function)
            case ast.Name():
                return self._is_named_so(expression) or self._is_bound_to_one(expression, depth)
            case ast.Attribute():
                return self._is_named_so(expression) or self._is_attribute_of_one(expression, depth)
        return False

    def _is_class(self, expression: ast.expr) -> bool:
        name = dotted_name(expression, self._module)
        if name is None:
            return False
        found = self._project.find(name)
        return name == _HANDLE or (found is not None and f"{'.'.join(_dotted(found[0]))}.{found[1]}" == _HANDLE)

    def _is_named_so(self, expression: ast.expr) -> bool:
        """By its last name, in small letters as no class has it; what others export is none."""
        last = expression.attr if isinstance(expression, ast.Attribute) else getattr(expression, "id", "")
        return "metrics" in last and not self._is_foreign(expression)

    def _is_foreign(self, expression: ast.expr) -> bool:
        name = dotted_name(expression, self._module)
        return name is not None and self._project.find(name) is None

    def _is_bound_to_one(self, name: ast.Name, depth: int) -> bool:
        found = self._module.lookup(name.id, name)
        for binding in [] if found is None else found[1]:
            if isinstance(binding.node, ast.arg) and self._says_so(binding.node.annotation):
                return True
            if binding.value is not None and self.is_handle(binding.value, depth + 1):
                return True
        return False

    def _is_attribute_of_one(self, attribute: ast.Attribute, depth: int) -> bool:
        """Whether the class gives ``self.name`` a handle anywhere."""
        home = self._module.within(attribute, ast.ClassDef)
        if home is None or not (isinstance(attribute.value, ast.Name) and attribute.value.id in {"self", "cls"}):
            return False
        for node in ast.walk(home):
            match node:
                case ast.Assign(targets=targets, value=value):
                    if any(_names(target, attribute.attr) for target in targets) and self.is_handle(value, depth + 1):
                        return True
                case ast.AnnAssign(target=target, annotation=annotation):
                    if _names(target, attribute.attr) and self._says_so(annotation):
                        return True
        return False

    def _says_so(self, annotation: ast.expr | None) -> bool:
        """Whether an annotation names the handle's class, alone or with others."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            return "Metrics" in annotation.value and "Metrics" in self._module.bindings(self._module.tree)
        parts = [] if annotation is None else ast.walk(annotation)
        return any(self._is_class(part) for part in parts if isinstance(part, ast.Name | ast.Attribute))


def _names(target: ast.expr, name: str) -> bool:
    """Whether a target is ``self.name``, or ``name`` in the body of a class."""
    if isinstance(target, ast.Attribute):
        return target.attr == name and isinstance(target.value, ast.Name) and target.value.id in {"self", "cls"}
    return isinstance(target, ast.Name) and target.id == name


def _dotted(module: Module) -> list[str]:
    return [*module.package, *([] if module.path.stem == "__init__" else [module.path.stem])]
