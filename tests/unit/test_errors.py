"""The exceptions: the drawing has all of them, in their places, and names the modules where they are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import k2beam
from k2beam import errors

ROOT = Path(k2beam.__file__).parent
LINE = re.compile(r"^((?:[ │]{4})*)[├└]── (\w+)\s+(?:\((k2beam[\w.]*)\))?")


def drawn() -> dict[str, tuple[str, str]]:
    """Parent and module of each exception in the drawing."""
    found: dict[str, tuple[str, str]] = {}
    above = ["K2BeamError"]
    for line in (errors.__doc__ or "").splitlines():
        if match := LINE.match(line.removeprefix("    ")):
            depth = len(match[1]) // 4
            above[depth + 1 :] = [match[2]]
            found[match[2]] = (above[depth], match[3] or "k2beam.errors")
    return found


def defined() -> dict[str, tuple[str, str]]:
    """Parent and module of each exception in the code, private ones left out."""
    bases = {
        node.name: (base.id, ".".join(path.relative_to(ROOT.parent).with_suffix("").parts))
        for path in [*ROOT.rglob("*.py"), *(ROOT.parent / "transforms").glob("*.py")]
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
        for base in node.bases[:1]
        if isinstance(base, ast.Name) and not node.name.startswith("_")
    }
    known = {"K2BeamError"}
    while more := {name for name, (base, _) in bases.items() if base in known} - known:
        known |= more
    return {name: bases[name] for name in known - {"K2BeamError"}}


def test_the_drawing_has_every_exception() -> None:
    assert drawn() == defined()
    assert len(drawn()) > 20
