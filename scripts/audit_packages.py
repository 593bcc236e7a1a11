"""Looks for known vulnerabilities in the locked packages, by pip-audit. One that is found fails the check.

What could not be looked up, for want of network or because an index has no such service, is told and no failure: a
build without the internet must not fail for that.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = "dev.txt"
SECONDS = 120


def main() -> int:
    """Look at the largest lock file, which holds the others. 0, or 1 where something was found."""
    folder = Path(__file__).resolve().parent.parent / "requirements"
    # --disable-pip: the hashes are there, so that nothing has to be resolved or installed.
    command = [
        *(sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"),
        *("--format", "json", "--requirement", str(folder / LOCK)),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        print(f"Note: no packages were looked up: no answer in {SECONDS} s")
        return 0
    try:
        report = json.loads(done.stdout)
    except ValueError:
        print(f"Note: no packages were looked up: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}")
        return 0
    lines, code = told(report)
    print("\n".join(lines))
    return code


def told(report: dict[str, Any]) -> tuple[list[str], int]:
    """What a report of pip-audit says, and 1 where a package has a known vulnerability."""
    packages = report["dependencies"]
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    found = [(one["name"], one["version"], each) for one in packages for each in one.get("vulns", ())]
    lines = [
        f"{name} {version}: {each['id']}, mended in {', '.join(each['fix_versions']) or 'no version yet'}"
        for name, version, each in found
    ]
    if skipped:
        lines.append(f"Note: {len(skipped)} of {len(packages)} packages could not be looked up")
    lines.append(f"{len(found)} known vulnerabilities in {len(packages) - len(skipped)} packages")
    return lines, 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
