"""The calls of a private helper, through which its parameters are known."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .classes import family, last_name
from .source import Function, Module, Project
from .values import CannotTell, NeedsCaller


def callers(project: Project, needed: NeedsCaller) -> list[tuple[Function, ast.Call]]:
    """Every call of the function that has the parameter. Raises CannotTell where there may be others."""
    module, function = needed.module, needed.function
    if not isinstance(function, Function) or not function.name.startswith("_") or function.name.startswith("__"):
        name = getattr(function, "name", "a lambda")
        raise CannotTell(f"{needed.name} is a parameter of {name}, which anybody may call")
    if any(last_name(one) != "classmethod" for one in function.decorator_list):
        raise CannotTell(f"{needed.name} is a parameter of {function.name}, which is decorated")
    _refuse_others(project, module, function)
    home = module.class_of(function)
    references = _by_name(module, function) if home is None else _by_attribute(module, function)
    calls = [(function, _called(module, node)) for node in references]
    if not calls:
        raise CannotTell(f"{needed.name} is a parameter of {function.name}, which nobody calls")
    return calls


def _by_name(module: Module, function: Function) -> Iterator[ast.expr]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and node.id == function.name:
            found = module.lookup(node.id, node)
            if found is not None and any(binding.node is function for binding in found[1]):
                yield node


def _by_attribute(module: Module, function: Function) -> Iterator[ast.expr]:
    """Any attribute of the method's name, but for that of a class with a method of its own."""
    for node in ast.walk(module.tree):
        if not (isinstance(node, ast.Attribute) and node.attr == function.name):
            continue
        around = module.within(node, ast.ClassDef)
        own = [] if around is None else module.bindings(around).get(function.name, [])
        is_self = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
        if not is_self or not own or any(binding.node is function for binding in own):
            yield node


def _refuse_others(project: Project, module: Module, function: Function) -> None:
    """Private as it is, another file may import a function, and a related class may call a method."""
    home = module.class_of(function)
    others = [] if home is None else family(project, module, home)
    for owner in project.loaded:
        if owner is module:
            continue
        if home is None:
            imports = (node for node in ast.walk(owner.tree) if isinstance(node, ast.ImportFrom))
            used = any(alias.name == function.name for node in imports for alias in node.names)
        else:
            related = (one for where, one in others if where is owner)
            nodes = (node for one in related for node in ast.walk(one))
            used = any(isinstance(node, ast.Attribute) and node.attr == function.name for node in nodes)
        if used:
            raise CannotTell(f"{function.name} is also used in {owner.shown}")


def _called(module: Module, node: ast.expr) -> ast.Call:
    above = module.parents[node]
    if isinstance(above, ast.Call) and above.func is node:
        return above
    raise CannotTell(f"{ast.unparse(node)} is handed on in line {node.lineno}, so its callers are not known")
