"""Classes: which are related, and which have fields in place of constants."""

from __future__ import annotations

import ast

from .source import Module, Project


def family(project: Project, module: Module, home: ast.ClassDef) -> list[tuple[Module, ast.ClassDef]]:
    """A class, its bases and what derives from any of them, among the files read so far; found by their names."""
    found: list[tuple[Module, ast.ClassDef]] = []
    todo = [(module, home)]
    classes = [
        (owner, node) for owner in project.loaded for node in ast.walk(owner.tree) if isinstance(node, ast.ClassDef)
    ]
    while todo:
        owner, one = todo.pop()
        if any(one is known for _, known in found):
            continue
        found.append((owner, one))
        bases = {last_name(base) for base in one.bases}
        todo += [(where, node) for where, node in classes if node.name in bases]
        todo += [(where, node) for where, node in classes if one.name in map(last_name, node.bases)]
    return found


def is_made_of_fields(home: ast.ClassDef) -> bool:
    """Whether what the body assigns are defaults of fields, or members of an enumeration."""
    named = [last_name(base) for base in home.bases]
    decorated = [last_name(one.func if isinstance(one, ast.Call) else one) for one in home.decorator_list]
    return "dataclass" in decorated or any(name in {"NamedTuple", "TypedDict"} or "Enum" in name for name in named)


def last_name(expression: ast.expr) -> str:
    """The last part of a dotted name; nothing for another expression."""
    if isinstance(expression, ast.Attribute):
        return expression.attr
    return expression.id if isinstance(expression, ast.Name) else ""
