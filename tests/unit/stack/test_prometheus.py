"""How Prometheus and promtool are found and fetched, with small programs in the place of apt's; the local server."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from k2beam.errors import NotReady, PlatformError
from k2beam.stack.prometheus import JOBS, Prometheus, ensure_prometheus, find_prometheus, targets_folder
from k2beam.stack.server import free_ports

APT = """import pathlib, sys
log = pathlib.Path({log!r})
with log.open("a") as out:
    out.write(" ".join(sys.argv[1:]) + "\\n")
own = any(option.startswith("-oDir::State=") for option in sys.argv)
if sys.argv[1:][-1] == "update":
    lists = next(option for option in sys.argv if option.startswith("-oDir::State=")).partition("=")[2]
    sys.exit(0 if pathlib.Path(lists, "lists", "partial").is_dir() else "no folder for lists")
if {fails!r} == "always" or ({fails!r} == "without lists" and not own):
    sys.exit("E: Unable to locate package prometheus")
for number in range({packages}):
    pathlib.Path(f"prometheus_2.{{number}}_amd64.deb").write_text("package")
"""
DPKG = """import pathlib, sys
if {fails!r}:
    sys.exit("not a Debian archive")
folder = pathlib.Path(sys.argv[3], "usr", "bin")
folder.mkdir(parents=True)
for name in {names!r}:
    folder.joinpath(name).write_text("program")
    folder.joinpath(name).chmod(0o755)
"""

Fake = Callable[..., Path]


def executable(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # To Python the second line is a string; a line that begins with #! can't name a path with a space.
    start = f'#!/bin/sh\n"exec" "{sys.executable}" "$0" "$@"\n'
    path.write_text(f"{start}{content}", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of the PATH; the cache is empty."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("K2BEAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("K2BEAM_PROMETHEUS", raising=False)
    return folder


@pytest.fixture
def fake(path: Path, tmp_path: Path) -> Fake:
    """Makes ``apt-get`` and ``dpkg-deb``; gives the log of what apt was asked for."""

    def make(
        apt: str = "never", packages: int = 1, dpkg: bool = True, names: tuple[str, ...] = ("prometheus", "promtool")
    ) -> Path:
        log = tmp_path / "apt.log"
        executable(path / "apt-get", APT.format(log=str(log), fails=apt, packages=packages))
        executable(path / "dpkg-deb", DPKG.format(fails=not dpkg, names=names))
        return log

    return make


def cached(tmp_path: Path) -> list[str]:
    return [each.name for each in (tmp_path / "cache" / "unpacked").glob("*")]


def test_the_named_folder_comes_first_then_the_path_then_the_cache(
    path: Path, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_prometheus() is None
    fake()
    fetched = ensure_prometheus("promtool")
    assert fetched.is_relative_to(tmp_path / "cache")
    installed = executable(path / "promtool")
    assert find_prometheus("promtool") == ensure_prometheus("promtool") == installed
    assert find_prometheus("prometheus") == fetched.with_name("prometheus")
    named = executable(tmp_path / "mine" / "promtool")
    monkeypatch.setenv("K2BEAM_PROMETHEUS", str(named.parent))
    assert ensure_prometheus("promtool") == named
    with pytest.raises(PlatformError, match=r"K2BEAM_PROMETHEUS=.*mine has no program prometheus"):
        ensure_prometheus("prometheus")


def test_it_is_fetched_once_and_only_from_a_signed_index(fake: Fake, tmp_path: Path) -> None:
    log = fake()
    assert ensure_prometheus("prometheus").read_text() == "program"
    assert ensure_prometheus("promtool").read_text() == "program"
    (asked,) = log.read_text().splitlines()
    assert asked.endswith(" download prometheus")
    assert "-oAPT::Get::AllowUnauthenticated=false" in asked
    assert "-oAcquire::AllowInsecureRepositories=false" in asked
    assert cached(tmp_path) == ["prometheus-package"], "what was downloaded is not kept"


def test_without_lists_of_packages_it_fetches_its_own(fake: Fake, tmp_path: Path) -> None:
    log = fake(apt="without lists")
    assert ensure_prometheus().is_file()
    first, update, second = log.read_text().splitlines()
    assert "Dir::State" not in first
    for asked in (update, second):
        assert f"-oDir::State={tmp_path / 'cache'}" in asked
        assert f"-oDir::Cache={tmp_path / 'cache'}" in asked
        assert "-oAPT::Get::AllowUnauthenticated=false" in asked


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"apt": "always"}, "could not fetch the package prometheus.*Unable to locate package"),
        ({"packages": 0}, "left 0 packages"),
        ({"packages": 2}, "left 2 packages"),
        ({"dpkg": False}, "could not unpack prometheus_2.0_amd64.deb.*not a Debian archive"),
    ],
)
def test_a_failure_says_what_to_do_and_leaves_nothing(
    fake: Fake, tmp_path: Path, given: dict[str, object], said: str
) -> None:
    fake(**given)
    with pytest.raises(PlatformError, match=f"(?s){said}") as raised:
        ensure_prometheus()
    assert "K2BEAM_PROMETHEUS" in str(raised.value)
    assert cached(tmp_path) == []


def test_a_package_without_the_program_is_said(fake: Fake) -> None:
    fake(names=("prometheus",))
    with pytest.raises(PlatformError, match="has no program promtool"):
        ensure_prometheus("promtool")


@pytest.mark.parametrize("missing", ["apt-get", "dpkg-deb"])
def test_without_apt_it_says_what_to_install(path: Path, fake: Fake, missing: str) -> None:
    fake()
    (path / missing).unlink()
    with pytest.raises(PlatformError, match=f"can't be fetched without {missing}.*on the PATH, or set"):
        ensure_prometheus()


def test_an_apt_that_does_not_start_is_said(path: Path, fake: Fake) -> None:
    fake()
    (path / "apt-get").write_text("#!/nowhere/sh\n")
    with pytest.raises(PlatformError, match="apt-get does not start"):
        ensure_prometheus()


def test_the_server_listens_here_only_and_reads_target_files_of_its_folder(path: Path, tmp_path: Path) -> None:
    program = executable(path / "prometheus")
    folder = tmp_path / "prometheus"
    folder.mkdir()
    launch = Prometheus().launch(folder, {"http": 12345})
    assert launch.command[0] == str(program)
    assert "--web.listen-address=127.0.0.1:12345" in launch.command
    assert f"--config.file={folder}/prometheus.yml" in launch.command
    config = json.loads((folder / "prometheus.yml").read_text())
    files = {job["job_name"]: job["file_sd_configs"][0]["files"] for job in config["scrape_configs"]}
    assert files == {job: [f"{targets_folder(folder, job)}/*.json"] for job in JOBS}
    assert all(targets_folder(folder, job).is_dir() for job in JOBS)
    assert Prometheus().addresses({"http": 12345}) == {"prometheus_url": "http://127.0.0.1:12345"}


def test_a_job_that_is_not_scraped_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="no scrape job 'k2beam': choose from k2beam-workers, k2beam-exporter"):
        targets_folder(tmp_path, "k2beam")


def test_a_server_that_does_not_answer_is_not_ready() -> None:
    with pytest.raises(NotReady, match="nothing listens on"):
        Prometheus().probe(free_ports(("http",)))
