"""The exceptions: all are in one file, and the drawing has each in its place."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import k2beam
from k2beam import errors
from k2beam.errors import mendable

ROOT = Path(k2beam.__file__).parent
LINE = re.compile(r"^((?:[ │]{4})*)[├└]── (\w+)\s")


def drawn() -> dict[str, str]:
    """The parent of each exception in the drawing."""
    found: dict[str, str] = {}
    above = ["K2BeamError"]
    for line in (errors.__doc__ or "").splitlines():
        if match := LINE.match(line.removeprefix("    ")):
            depth = len(match[1]) // 4
            above[depth + 1 :] = [match[2]]
            found[match[2]] = above[depth]
    return found


def defined() -> dict[str, list[str]]:
    """The modules of each exception in the code, private ones left out."""
    classes = [
        (node, ".".join(path.relative_to(ROOT.parent).with_suffix("").parts))
        for path in [*ROOT.rglob("*.py"), *(ROOT.parent / "transforms").glob("*.py")]
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    known = {"Exception", "BaseException"}
    while more := {node.name for node, _ in classes if bases(node) & known} - known:
        known |= more
    return {
        name: [module for node, module in classes if node.name == name] for name in known & {n.name for n, _ in classes}
    }


def bases(node: ast.ClassDef) -> set[str]:
    return {base.id for base in node.bases if isinstance(base, ast.Name)}


def test_all_exceptions_are_in_one_file() -> None:
    assert {name: modules for name, modules in defined().items() if modules != ["k2beam.errors"]} == {}
    assert len(defined()) > 30


def test_the_drawing_has_every_exception_under_its_parent() -> None:
    signals = {"K2BeamError", "NotReady", "Stopped"}
    assert drawn() == {name: getattr(errors, name).__base__.__name__ for name in defined().keys() - signals}


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ("OSError: [Errno 28] No space left on device", "[Errno 28] No space left on device"),
        ("PermissionError: [Errno 13] Permission denied: '/x: y'", "[Errno 13] Permission denied: '/x: y'"),
        ("k2beam.errors.CommitConflict: table t: tries used up", "table t: tries used up"),
        ("RuntimeError: LakeError: table t is gone [while running 'A/B'] [while running 'C']", "table t is gone"),
        ("TypeError: unsupported operand", None),
        ("RuntimeError: ValueError: x", None),
        ("KeyboardInterrupt", None),
    ],
)
def test_what_a_traceback_tells_of_what_is_no_defect(last: str, told: str | None) -> None:
    trace = 'Traceback (most recent call last):\n  File "x"\nLakeError: earlier\n\nTraceback (most recent call last):\n'
    assert mendable(f"{trace}{last}\n\n") == told
    assert mendable("") is None
