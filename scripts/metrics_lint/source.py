"""Source files as syntax trees, and what a name is bound to where it is used."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

Function = ast.FunctionDef | ast.AsyncFunctionDef
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_SCOPES = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, *_COMPREHENSIONS)
_COVERED = re.compile(r"#\s*metrics: covered by (\S+)")


@dataclass(frozen=True, slots=True, eq=False)
class Binding:
    """One way in which a name gets its value; ``target`` is the dotted name of what is imported."""

    kind: Literal["value", "parameter", "import", "definition", "other"]
    node: ast.AST
    value: ast.expr | None = None
    target: str = ""


class Module:
    """A parsed file. Raises SyntaxError where it is no Python source in UTF-8."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path = path
        self.shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
        # Line ends are kept as they are, so that an edit changes nothing else.
        try:
            with path.open(encoding="utf-8", newline="") as file:
                self.text = file.read()
        except UnicodeDecodeError as error:
            raise SyntaxError(f"not UTF-8: {error}", (str(path), 1, 1, "")) from error
        self.tree = ast.parse(self.text, filename=str(path))
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}
        parts = path.relative_to(root).with_suffix("").parts if path.is_relative_to(root) else (path.stem,)
        self.package = list(parts[:-1])
        self._bindings: dict[ast.AST, dict[str, list[Binding]]] = {}

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        while (above := self.parents.get(node)) is not None:
            yield above
            node = above

    def within(self, node: ast.AST, kinds: type[ast.AST] | tuple[type[ast.AST], ...]) -> ast.AST | None:
        """The nearest node of some kinds around a node."""
        return next((above for above in self.ancestors(node) if isinstance(above, kinds)), None)

    def class_of(self, function: ast.AST) -> ast.ClassDef | None:
        """The class in whose body a function stands."""
        above = self.parents.get(function)
        return above if isinstance(above, ast.ClassDef) else None

    def lookup(self, name: str, at: ast.AST) -> tuple[ast.AST, list[Binding]] | None:
        """The scope that a name belongs to, seen from a node, and all its bindings there."""
        nearest = True
        for scope in self.ancestors(at):
            if not isinstance(scope, _SCOPES):
                continue
            # The names of a class body are seen in the body itself only, not in its methods.
            if (nearest or not isinstance(scope, ast.ClassDef)) and (found := self.bindings(scope).get(name)):
                return scope, found
            nearest = False
        return None

    def bindings(self, scope: ast.AST) -> dict[str, list[Binding]]:
        """What each name of a scope is bound to there, in the order of the source."""
        if scope not in self._bindings:
            found: dict[str, list[Binding]] = {}
            for name, binding in self._bound_in(scope):
                found.setdefault(name, []).append(binding)
            self._bindings[scope] = found
        return self._bindings[scope]

    def _bound_in(self, scope: ast.AST) -> Iterator[tuple[str, Binding]]:
        if isinstance(scope, Function | ast.Lambda):
            yield from ((arg.arg, Binding("parameter", arg)) for arg in _parameters(scope.args))
        nodes = list(_own_nodes(scope))
        outer = [node for node in nodes if isinstance(node, ast.Global | ast.Nonlocal)]
        elsewhere = {name for node in outer for name in node.names}
        for node in nodes:
            yield from ((name, found) for name, found in self._bound_by(node) if name not in elsewhere)
        # A function inside that declares the name its own business may give it any value.
        wanted = ast.Global if isinstance(scope, ast.Module) else ast.Nonlocal
        for inner in ast.walk(scope):
            if isinstance(inner, wanted) and inner not in outer:
                yield from ((name, Binding("other", inner)) for name in inner.names)

    def _bound_by(self, node: ast.AST) -> Iterator[tuple[str, Binding]]:
        match node:
            case ast.Assign():
                for target in node.targets:
                    yield from _bound_to(target, node.value)
            case ast.AnnAssign(value=ast.expr()) | ast.NamedExpr():
                yield from _bound_to(node.target, node.value)
            case ast.AugAssign():
                yield from _bound_to(node.target, None)
            case ast.For() | ast.AsyncFor() | ast.comprehension():
                items = node.iter.elts if isinstance(node.iter, ast.Tuple | ast.List | ast.Set) else [None]
                for item in items:
                    yield from _bound_to(node.target, item)
            case ast.withitem(optional_vars=ast.expr() as target):
                yield from _bound_to(target, None)
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
                | ast.MatchMapping(rest=str(name))
            ):
                yield name, Binding("other", node)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, Binding("definition", node)
            case ast.Import() | ast.ImportFrom():
                yield from self._imported_by(node)

    def _imported_by(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, Binding]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                target = alias.name if alias.asname else alias.name.partition(".")[0]
                yield alias.asname or target, Binding("import", node, target=target)
            return
        above = self.package[: len(self.package) - node.level + 1] if node.level else []
        for alias in node.names:
            target = ".".join([*above, *([node.module] if node.module else []), alias.name])
            yield alias.asname or alias.name, Binding("import", node, target=target)

    @cached_property
    def covering_tests(self) -> dict[int, str]:
        """By line: the test that a comment ``metrics: covered by PATH::NAME`` names."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text, newline="").readline)
        comments = (token for token in tokens if token.type == tokenize.COMMENT)
        return {token.start[0]: found[1] for token in comments if (found := _COVERED.match(token.string))}


class Project:
    """The modules under a folder, parsed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._modules: dict[Path, Module] = {}

    def load(self, path: Path) -> Module:
        if path not in self._modules:
            self._modules[path] = Module(path, self.root)
        return self._modules[path]

    @property
    def loaded(self) -> tuple[Module, ...]:
        return tuple(self._modules.values())

    def module(self, dotted: str) -> Module | None:
        """A module by its dotted name; None for somebody else's."""
        base = self.root.joinpath(*dotted.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return self.load(path)
        return None

    def find(self, dotted: str) -> tuple[Module, str] | None:
        """The module of a dotted name and what of the name is left; imports of imports are followed."""
        parts = dotted.split(".")
        for cut in range(len(parts), 0, -1):
            module = self.module(".".join(parts[:cut]))
            if module is None:
                continue
            rest = parts[cut:]
            bound = module.bindings(module.tree).get(rest[0], []) if rest else []
            if len(bound) == 1 and bound[0].kind == "import" and bound[0].target != dotted:
                return self.find(".".join([bound[0].target, *rest[1:]]))
            return module, ".".join(rest)
        return None


def _bound_to(target: ast.expr, value: ast.expr | None) -> Iterator[tuple[str, Binding]]:
    """The names of a target; ``value`` None where it is not known."""
    if isinstance(target, ast.Name):
        known = value is not None and not isinstance(value, ast.Starred)
        yield target.id, Binding("value" if known else "other", target, value if known else None)
    elif isinstance(target, ast.Tuple | ast.List):
        values: list[ast.expr | None] = [None] * len(target.elts)
        if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts):
            starred = any(isinstance(item, ast.Starred) for item in (*value.elts, *target.elts))
            values = values if starred else [*value.elts]
        for part, item in zip(target.elts, values, strict=True):
            yield from _bound_to(part, item)
    elif isinstance(target, ast.Starred):
        yield from _bound_to(target.value, None)


def _parameters(arguments: ast.arguments) -> list[ast.arg]:
    optional = [arg for arg in (arguments.vararg, arguments.kwarg) if arg is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *optional]


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope without those of the scopes in it; a walrus in a comprehension belongs outside."""
    todo = list(ast.iter_child_nodes(scope))[::-1]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, _COMPREHENSIONS):
            todo += [inner for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr)]
        elif not isinstance(node, _SCOPES):
            todo += list(ast.iter_child_nodes(node))[::-1]
