"""Compares every call of a metric with the registry, k2beam/metrics/registry.py, without running anything.

    python scripts/validate_metrics_labels.py            k2beam and transforms
    python scripts/validate_metrics_labels.py PATH...    these files and folders
    python scripts/validate_metrics_labels.py --fix      mend what can be mended in one way only

The rule: at each call the name is a literal and each label a keyword. A call is one of a handle's methods on what ends
in a name ``metrics`` or ``..._metrics``, on a call of that or of ``Metrics``; and on anything at all where the first
argument is a literal that begins with ``k2_``. Beam's class is written ``beam.metrics.Metrics``, or renamed.

Each finding is a line of standard output: file:line: metric: what is wrong. Exit codes: 0 clean, 1 findings, 2 usage.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

# Run as a script, its folder is on the path and the checkout is not.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from k2beam.metrics.registry import BY_NAME, STANDARD_LABELS

ROOT = Path(__file__).resolve().parent.parent
METHODS = {"increment": "counter", "gauge": "gauge", "histogram": "histogram", "remove_gauge": "gauge"}
"""The methods of a handle that take a metric, and the type that each is for."""
_DOES_SOMETHING = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
_HANDLE = re.compile(r"^Metrics$|(\b|_)metrics$")
_WRITE = "write name and labels at the call, as a literal and keywords: no constant, f-string, * or **, no method alone"
_SHARED = re.compile(r"^k2_|_total$")


@dataclass(frozen=True, eq=False)
class CallSite:
    """One use of a handle's method: a call, or the method alone; ``name`` is empty where it is no literal."""

    path: Path
    lines: range
    method: str
    name: str
    node: ast.Call | ast.Attribute


def call_sites(paths: Iterable[Path]) -> Iterator[CallSite]:
    """Every use of a handle's methods in some files and folders, in the order of the source. Raises SyntaxError."""
    files = {file.resolve() for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])}
    for path in sorted(files):
        nodes = list(ast.walk(ast.parse(path.read_bytes(), filename=str(path))))
        calls = {node.func: node for node in nodes if isinstance(node, ast.Call)}
        uses = [node for node in nodes if isinstance(node, ast.Attribute) and node.attr in METHODS]
        for use in sorted(uses, key=lambda node: (node.lineno, node.end_lineno, node.end_col_offset)):
            node = calls.get(use, use)
            first = node.args[0] if isinstance(node, ast.Call) and node.args else None
            name = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
            receiver = use.value.func if isinstance(use.value, ast.Call) else use.value
            if name.startswith("k2_") or _HANDLE.search(ast.unparse(receiver)):
                yield CallSite(path, range(node.lineno, (node.end_lineno or 0) + 1), use.attr, name, node)


def check(site: CallSite) -> tuple[list[str], list[tuple[ast.AST, str]]]:
    """What is wrong with a call; and where there is one remedy, the name or label and what it becomes ("": it goes)."""
    call, wanted, spec = site.node, METHODS[site.method], BY_NAME.get(site.name)
    if not isinstance(call, ast.Call):
        return [_WRITE], []
    if not call.args:
        return ["no metric is given; write its name as the first argument"], []
    if not site.name or any(isinstance(one, ast.Starred) for one in call.args) or not all(k.arg for k in call.keywords):
        return [_WRITE], []
    labels = {one.arg: one for one in call.keywords if one.arg}
    value = None if site.method == "remove_gauge" else labels.pop("value", None)
    problems = _argument_problems(site.method, len(call.args), value is not None)
    if spec is None:
        # What the names share does not make them alike.
        cores = {_SHARED.sub("", known): known for known in BY_NAME}
        near = [cores[core] for core in get_close_matches(_SHARED.sub("", site.name), cores, cutoff=0.85)]
        fits = [(BY_NAME[one].type, {*BY_NAME[one].labels}) for one in near] == [(wanted, {*labels})]
        problems += ["is not in k2beam.metrics.registry; add it there"]
        problems += [f"did you mean {' or '.join(near)}?"] if near else []
        return problems, [(call.args[0], near[0])] if fits else []
    if spec.type != wanted:
        method = next(method for method, kind in METHODS.items() if kind == spec.type)
        return [*problems, f"is a {spec.type}, not a {wanted}; call {method}"], []
    wrong, becomes = _check_labels([*labels], spec.labels)
    return [*problems, *wrong], [(labels[label], new) for label, new in becomes.items()]


def _argument_problems(method: str, given: int, value_by_name: bool) -> list[str]:
    """What Python itself would refuse."""
    most, takes = (1, "the name") if method == "remove_gauge" else (2, "name and value")
    if given > most:
        return [f"{given} positional arguments; {method} takes {takes} only"]
    if value_by_name and given == 2:
        return ["the value is given twice"]
    if not value_by_name and given == 1 and method in {"gauge", "histogram"}:
        return [f"no value is given; {method} needs one"]
    return []


def _check_labels(given: Sequence[str], expected: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """What is wrong with the labels of a call, and what labels become where that is clear."""
    missing = [label for label in expected if label not in given]
    standard = [label for label in given if label not in expected and label in STANDARD_LABELS]
    unknown = [label for label in given if label not in expected and label not in standard]
    like = {label: get_close_matches(label, missing, cutoff=0.7) for label in unknown}
    near = [one for found in like.values() for one in found]
    becomes = {label: found[0] for label, found in like.items() if len(found) == 1 and near.count(found[0]) == 1}
    # While a label is missing, an unknown one may be that label under another name.
    gone = standard if len(becomes) < len(missing) else [*standard, *unknown]
    problems = [f"missing label(s) {', '.join(missing)}"] if missing else []
    problems += [f"unknown label(s) {', '.join(unknown)}"] if unknown else []
    problems += [f"standard label(s) {', '.join(standard)}, which the handle adds"] if standard else []
    problems += [f"did you mean {' or '.join(dict.fromkeys(near))}?"] if near else []
    return problems, dict.fromkeys(gone, "") | becomes


def mend(path: Path) -> bool:
    """Make every edit that has no other remedy; says whether there was any."""
    source = path.read_bytes()
    found = [_edit(source, site.node, *remedy) for site in call_sites([path]) for remedy in check(site)[1]]
    # From the end, so that the places of those before stay right.
    for start, end, text in sorted(filter(None, found), reverse=True):
        source = source[:start] + text.encode() + source[end:]
    if any(found):
        path.write_bytes(source)
    return any(found)


def _edit(source: bytes, call: ast.expr, item: ast.AST, becomes: str) -> tuple[int, int, str] | None:
    """Where to put what; None where more may be meant: by a text in parts, a comment, a value that does something."""
    start, end = _span(source, item)
    if isinstance(item, ast.Constant):
        return (start + 1, end - 1, becomes) if source[start + 1 : end - 1].decode() == item.value else None
    assert isinstance(item, ast.keyword)
    if becomes:
        return start, start + len((item.arg or "").encode()), becomes
    # A label goes from the end of the argument before it, so that the commas stay right.
    parts = [*ast.iter_child_nodes(call)]
    before = _span(source, parts[parts.index(item) - 1])[1]
    does_something = any(isinstance(node, _DOES_SOMETHING) for node in ast.walk(item.value))
    has_comment = b"#" in source[start:end] or re.match(rb"[ \t]*,?[ \t]*#", source[end:])
    only_a_comma = re.fullmatch(rb"\s*,\s*", source[before:start])
    return (before, end, "") if only_a_comma and not has_comment and not does_something else None


def _span(source: bytes, node: Any) -> tuple[int, int]:
    """Where a node begins and ends: the parser counts bytes of UTF-8 within a line."""
    starts = [0, *(found.end() for found in re.finditer(rb"\r\n?|\n", source))]
    return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files and folders (default: the code)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="say what is wrong, change nothing (the default)")
    mode.add_argument("--fix", action="store_true", help="mend the unambiguous cases, then say what is left")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout with the code, that paths are shown from")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    paths: list[Path] = options.paths or [root / "k2beam", root / "transforms"]
    for path in paths:
        if not path.is_dir() and not (path.suffix == ".py" and path.exists()):
            parser.error(f"there is no folder and no Python file {path}")
    findings = []
    try:
        mended = sum(map(mend, dict.fromkeys(site.path for site in call_sites(paths)))) if options.fix else 0
        for site in call_sites(paths):
            if problems := check(site)[0]:
                shown = site.path.relative_to(root) if site.path.is_relative_to(root) else site.path
                findings.append(f"{shown}:{site.lines.start}: {site.name or site.method}: {', '.join(problems)}")
    except SyntaxError as error:
        parser.error(f"{error.filename}:{error.lineno}: this is not Python: {error.msg}")
    sys.stdout.writelines(f"{finding}\n" for finding in findings)
    if mended:
        print(f"{mended} file(s) mended", file=sys.stderr)
    if findings:
        print(f"{len(findings)} finding(s)", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
