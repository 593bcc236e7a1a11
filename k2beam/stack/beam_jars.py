"""Beam's Java archives for Flink: those that the job server needs, and those that Flink's own processes take.

``python -m k2beam.stack.beam_jars job-server|flink DIR`` copies one of the two into a folder, beside a file
``java.args`` with the flags of Java that they need (``java @java.args``): for the images of a deployment.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Final

from k2beam.errors import PlatformError
from k2beam.stack.jars import ensure_jars

GROUP: Final = "flink-job-server"
JAVA_ARGUMENTS: Final = "java.args"

_IN_FLINK: Final = frozenset({"flink", "slf4j"})
"""Folders of Maven's repository whose archives Flink has itself, in its own versions."""
_OPENED: Final = (
    *("java.base/java.lang", "java.base/java.net", "java.base/java.io", "java.base/java.nio"),
    *("java.base/sun.nio.ch", "java.base/java.lang.reflect", "java.base/java.text", "java.base/java.time"),
    *("java.base/java.util", "java.base/java.util.concurrent", "java.base/java.util.concurrent.atomic"),
    "java.base/java.util.concurrent.locks",
)
_EXPORTED: Final = (
    *("java.base/sun.net.util", "java.rmi/sun.rmi.registry", "java.security.jgss/sun.security.krb5"),
    *(f"jdk.compiler/com.sun.tools.javac.{name}" for name in ("api", "file", "parser", "tree", "util")),
)
"""What Flink 1.19 and its serialisers reach into; Java 17 has closed it."""


def beam_jars(*, beside_flink: bool = False) -> tuple[Path, ...]:
    """The archives in the cache, fetched where missing; without Flink's own where it is beside them.

    Raises what :func:`k2beam.stack.jars.ensure_jars` raises.
    """
    return tuple(path for path in ensure_jars(GROUP) if not (beside_flink and _IN_FLINK & {*path.parts}))


def java_flags() -> tuple[str, ...]:
    """The flags that Java 17 needs to run Flink, and Beam's job server, which makes Flink's job graphs."""
    opened = (f"--add-opens={name}=ALL-UNNAMED" for name in _OPENED)
    exported = (f"--add-exports={name}=ALL-UNNAMED" for name in _EXPORTED)
    return (*opened, *exported)


def copy_beam_jars(arguments: list[str] | None = None) -> int:
    """Copy them; 1 and a message on standard error where they can't be had."""
    parser = argparse.ArgumentParser(prog="python -m k2beam.stack.beam_jars", description=__doc__)
    parser.add_argument("what", choices=("job-server", "flink"))
    parser.add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    try:
        jars = beam_jars(beside_flink=given.what == "flink")
        given.folder.mkdir(parents=True, exist_ok=True)
        for jar in jars:
            shutil.copyfile(jar, given.folder / jar.name)
        (given.folder / JAVA_ARGUMENTS).write_text("\n".join(java_flags()) + "\n", "utf-8")
    except (OSError, PlatformError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"{len(jars)} archives in {given.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(copy_beam_jars())
