"""Whether a mapping may be changed after it was written down."""

from __future__ import annotations

import ast

from .source import Module

_READS = {"get", "items", "keys", "values", "copy"}
_CHANGES = {"update", "pop", "popitem", "setdefault", "clear", "__setitem__", "__delitem__", "__ior__"}


def changed_at(module: Module, name: str, scope: ast.AST | None) -> int | None:
    """The line in which a name of a scope, or with no scope an attribute of that name, may be changed.

    A name is safe only where all its uses are known to leave it alone; handing it to somebody is not. Of an
    attribute only the changes that are plain to see are found.
    """
    if scope is None:
        return _attribute_changed_at(module, name)
    return _name_changed_at(module, name, scope, set())


def _attribute_changed_at(module: Module, name: str) -> int | None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr == name and _is_changed(module, node):
            return node.lineno
    return None


def _is_changed(module: Module, node: ast.expr) -> bool:
    match module.parents.get(node):
        case ast.Subscript(ctx=ast.Store() | ast.Del(), value=value):
            return value is node
        case ast.Attribute(attr=method):
            return method in _CHANGES
        case ast.AugAssign(target=target):
            return target is node
    return False


def _name_changed_at(module: Module, name: str, scope: ast.AST, seen: set[tuple[str, ast.AST]]) -> int | None:
    if (name, scope) in seen:
        return None
    seen.add((name, scope))
    for node in ast.walk(scope):
        if not (isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)):
            continue
        found = module.lookup(name, node)
        if found is None or found[0] is not scope or _is_harmless(module, node):
            continue
        aliases = _aliases(module, node)
        if aliases is None:
            return node.lineno
        for alias in aliases:
            home = module.lookup(alias.id, alias)
            line = node.lineno if home is None else _name_changed_at(module, alias.id, home[0], seen)
            if line is not None:
                return line
    return None


def _is_harmless(module: Module, node: ast.expr) -> bool:
    match module.parents[node]:
        case (
            ast.keyword(arg=None)
            | ast.Compare()
            | ast.FormattedValue()
            | ast.BinOp(op=ast.BitOr())
            | ast.UnaryOp(op=ast.Not())
        ):
            return True
        case ast.Dict(keys=keys, values=values):
            return any(key is None and value is node for key, value in zip(keys, values, strict=True))
        case ast.Subscript(ctx=ast.Load(), value=value):
            return value is node
        case ast.Attribute(attr=method):
            return method in _READS
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            return test is node
        case ast.Call(func=ast.Name(id="dict"), args=[first]):
            return first is node
    return False


def _aliases(module: Module, node: ast.expr) -> list[ast.Name] | None:
    """The names that the same object gets here: none where it goes straight into a ``**``; None where it gets away."""
    while True:
        above = module.parents[node]
        match above:
            case ast.IfExp() | ast.BoolOp():
                if _is_harmless(module, above):
                    return []
                node = above
            case ast.Assign(targets=targets) if all(isinstance(target, ast.Name) for target in targets):
                return [target for target in targets if isinstance(target, ast.Name)]
            case ast.AnnAssign(target=ast.Name() as target):
                return [target]
            case _:
                return None
