"""What kind of thing an expression is, as far as the source tells: to know a handle of metrics when one is called."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from .classes import last_name
from .source import Binding, Function, Module, Project
from .values import dotted_name

_HANDLE = "k2beam.metrics.handle.Metrics"
_DEEPEST = 12
_ANYTHING = {"Any", "object", "TypeVar", "Protocol", "Self"}
_HOLDS = {"values", "items", "get", "pop", "setdefault", "copy"}
_TRANSPARENT = {
    "abstractmethod",
    "cache",
    "cached_property",
    "classmethod",
    "contextmanager",
    "lru_cache",
    "override",
    "property",
    "staticmethod",
}
_PROPERTIES = {"property", "cached_property"}


class Verdict(Enum):
    """Whether something is a handle of k2beam.metrics.handle."""

    HANDLE = "an object of the handle's class"
    CLASS = "the handle's class itself"
    OTHER = "something else for certain"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class _Thing:
    """One thing that an expression may be.

    ``name``: dotted, of the class or of what is imported. ``module`` and ``node``: the definition, within the project.
    A container counts as what it holds: nothing but a handle is looked for, and none is a container.
    """

    kind: Literal["object", "class", "function", "foreign", "unknown"]
    name: str = ""
    module: Module | None = None
    node: ast.AST | None = None


_Things = frozenset[_Thing]
_UNKNOWN: _Things = frozenset({_Thing("unknown")})
_NOTHING: _Things = frozenset()
_A_HANDLE: _Things = frozenset({_Thing("object", _HANDLE)})


class Receivers:
    """Tells what methods are called on. All that an expression may be is followed; a handle among it decides."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._asked: set[tuple[ast.AST, str]] = set()

    def verdict(self, expression: ast.expr, module: Module, method: str = "") -> Verdict:
        """What an expression is. A class that has no ``method``, where one is named, may get it from a handle."""
        things = self._things(expression, module, 0)
        ours = {thing.kind for thing in things if self._is_ours(thing, 0)}
        if "object" in ours:
            return Verdict.HANDLE
        if ours:
            return Verdict.CLASS
        known = bool(things) and all(thing.kind not in {"unknown", "function"} for thing in things)
        lacking = [thing for thing in things if method and thing.module and self._member(thing, method, 0) == _UNKNOWN]
        return Verdict.OTHER if known and not lacking else Verdict.UNKNOWN

    def _is_ours(self, thing: _Thing, depth: int) -> bool:
        """Whether the class of a thing is the handle's, or derives from it."""
        if thing.name == _HANDLE:
            return True
        if not isinstance(thing.node, ast.ClassDef) or depth > _DEEPEST:
            return False
        return any(self._is_ours(base, depth + 1) for base in self._bases(thing, depth))

    def _bases(self, thing: _Thing, depth: int) -> Iterator[_Thing]:
        if thing.module is not None and isinstance(thing.node, ast.ClassDef):
            for base in thing.node.bases:
                yield from self._things(base, thing.module, depth + 1)

    # --- expressions

    def _things(self, expression: ast.expr, module: Module, depth: int) -> _Things:
        if depth > _DEEPEST:
            return _UNKNOWN
        match expression:
            case ast.Constant(value=value):
                return _NOTHING if value is None else frozenset({_Thing("object", f"builtins.{type(value).__name__}")})
            case ast.Lambda():
                return frozenset({_Thing("function", "lambda", module, expression)})
            case ast.Name() | ast.Attribute():
                named = _A_HANDLE if _is_named_so(expression) and not self._is_foreign(expression, module) else _NOTHING
                return named | self._referred(expression, module, depth + 1)
            case ast.Call():
                return self._result(expression, module, depth + 1)
        if (branches := _branches(expression)) is not None:
            return self._all(branches, module, depth + 1)
        # What else a container may be given later isn't known.
        return self._all(_items(expression), module, depth + 1) | _UNKNOWN

    def _all(self, expressions: Iterable[ast.expr], module: Module, depth: int) -> _Things:
        return frozenset(thing for one in expressions for thing in self._things(one, module, depth))

    def _is_foreign(self, expression: ast.expr, module: Module) -> bool:
        name = dotted_name(expression, module)
        return name is not None and self._project.find(name) is None

    # --- names

    def _referred(self, expression: ast.Name | ast.Attribute, module: Module, depth: int) -> _Things:
        dotted = dotted_name(expression, module)
        if dotted is not None:
            return self._imported(dotted, depth)
        if isinstance(expression, ast.Attribute):
            return self._members(expression.value, expression.attr, module, depth)
        found = module.lookup(expression.id, expression)
        # An annotation in quotes stands in no scope: its names are those of the file.
        scope, bindings = found or (module.tree, module.bindings(module.tree).get(expression.id, []))
        if not bindings:
            return frozenset({_Thing("foreign", f"builtins.{expression.id}")})
        return self._once(scope, expression.id, lambda: self._bound(scope, bindings, module, depth))

    def _once(self, scope: ast.AST, name: str, ask: Callable[[], _Things]) -> _Things:
        """What a name is, but for what refers to the name itself: that adds nothing."""
        if (scope, name) in self._asked:
            return _NOTHING
        self._asked.add((scope, name))
        try:
            return ask()
        finally:
            self._asked.remove((scope, name))

    def _bound(self, scope: ast.AST, bindings: Iterable[Binding], module: Module, depth: int) -> _Things:
        things = _NOTHING
        for binding in bindings:
            if binding.kind == "import":
                things |= self._imported(binding.target, depth)
            elif isinstance(binding.node, ast.arg):
                things |= self._parameter(scope, binding.node, module, depth)
            elif binding.kind == "definition":
                things |= _defined(module, binding.node)
            else:
                things |= self._assigned(binding.node, binding.value, module, depth)
        return things

    def _assigned(self, target: ast.AST, value: ast.expr | None, module: Module, depth: int) -> _Things:
        above = module.parents.get(target)
        things = self._annotated(above.annotation, module, depth) if isinstance(above, ast.AnnAssign) else _NOTHING
        if value is not None:
            return things | self._things(value, module, depth)
        if isinstance(above, ast.For | ast.AsyncFor | ast.comprehension):
            return things | self._things(above.iter, module, depth)
        if isinstance(above, ast.withitem):
            return things | self._things(above.context_expr, module, depth) | _UNKNOWN
        return things or _UNKNOWN

    def _parameter(self, function: ast.AST, parameter: ast.arg, module: Module, depth: int) -> _Things:
        if parameter.annotation is not None:
            return self._annotated(parameter.annotation, module, depth)
        home = module.class_of(function)
        if home is not None and isinstance(function, Function) and parameter in function.args.args[:1]:
            return frozenset({_Thing("object", _name_of(module, home), module, home)})
        return _UNKNOWN

    def _imported(self, dotted: str, depth: int) -> _Things:
        found = self._project.find(dotted)
        if found is None:
            return frozenset({_Thing("foreign", dotted)})
        module, rest = found
        name, _, member = rest.partition(".")
        things = _NOTHING
        for binding in module.bindings(module.tree).get(name, []):
            if binding.kind == "definition":
                things |= _defined(module, binding.node)
            elif binding.kind == "import":
                things |= _UNKNOWN
            else:
                things |= self._assigned(binding.node, binding.value, module, depth)
        if member:
            return frozenset(inner for thing in things for inner in self._member(thing, member, depth + 1))
        return things or _UNKNOWN

    # --- annotations

    def _annotated(self, annotation: ast.expr, module: Module, depth: int) -> _Things:
        """An object of each class that an annotation names."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            try:
                annotation = ast.parse(annotation.value, mode="eval").body
            except SyntaxError:  # a text in a Literal
                return _UNKNOWN
        return frozenset(self._object(thing, depth) for thing in self._named_in(annotation, module, depth))

    def _named_in(self, annotation: ast.expr, module: Module, depth: int) -> _Things:
        if isinstance(annotation, ast.Subscript):
            inside = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
            parts = [part for one in inside for part in (one.elts if isinstance(one, ast.List) else [one])]
            named = [self._named_in(part, module, depth) for part in [annotation.value, *parts]]
            return frozenset(thing for things in named for thing in things)
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            return self._annotated(annotation, module, depth + 1)
        if isinstance(annotation, ast.Name | ast.Attribute):
            # A class is known by what it is, not by its name.
            return self._referred(annotation, module, depth + 1)
        return self._things(annotation, module, depth + 1)

    def _object(self, thing: _Thing, depth: int) -> _Thing:
        last = thing.name.rpartition(".")[2]
        bases = [] if thing.kind != "class" else [base.name.rpartition(".")[2] for base in self._bases(thing, depth)]
        if thing.kind in {"unknown", "function"} or last in _ANYTHING or "Protocol" in bases:
            return _Thing("unknown")
        return _Thing("object", thing.name, thing.module, thing.node)

    # --- members and calls

    def _members(self, owner: ast.expr, name: str, module: Module, depth: int) -> _Things:
        things = self._things(owner, module, depth)
        return frozenset(inner for thing in things for inner in self._member(thing, name, depth))

    def _member(self, thing: _Thing, name: str, depth: int) -> _Things:
        """What an object or a class has under a name; it, its bases and what methods give ``self`` are looked at."""
        if depth > _DEEPEST:
            return _UNKNOWN
        if thing.kind == "foreign":
            return frozenset({_Thing("foreign", f"{thing.name}.{name}")})
        module, home = thing.module, thing.node
        if module is None or not isinstance(home, ast.ClassDef):
            return _UNKNOWN
        return self._once(home, f".{name}", lambda: self._own_or_inherited(thing, module, home, name, depth))

    def _own_or_inherited(self, thing: _Thing, module: Module, home: ast.ClassDef, name: str, depth: int) -> _Things:
        things = _NOTHING
        for node in ast.walk(home):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() if node.name == name and module.parents[node] is home:
                    is_property = any(last_name(one) in _PROPERTIES for one in node.decorator_list)
                    function = _Thing("function", name, module, node)
                    things |= self._returned(function, depth + 1) if is_property else frozenset({function})
                case ast.Assign(targets=targets, value=value) if any(_is_of_self(target, name) for target in targets):
                    things |= self._things(value, module, depth + 1)
                case ast.AnnAssign(target=target, annotation=annotation) if _is_of_self(target, name):
                    things |= self._annotated(annotation, module, depth + 1)
                    things |= _NOTHING if node.value is None else self._things(node.value, module, depth + 1)
        if not things:
            inherited = (self._member(base, name, depth + 1) for base in self._bases(thing, depth))
            things = frozenset(inner for found in inherited for inner in found if inner.kind != "foreign")
        return things or _UNKNOWN

    def _result(self, call: ast.Call, module: Module, depth: int) -> _Things:
        match call:
            case ast.Call(func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=str(name)), *_]):
                named = _A_HANDLE if "metrics" in name else _NOTHING
                return named | self._members(owner, name, module, depth) | _UNKNOWN
            case ast.Call(func=ast.Attribute(value=owner, attr=name)) if name in _HOLDS:
                held = frozenset(one for one in self._things(owner, module, depth) if self._is_ours(one, 0))
                if held:
                    return held
        things = self._things(call.func, module, depth)
        return frozenset(given for thing in things for given in self._called(thing, depth))

    def _called(self, thing: _Thing, depth: int) -> _Things:
        if thing.kind == "class":
            return frozenset({_Thing("object", thing.name, thing.module, thing.node)})
        if thing.kind == "function":
            return self._returned(thing, depth)
        if thing.kind == "foreign" and thing.name.rpartition(".")[2][:1].isupper():
            return frozenset({_Thing("object", thing.name)})
        # Of a Callable that gives handles, only the handle is known.
        return frozenset({thing}) if self._is_ours(thing, 0) else _UNKNOWN

    def _returned(self, thing: _Thing, depth: int) -> _Things:
        function, module = thing.node, thing.module
        if module is None or depth > _DEEPEST:
            return _UNKNOWN
        if isinstance(function, ast.Lambda):
            return self._things(function.body, module, depth + 1)
        if not isinstance(function, Function):
            return _UNKNOWN
        decorators = {last_name(one.func if isinstance(one, ast.Call) else one) for one in function.decorator_list}
        things = _NOTHING if decorators <= _TRANSPARENT else _UNKNOWN
        if function.returns is not None:
            return things | self._annotated(function.returns, module, depth + 1)
        nodes = [one for one in ast.walk(function) if module.within(one, _FUNCTIONS) is function]
        if any(isinstance(one, ast.Yield | ast.YieldFrom) for one in nodes):
            things |= _UNKNOWN
        given = [one.value for one in nodes if isinstance(one, ast.Return) and one.value is not None]
        return things | self._once(function, "()", lambda: self._all(given, module, depth + 1))


def _branches(expression: ast.expr) -> list[ast.expr] | None:
    """The expressions of which one or another is the value; None where something else is made of them."""
    match expression:
        case ast.IfExp(body=first, orelse=second) | ast.BinOp(op=ast.BitOr(), left=first, right=second):
            return [first, second]
        case ast.BoolOp(values=parts):
            return parts
        case ast.NamedExpr(value=value) | ast.Await(value=value) | ast.Starred(value=value):
            return [value]
        case ast.Subscript(value=value, slice=inside):
            return [value, inside]
    return None


def _items(expression: ast.expr) -> list[ast.expr]:
    """What a container holds from the start."""
    match expression:
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts) | ast.Dict(values=parts):
            return parts
        case ast.ListComp(elt=part) | ast.SetComp(elt=part) | ast.GeneratorExp(elt=part) | ast.DictComp(value=part):
            return [part]
    return []


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def _is_named_so(expression: ast.expr) -> bool:
    """By its last name, in small letters as no class has it."""
    return "metrics" in last_name(expression)


def _is_of_self(target: ast.expr, name: str) -> bool:
    """Whether a target is ``self.name``, or ``name`` in the body of a class."""
    if isinstance(target, ast.Attribute):
        return target.attr == name and isinstance(target.value, ast.Name) and target.value.id in {"self", "cls"}
    return isinstance(target, ast.Name) and target.id == name


def _defined(module: Module, node: ast.AST) -> _Things:
    if isinstance(node, ast.ClassDef):
        return frozenset({_Thing("class", _name_of(module, node), module, node)})
    return frozenset({_Thing("function", getattr(node, "name", ""), module, node)})


def _name_of(module: Module, home: ast.ClassDef) -> str:
    return ".".join([*module.package, *([] if module.path.stem == "__init__" else [module.path.stem]), home.name])
