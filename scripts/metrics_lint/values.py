"""What an expression can be where it is used: the texts of a metric's name, the labels of a mapping.

Every way that the program may take is followed without regard to its order, so an answer holds whichever was
taken. Where that can't be said, :class:`CannotTell` says why.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

from .changes import changed_at
from .classes import family, is_made_of_fields
from .source import Binding, Function, Module, Project

_MOST = 64
"""Alternatives of one call; more are a program that nobody can check by eye either."""
_DEEPEST = 20

T = TypeVar("T")


class CannotTell(Exception):
    """The value is known only when the program runs."""


class NeedsCaller(Exception):
    """The value is a parameter of ``function``: its callers tell."""

    def __init__(self, module: Module, function: ast.AST, name: str) -> None:
        super().__init__(name)
        self.module, self.function, self.name = module, function, name


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One call of a function, through which its parameters are known."""

    function: Function
    call: ast.Call
    above: Frame | None

    def outermost(self) -> ast.Call:
        return self.call if self.above is None else self.above.outermost()


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where an expression stands."""

    module: Module
    frame: Frame | None = None
    depth: int = 0

    def deeper(self, module: Module | None = None) -> Place:
        """The place of what a name stands for; in another module no frame is known."""
        if self.depth >= _DEEPEST:
            raise CannotTell("the value refers to itself")
        same = module is None or module is self.module
        return Place(module or self.module, self.frame if same else None, self.depth + 1)


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A text and the constant that it is written in."""

    value: str
    node: ast.Constant
    module: Module


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """A label and where it is written: a keyword of a call, or an item of a dict literal.

    ``twice``: the call gives it in another argument too, which Python refuses.
    """

    name: str
    node: ast.keyword | ast.expr
    value: ast.expr
    module: Module
    inside: ast.Call | ast.Dict
    twice: bool = False


Labels = dict[str, Key]


class Values:
    """Evaluates expressions within a project. Raises CannotTell and NeedsCaller."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def texts(self, expression: ast.expr, place: Place) -> list[Text]:
        """The texts that an expression can be."""
        match expression:
            case ast.Constant(value=str(text)):
                return [Text(text, expression, place.module)]
            case ast.Name() | ast.Attribute():
                return self._named(expression, place, self.texts)
        return self._branches(expression, place, self.texts)

    def mappings(self, expression: ast.expr, place: Place) -> list[Labels]:
        """The labels that a mapping can have."""
        match expression:
            case ast.Dict():
                return self._literal(expression, place)
            case ast.BinOp(op=ast.BitOr(), left=left, right=right):
                return _merged([self.mappings(left, place), self.mappings(right, place)])
            case ast.Call(func=ast.Name(id="dict"), args=args) if len(args) < 2 and not self._is_bound("dict", place):
                first = [self.mappings(args[0], place)] if args else []
                return _merged([*first, self.keywords(expression, place)])
            case ast.Name():
                if (found := place.module.lookup(expression.id, expression)) is not None:
                    self._refuse_changed(place.module, expression.id, found[0])
                return self._named(expression, place, self.mappings)
            case ast.Attribute():
                self._refuse_changed(place.module, expression.attr, None)
                return self._named(expression, place, self.mappings)
        return self._branches(expression, place, self.mappings)

    def keywords(self, call: ast.Call, place: Place, without: Sequence[str] = ()) -> list[Labels]:
        """The keyword arguments of a call, ``**`` included, but for some names."""
        parts: list[list[Labels]] = []
        for keyword in call.keywords:
            if keyword.arg is None:
                parts.append(self.mappings(keyword.value, place))
            else:
                parts.append([{keyword.arg: Key(keyword.arg, keyword, keyword.value, place.module, call)}])
        return [{name: key for name, key in one.items() if name not in without} for one in _given(parts)]

    def _literal(self, literal: ast.Dict, place: Place) -> list[Labels]:
        parts: list[list[Labels]] = []
        for key, value in zip(literal.keys, literal.values, strict=True):
            if key is None:
                parts.append(self.mappings(value, place))
                continue
            texts = self.texts(key, place)
            parts.append([{text.value: Key(text.value, key, value, place.module, literal)} for text in texts])
        return _merged(parts)

    def _branches(self, expression: ast.expr, place: Place, evaluate: Callable[..., list[T]]) -> list[T]:
        match expression:
            case ast.IfExp(body=first, orelse=second):
                return _few([*evaluate(first, place), *evaluate(second, place)])
            case ast.BoolOp(op=ast.Or(), values=values):
                return _few([one for value in values for one in evaluate(value, place)])
            case ast.NamedExpr(value=value):
                return evaluate(value, place)
        raise CannotTell(f"{shown(expression)} is computed when the program runs")

    # --- what names stand for

    def _named(self, expression: ast.Name | ast.Attribute, place: Place, evaluate: Callable[..., list[T]]) -> list[T]:
        if isinstance(expression, ast.Attribute):
            return self._attribute(expression, place, evaluate)
        found = place.module.lookup(expression.id, expression)
        if found is None:
            raise CannotTell(f"{expression.id} is not defined in the file")
        scope, bindings = found
        values: list[T] = []
        for binding in bindings:
            if binding.kind == "import":
                values += self._imported(binding.target, place, evaluate)
            elif binding.kind == "parameter":
                assert isinstance(binding.node, ast.arg)
                values += self._argument(scope, binding.node, place, evaluate)
            else:
                values += evaluate(_value(expression.id, binding), place.deeper())
        return _few(values)

    def _argument(
        self, function: ast.AST, parameter: ast.arg, place: Place, evaluate: Callable[..., list[T]]
    ) -> list[T]:
        frame = place.frame
        while frame is not None and frame.function is not function:
            frame = frame.above
        if frame is None:
            raise NeedsCaller(place.module, function, parameter.arg)
        caller = Place(place.module, frame.above, place.depth + 1)
        arguments, call = frame.function.args, frame.call
        named = [*arguments.args, *arguments.kwonlyargs]
        if parameter is arguments.kwarg:
            if evaluate != self.mappings:
                raise CannotTell(f"{parameter.arg} is a mapping")
            found: list[T] = self.keywords(call, caller, [one.arg for one in named])  # type: ignore[assignment]
            return found
        return evaluate(*self._passed(frame, parameter, caller, place))

    def _passed(self, frame: Frame, parameter: ast.arg, caller: Place, place: Place) -> tuple[ast.expr, Place]:
        """The expression that a call gives for a parameter, or the parameter's default."""
        arguments, call = frame.function.args, frame.call
        if any(isinstance(one, ast.Starred) for one in call.args) or parameter is arguments.vararg:
            raise CannotTell(f"{parameter.arg} is given by a * argument")
        positional = [*arguments.posonlyargs, *arguments.args]
        if place.module.class_of(frame.function) is not None:
            positional = positional[1:]  # self, or the class
        if parameter in positional[: len(call.args)]:
            return call.args[positional.index(parameter)], caller
        for keyword in call.keywords:
            if keyword.arg == parameter.arg:
                return keyword.value, caller
        if any(keyword.arg is None for keyword in call.keywords):
            raise CannotTell(f"{parameter.arg} may be given by a ** argument")
        defaults = dict(zip([one.arg for one in positional[::-1]], arguments.defaults[::-1], strict=False))
        defaults |= {
            one.arg: value
            for one, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            if value is not None
        }
        if parameter.arg not in defaults:
            raise CannotTell(f"a caller gives no {parameter.arg}")
        return defaults[parameter.arg], caller

    def _attribute(self, expression: ast.Attribute, place: Place, evaluate: Callable[..., list[T]]) -> list[T]:
        owner = expression.value
        if isinstance(owner, ast.Name) and owner.id in {"self", "cls"}:
            function = place.module.within(expression, (ast.FunctionDef, ast.AsyncFunctionDef))
            home = None if function is None else place.module.within(function, ast.ClassDef)
            if isinstance(home, ast.ClassDef):
                return self._member(place.module, home, expression.attr, place, evaluate)
        target = dotted_name(expression, place.module)
        if target is not None:
            return self._imported(target, place, evaluate)
        if isinstance(owner, ast.Name) and (found := place.module.lookup(owner.id, owner)):
            nodes = [binding.node for binding in found[1]]
            if len(nodes) == 1 and isinstance(nodes[0], ast.ClassDef):
                return self._member(place.module, nodes[0], expression.attr, place, evaluate)
        raise CannotTell(f"{shown(expression)} is computed when the program runs")

    def _imported(self, target: str, place: Place, evaluate: Callable[..., list[T]]) -> list[T]:
        found = self._project.find(target)
        if found is None:
            raise CannotTell(f"{target} is not part of the project")
        module, rest = found
        name, _, member = rest.partition(".")
        bindings = module.bindings(module.tree).get(name, [])
        if not bindings or "." in member:
            raise CannotTell(f"{target} is not a constant of {module.shown}")
        if member and len(bindings) == 1 and isinstance(bindings[0].node, ast.ClassDef):
            return self._member(module, bindings[0].node, member, place, evaluate)
        if member:
            raise CannotTell(f"{target} is not a constant of a class")
        if evaluate == self.mappings:
            self._refuse_changed(module, name, module.tree)
        return _few([one for found in bindings for one in evaluate(_value(target, found), place.deeper(module))])

    def _member(
        self, module: Module, home: ast.ClassDef, name: str, place: Place, evaluate: Callable[..., list[T]]
    ) -> list[T]:
        """What a class, its bases and those derived from it give an attribute."""
        values: list[T] = []
        for owner, one in family(self._project, module, home):
            bound = owner.bindings(one).get(name, [])
            if bound and is_made_of_fields(one):
                raise CannotTell(f"{name} is a field of {one.name}: each object has its own")
            for binding in bound:
                values += evaluate(_value(name, binding), place.deeper(owner))
            for value in _assigned_to_self(owner, one, name):
                values += evaluate(value, place.deeper(owner))
            if evaluate == self.mappings:
                self._refuse_changed(owner, name, None)
        if not values:
            raise CannotTell(f"{home.name} does not say what {name} is")
        return _few(values)

    def _is_bound(self, name: str, place: Place) -> bool:
        return name in place.module.bindings(place.module.tree)

    def _refuse_changed(self, module: Module, name: str, scope: ast.AST | None) -> None:
        if (line := changed_at(module, name, scope)) is not None:
            raise CannotTell(f"{name} may be changed in line {line}")


def dotted_name(expression: ast.expr, module: Module) -> str | None:
    """The absolute dotted name of something imported; None for what is not imported."""
    if isinstance(expression, ast.Attribute):
        above = dotted_name(expression.value, module)
        return None if above is None else f"{above}.{expression.attr}"
    if isinstance(expression, ast.Name) and (found := module.lookup(expression.id, expression)):
        targets = {binding.target for binding in found[1] if binding.kind == "import"}
        return targets.pop() if len(targets) == 1 and len(found[1]) == 1 else None
    return None


def _value(name: str, binding: Binding) -> ast.expr:
    if binding.value is None:
        line = getattr(binding.node, "lineno", 0)
        raise CannotTell(f"{name} gets its value in line {line} when the program runs")
    return binding.value


def _merged(parts: Sequence[list[Labels]]) -> list[Labels]:
    """Every way to merge one mapping of each part, the later one winning."""
    return _few([{name: key for one in chosen for name, key in one.items()} for chosen in product(*parts)])


def _given(parts: Sequence[list[Labels]]) -> list[Labels]:
    """As merged, but a name that more than one part has is marked: arguments don't replace each other."""
    counted = [(chosen, Counter(name for one in chosen for name in one)) for chosen in product(*parts)]
    return _few(
        [
            {name: replace(key, twice=True) if count[name] > 1 else key for one in chosen for name, key in one.items()}
            for chosen, count in counted
        ]
    )


def _few(values: list[T]) -> list[T]:
    if len(values) > _MOST:
        raise CannotTell(f"there are more than {_MOST} ways to take")
    return values


def _assigned_to_self(module: Module, home: ast.ClassDef, name: str) -> Iterator[ast.expr]:
    """The values that methods give ``self.name``. Raises CannotTell for one that isn't written there."""
    for node in ast.walk(home):
        if not (isinstance(node, ast.Attribute) and node.attr == name and isinstance(node.ctx, ast.Store)):
            continue
        above = module.parents[node]
        if isinstance(above, ast.Assign | ast.AnnAssign) and node is not above.value and above.value is not None:
            yield above.value
        else:
            raise CannotTell(f"{name} gets its value in line {node.lineno} when the program runs")


def shown(expression: ast.expr) -> str:
    """An expression as it may stand in a message."""
    text = ast.unparse(expression)
    return text if len(text) <= 40 else f"{text[:37]}..."
