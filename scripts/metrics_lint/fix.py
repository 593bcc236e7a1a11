"""Mends calls of metrics in the source, where there is one way to mend them; all other text stays as it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .calls import CallSite
from .check import Change, Report
from .source import Module
from .values import Key, Text

_BLANK = re.compile(r"(?:[ \t\r\n\f]|\\\r?\n|#[^\n]*)*")
_PURE = {"str", "repr", "len", "int", "float", "bool", "min", "max"}


@dataclass(frozen=True, slots=True)
class Edit:
    """The characters from ``start`` to ``end`` become ``text``."""

    start: int
    end: int
    text: str


def mended(report: Report, sites: Iterable[CallSite]) -> dict[Module, str]:
    """The new text of each file that can be mended.

    A place is changed only where all calls that use it want the same of it, and a constant or a mapping only where
    nothing but calls of metrics uses it: a public one of the module may be used anywhere. Only the files of the call
    sites are changed.
    """
    calls = {site.call for site in sites if site.call is not None}
    modules = {site.module for site in sites}
    edits: dict[Module, list[Edit]] = {}
    for changes in report.wishes.values():
        if len({change.becomes for change in changes}) != 1:
            continue
        module = changes[0].item.module
        edit = _edit(changes[0], calls) if module in modules else None
        if edit is not None:
            edits.setdefault(module, []).append(edit)
    return {module: _applied(module, found) for module, found in edits.items()}


def _edit(change: Change, calls: set[ast.Call]) -> Edit | None:
    item, becomes = change.item, change.becomes
    module = item.module
    if becomes == (item.value if isinstance(item, Text) else item.name):
        return None
    source = _Source(module)
    if isinstance(item, Text):
        if becomes is None or not _is_for_metrics(module, item.node, calls):
            return None
        return source.retext(item.node, becomes)
    if isinstance(item.inside, ast.Dict) and not _is_for_metrics(module, item.inside, calls):
        return None
    if becomes is None:
        return source.without(item) if _is_pure(item.value) else None
    if isinstance(item.node, ast.keyword):
        start = source.start(item.node)
        return Edit(start, start + len(item.name), becomes)
    return source.retext(item.node, becomes) if isinstance(item.node, ast.Constant) else None


def _applied(module: Module, edits: list[Edit]) -> str:
    """The text with the edits made; those that touch another wait for the next round."""
    text, after = module.text, len(module.text) + 1
    for edit in sorted(edits, key=lambda one: (one.start, one.end), reverse=True):
        if edit.end < after:
            text = text[: edit.start] + edit.text + text[edit.end :]
            after = edit.start
    ast.parse(text, filename=str(module.path))
    return text


def _is_for_metrics(module: Module, written: ast.expr, calls: set[ast.Call]) -> bool:
    """Whether a name or a dict is written in a call, or bound to a name of its own that only calls of metrics use."""
    node = _whole(module, written)
    match module.parents[node]:
        case ast.Call() as call:
            return call in calls or isinstance(written, ast.Constant)
        case ast.keyword() as keyword:
            return module.parents[keyword] in calls or isinstance(written, ast.Constant)
        case ast.Assign(targets=[ast.Name() as target]) | ast.AnnAssign(target=ast.Name() as target):
            return _only_metrics_use(module, target, target.id, calls)
        case ast.Tuple() | ast.List() | ast.Set() as items:
            above = module.parents[items]
            if isinstance(above, ast.For | ast.AsyncFor | ast.comprehension) and isinstance(above.target, ast.Name):
                return _only_metrics_use(module, above.target, above.target.id, calls)
        case ast.arguments() as arguments:
            return _only_metrics_use(module, node, _with_default(arguments, node), calls)
    return False


def _only_metrics_use(module: Module, at: ast.AST, name: str, calls: set[ast.Call]) -> bool:
    """Whether a name is used as a metric's name or labels and as nothing else; anybody may use a public one."""
    found = module.lookup(name, at)
    if found is None or isinstance(found[0], ast.ClassDef):
        return False
    if isinstance(found[0], ast.Module) and not name.startswith("_"):
        return False
    uses = [
        node
        for node in ast.walk(found[0])
        if isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Store)
    ]
    return all(_goes_into_a_call(module, node, calls) for node in uses)


def _goes_into_a_call(module: Module, use: ast.expr, calls: set[ast.Call]) -> bool:
    """Whether a name is what gives a call its metric, or its labels by ``**``; not where it is only inside the call."""
    node = _whole(module, use)
    above = module.parents[node]
    if isinstance(above, ast.keyword):
        return above.arg is None and module.parents[above] in calls
    return isinstance(above, ast.Call) and above in calls and above.args[:1] == [node]


def _whole(module: Module, node: ast.expr) -> ast.expr:
    """The largest expression that a value is handed through as it is, or merged into."""
    while True:
        match module.parents[node]:
            case ast.IfExp(test=test) as above if test is not node:
                node = above
            case ast.Dict(keys=keys, values=values) as above if (None, node) in zip(keys, values, strict=True):
                node = above
            case ast.BoolOp() | ast.BinOp(op=ast.BitOr()) | ast.Call(func=ast.Name(id="dict")) as above:
                node = above
            case _:
                return node


def _with_default(arguments: ast.arguments, default: ast.expr) -> str:
    """The parameter that a default belongs to."""
    positional = [*arguments.posonlyargs, *arguments.args][::-1]
    named = [
        *zip(positional, arguments.defaults[::-1], strict=False),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return next(parameter.arg for parameter, value in named if value is default)


def _is_pure(value: ast.expr) -> bool:
    """Whether leaving a value out changes nothing else."""
    for node in ast.walk(value):
        if isinstance(node, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in _PURE):
            return False
    return True


class _Source:
    """Finds the characters of nodes: the parser counts bytes of UTF-8 within a line."""

    def __init__(self, module: Module) -> None:
        self._text = module.text
        self._lines = module.text.split("\n")
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line) + 1)

    def start(self, node: ast.keyword | ast.expr) -> int:
        return self._at(node.lineno, node.col_offset)

    def end(self, node: ast.keyword | ast.expr) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._at(node.end_lineno, node.end_col_offset)

    def _at(self, line: int, column: int) -> int:
        before = self._lines[line - 1].encode()[:column].decode()
        return self._starts[line - 1] + len(before)

    def retext(self, node: ast.Constant, text: str) -> Edit | None:
        """Another text between the same quotes; None for a constant that is written in another way."""
        start, end = self.start(node), self.end(node)
        written = self._text[start:end]
        if written[1:-1] != node.value or written[0] not in "\"'":
            return None
        return Edit(start + 1, end - 1, text)

    def without(self, key: Key) -> Edit | None:
        """Leave a label out with its comma, and its line where it has one of its own; None where a comment is near."""
        start, end = self.start(key.node), self._end_of_item(key)
        after = self._skip(end)
        if self._text[after] == ",":
            return self._whole_line(start, end, after + 1)
        before = self._text[:start].rstrip()
        if not before.endswith((",", "(", "{")) or "#" in self._text[end:after]:
            return None
        # The last one, without a comma: the comma before it goes.
        cut = len(before) - 1 if before.endswith(",") else len(before)
        return Edit(cut, end, "")

    def _end_of_item(self, key: Key) -> int:
        end = self.end(key.node if isinstance(key.node, ast.keyword) else key.value)
        while isinstance(key.inside, ast.Dict) and self._text[(after := self._skip(end))] == ")":
            end = after + 1
        return end

    def _skip(self, at: int) -> int:
        found = _BLANK.match(self._text, at)
        assert found is not None
        return found.end()

    def _whole_line(self, start: int, end: int, after: int) -> Edit | None:
        line_start = self._text.rfind("\n", 0, start) + 1
        line_end = self._text.find("\n", after)
        if line_end < 0:
            line_end = len(self._text)
        rest = self._text[after:line_end]
        if "#" in self._text[end:after] or rest.lstrip().startswith("#"):
            return None
        is_first = self._text[line_start:start].strip() == ""
        if is_first and rest.strip() == "":
            return Edit(line_start, min(line_end + 1, len(self._text)), "")
        if rest.strip() == "" or (not is_first and rest.lstrip().startswith((")", "}"))):
            # The last of its line: what stands before it keeps its own comma.
            return Edit(len(self._text[:start].rstrip(" \t")), after, "")
        return Edit(start, after + len(rest) - len(rest.lstrip()), "")
