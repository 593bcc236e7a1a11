"""Compares every call of a metric with the registry, k2beam/metrics/registry.py, without running anything.

    python scripts/validate_metrics_labels.py            k2beam and transforms
    python scripts/validate_metrics_labels.py PATH...    these files and folders
    python scripts/validate_metrics_labels.py --fix      mend what can be mended in one way only

Names and labels are followed through constants, dict literals, ``**`` and merges, conditional expressions and private
helpers; handles through annotations, what functions return and ``MetricsConfig.open``. Where they are known only when
the program runs, the finding says "cannot tell"; it is accepted where a comment on the call's lines names the test that
drives it: ``# metrics: covered by tests/unit/test_x.py::test_name``.

Each finding is a line of standard output: file:line: metric: what is wrong. Exit codes: 0 clean, 1 findings, 2 usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# Run as a script, its folder is on the path and the checkout is not.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from k2beam.metrics.registry import BY_NAME
from scripts.metrics_lint.calls import call_sites, python_files
from scripts.metrics_lint.check import Checker, Report
from scripts.metrics_lint.fix import mended
from scripts.metrics_lint.source import Project

ROOT = Path(__file__).resolve().parent.parent
_FOLDERS = ("k2beam", "transforms")
_ROUNDS = 10


def lint(paths: Sequence[Path], root: Path = ROOT, fix: bool = False) -> tuple[Report, int]:
    """The findings in some files, and how many files were mended first.

    ``root``: where imports of the project and named tests are looked for. Raises SyntaxError.
    """
    files = python_files(paths)
    changed: set[Path] = set()
    for _ in range(_ROUNDS):
        project = Project(root)
        sites = call_sites(project, files)
        report = Checker(project, BY_NAME).check(sites)
        texts = mended(report, sites) if fix else {}
        if not texts:
            break
        for module, text in texts.items():
            with module.path.open("w", encoding="utf-8", newline="") as file:
                file.write(text)
            changed.add(module.path)
    return report, len(changed)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files and folders (default: the code)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="say what is wrong, change nothing (the default)")
    mode.add_argument("--fix", action="store_true", help="mend the unambiguous cases, then say what is left")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout that imports and tests belong to")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    paths: list[Path] = options.paths or [root / folder for folder in _FOLDERS]
    for path in paths:
        if not path.is_dir() and path.suffix != ".py":
            parser.error(f"{path} is neither a folder nor a Python file")
        if not path.exists():
            parser.error(f"there is no {path}")
    try:
        report, changed = lint(paths, root, fix=options.fix)
    except SyntaxError as error:
        parser.error(f"{error.filename}:{error.lineno}: this is not Python: {error.msg}")
    for finding in report.findings:
        print(finding)
    if changed:
        print(f"{changed} file(s) mended", file=sys.stderr)
    if report.findings:
        print(f"{len(report.findings)} finding(s)", file=sys.stderr)
    return 1 if report.findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
