"""The layers of the code, read from its imports, and two rules about every file.

LAYERS below is the only place where the plan is written down. Imports inside functions and under TYPE_CHECKING count
too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import k2beam

LAYERS: tuple[tuple[str, ...], ...] = (
    # the ground: what everything may use
    (
        "k2beam.errors",
        "k2beam.model",
        "k2beam.jsonable",
        "k2beam.clock",
        "k2beam.arrays",
        "k2beam.signals",
        "k2beam.cache",
        "k2beam.moved",
        "k2beam.version",
    ),
    (
        "k2beam.config",
        "k2beam.coverage",
        "k2beam.schemas",
        "k2beam.references",
        "k2beam.topics",
        "k2beam.logs",
        "k2beam.flink",
    ),
    # what a message is, what a gap is, what is counted, and the servers of this machine
    ("k2beam.codec", "k2beam.sequence", "k2beam.metrics", "k2beam.stack"),
    ("k2beam.validation", "k2beam.archive", "k2beam.registry"),
    # what writes the tables; what keeps, proves and reads them, and what makes messages
    ("k2beam.lake",),
    ("k2beam.maintain", "k2beam.audit", "k2beam.query", "k2beam.csv", "k2beam.feeds", "k2beam.simulate"),
    ("k2beam.kafka",),
    ("k2beam.produce", "k2beam.exporter"),
    ("k2beam.report",),
    # Beam, and the jobs that are made of it
    ("transforms",),
    ("k2beam.job",),
    # what a user meets, and the old paths to it
    ("k2beam.demo", "k2beam.doctor", "k2beam.__init__", "k2beam.ingest", "k2beam.platform"),
    ("k2beam.cli", "k2beam.__main__"),
)
"""From the bottom up: a module imports its own package and the layers below, nothing above or beside it."""

BEAM_FROM = "transforms"
PYICEBERG_IN = ("k2beam.lake", "k2beam.maintain", "k2beam.audit", "k2beam.query", "k2beam.schemas")
SHARED_BY_TRANSFORMS = ("transforms.coders", "transforms.planned")

MAX_LINES = 500
SOURCE_SUFFIXES = {".py", ".sh"}
IGNORED = {".venv", ".git", "build", "dist", "warehouse", "__pycache__", ".hypothesis"}
WORKPLACE_PATH = re.compile(r"(?<![\w.$}/-])/" + "work/")


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """The dotted name and file of each module of the two packages under a folder."""
    for package in ("k2beam", "transforms"):
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)
            yield name, path


def imports(name: str, path: Path) -> Iterator[str]:
    """Every absolute name that a module imports; ``from a import b`` gives ``a.b``."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


def place(name: str) -> tuple[int, str] | None:
    """The number of a module's layer from the bottom, and its member there; None for a module that has none yet."""
    for number, members in enumerate(LAYERS):
        for member in members:
            if within(name, member):
                return number, member
    return None


def layer(name: str) -> int | None:
    """The number of a module's layer from the bottom; None for a module that has none yet."""
    found = place(name)
    return None if found is None else found[0]


def project_target(name: str) -> str | None:
    """The project's module that an imported name belongs to; None for somebody else's."""
    if within(name, "transforms"):
        return name
    if not within(name, "k2beam"):
        return None
    is_public = name == "k2beam" or name.removeprefix("k2beam.") in k2beam.__all__
    return "k2beam.__init__" if is_public else name


def breach(name: str, imported: str) -> str | None:
    """What is wrong with one import, or None."""
    number = layer(name)
    assert number is not None
    if within(imported, "apache_beam") and number < (layer(BEAM_FROM) or 0):
        return f"{name} imports {imported}: only {BEAM_FROM} and what is above it may import Beam"
    if within(imported, "pyiceberg") and not any(within(name, home) for home in PYICEBERG_IN):
        return f"{name} imports {imported}: only {', '.join(PYICEBERG_IN)} may import pyiceberg"
    target = project_target(imported)
    if target is None or within(target, "k2beam._schemas"):
        return None
    if name.startswith("transforms.") and target.startswith("transforms."):
        return _between_transforms(name, target)
    if (found := place(target)) is None:
        return f"{name} imports {target}, which has no layer: add it to LAYERS in tests/test_architecture.py"
    if found[0] == number and found != place(name):
        return f"{name} imports {target}, which is beside it"
    return f"{name} imports {target}, which is above it" if found[0] > number else None


def _between_transforms(name: str, target: str) -> str | None:
    if within(target, name) or any(within(target, shared) for shared in SHARED_BY_TRANSFORMS):
        return None
    return f"{name} imports {target}: transforms don't import each other, but for {', '.join(SHARED_BY_TRANSFORMS)}"


def breaches(root: Path) -> list[str]:
    """Every breach of the layers under a folder that holds k2beam/ and transforms/."""
    found: list[str] = []
    for name, path in modules(root):
        if layer(name) is None:
            found.append(f"{name} has no layer: add it to LAYERS in tests/test_architecture.py")
            continue
        found += [said for imported in imports(name, path) if (said := breach(name, imported))]
    return found


def text_files(root: Path) -> Iterator[tuple[Path, str]]:
    """Each text file that belongs to the project, with what it says."""
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if IGNORED.intersection(relative.parts) or any(
            part.endswith((".egg-info", "_cache")) for part in relative.parts
        ):
            continue
        if not path.is_file() or relative.parts[0] == ".hypothesis":
            continue
        try:
            yield relative, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def test_no_module_breaks_the_layers(repository: Path) -> None:
    assert len(list(modules(repository))) > 10
    assert breaches(repository) == []


def public_names(path: Path) -> Iterator[str]:
    """The classes, functions and constants that a module defines for others; what is done under a guard is not seen."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def shared_names(root: Path) -> dict[str, list[str]]:
    """The public names that more than one module defines. Commands have their words for names, and don't count."""
    found: dict[str, list[str]] = {}
    for module, path in modules(root):
        if not within(module, "k2beam.cli"):
            for name in public_names(path):
                found.setdefault(name, []).append(module)
    return {name: homes for name, homes in found.items() if len(homes) > 1}


def test_no_two_public_things_share_a_name(repository: Path) -> None:
    assert shared_names(repository) == {}


def test_a_shared_name_is_found(tmp_path: Path) -> None:
    for file in ("k2beam/lake/a.py", "k2beam/query/b.py"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("def rows(): ...\n_ROWS: int = 1\n", encoding="utf-8")
    assert shared_names(tmp_path) == {"rows": ["k2beam.lake.a", "k2beam.query.b"]}


def test_no_source_file_is_too_long(repository: Path) -> None:
    sizes = {
        str(path): len(text.splitlines()) for path, text in text_files(repository) if path.suffix in SOURCE_SUFFIXES
    }
    assert "run_local.sh" in sizes
    assert {name: lines for name, lines in sizes.items() if lines >= MAX_LINES} == {}


def test_no_text_names_a_workplace_path(repository: Path) -> None:
    assert [str(path) for path, text in text_files(repository) if WORKPLACE_PATH.search(text)] == []


def test_the_lock_files_name_no_index(repository: Path) -> None:
    locks = sorted((repository / "requirements").glob("*.txt"))
    assert [path.name for path in locks] == ["dev.txt", "run.txt", "test.txt"]
    for path in locks:
        text = path.read_text(encoding="utf-8")
        assert "--hash=sha256:" in text
        assert re.findall(r"--(?:extra-)?index-url|--find-links|--trusted-host|\w+://", text) == []


@pytest.mark.parametrize(
    ("file", "source", "said"),
    [
        ("k2beam/errors.py", "from k2beam.model import Gap", "k2beam.errors imports k2beam.model.Gap, which is beside"),
        ("k2beam/errors.py", "from k2beam import schemas", "k2beam.errors imports k2beam.schemas, which is above"),
        ("k2beam/query/a.py", "from k2beam.audit.report import AuditReport", "which is beside"),
        ("k2beam/lake/a.py", "from k2beam import Lake", "k2beam.lake.a imports k2beam.__init__, which is above"),
        ("k2beam/lake/a.py", "from k2beam import run_live", "k2beam.lake.a imports k2beam.__init__, which is above"),
        ("k2beam/lake/files.py", "import apache_beam as beam", "may import Beam"),
        ("k2beam/sequence/a.py", "def f():\n    from apache_beam import DoFn", "may import Beam"),
        ("k2beam/codec/frame.py", "from pyiceberg.schema import Schema", "may import pyiceberg"),
        ("transforms/a.py", "from transforms.b import B", "don't import each other"),
        ("transforms/a.py", "from . import b", "don't import each other"),
        ("transforms/a.py", "from k2beam.job.pipeline import build", "which is above"),
        ("k2beam/job/pipeline.py", "import k2beam.cli.main", "which is above"),
        ("k2beam/lake/commit.py", "from ..cli import main", "which is above"),
        ("k2beam/helpers.py", "", "k2beam.helpers has no layer"),
        ("k2beam/model.py", "from k2beam.helpers import x", "which has no layer"),
    ],
)
def test_a_breach_is_found(tmp_path: Path, file: str, source: str, said: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    assert [said in breach for breach in breaches(tmp_path)] == [True]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("k2beam/schemas.py", "from k2beam.errors import SchemaError\nimport json"),
        ("k2beam/lake/commit.py", "from k2beam.lake import files\nfrom pyiceberg.table import Table"),
        ("k2beam/lake/commit.py", "from . import files\nfrom .files import write\nfrom ..model import Gap"),
        ("k2beam/codec/__init__.py", "from .frame import read\nfrom k2beam.schemas import known"),
        ("transforms/a.py", "import apache_beam as beam\nfrom transforms.coders import BatchCoder"),
        ("k2beam/cli/ingest.py", "from k2beam import __version__\nfrom k2beam.job.pipeline import build"),
    ],
)
def test_what_is_allowed_is_not_a_breach(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source, encoding="utf-8")
    assert breaches(tmp_path) == []


@pytest.mark.parametrize(("text", "found"), [("see /{}/x", True), ("'/{}/x'", True), ("build/{}/x", False)])
def test_a_workplace_path_is_found(text: str, found: bool) -> None:
    assert bool(WORKPLACE_PATH.search(text.format("work"))) is found
