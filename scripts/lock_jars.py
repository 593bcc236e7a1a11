"""Writes k2beam/stack/jars.lock from the poms in ops/maven, with the ``mvn`` on the PATH.

    python scripts/lock_jars.py            resolve every pom anew and write the lock file
    python scripts/lock_jars.py --check    only say whether the lock file is what the poms give; exit 1 if not
    python scripts/lock_jars.py --peers    the same for bench/peers/peers.lock and the poms in bench/peers/maven

Needed only where a pom changes: who uses the jars needs no Maven.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK, POMS = ROOT / "k2beam" / "stack" / "jars.lock", ROOT / "ops" / "maven"
PEERS_LOCK, PEERS_POMS = ROOT / "bench" / "peers" / "peers.lock", ROOT / "bench" / "peers" / "maven"
_HEAD = """\
# Made by scripts/lock_jars.py from {poms}/*.pom.xml. Do not edit.
# group  SHA-256  bytes  path in a Maven repository
"""
_SUFFIXES = (".jar", ".tar.gz")


def resolve(pom: Path, folder: Path) -> None:
    """Let Maven copy what a pom needs at run time into a folder laid out as a repository."""
    goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
    options = ["-DincludeScope=runtime", "-Dmdep.useRepositoryLayout=true", f"-DoutputDirectory={folder}"]
    subprocess.run(["mvn", "--quiet", "--batch-mode", "--file", str(pom), goal, *options], check=True)


def lines(group: str, folder: Path) -> Iterator[str]:
    """A line of the lock file for each artifact in a folder, in the order of their paths."""
    for path in sorted(folder.rglob("*")):
        if path.name.endswith(_SUFFIXES):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            yield f"{group} {digest} {path.stat().st_size} {path.relative_to(folder).as_posix()}\n"


def lock_text(poms: Path) -> str:
    """What the poms of a folder give now."""
    text = _HEAD.format(poms=poms.relative_to(ROOT).as_posix())
    for pom in sorted(poms.glob("*.pom.xml")):
        with tempfile.TemporaryDirectory() as scratch:
            resolve(pom, Path(scratch))
            text += "".join(lines(pom.name.removesuffix(".pom.xml"), Path(scratch)))
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the lock file is not up to date")
    parser.add_argument("--peers", action="store_true", help="the jars of the benchmark's peers, not the stack's")
    given = parser.parse_args()
    lock, poms = (PEERS_LOCK, PEERS_POMS) if given.peers else (LOCK, POMS)
    text = lock_text(poms)
    if given.check:
        if lock.read_text(encoding="utf-8") == text:
            return 0
        print(f"{lock} is not what {poms} gives: run scripts/lock_jars.py", file=sys.stderr)
        return 1
    lock.write_text(text, encoding="utf-8")
    print(f"{lock}: {text.count(chr(10)) - _HEAD.count(chr(10))} artifacts")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
