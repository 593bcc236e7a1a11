"""The wheel alone: what is in it, and that it works away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources: setuptools would leave build/ and an egg-info in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, source / name)
    for name in ("k2beam", "transforms", "schemas", "tests"):
        shutil.copytree(repository / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(*PIP, "wheel", *options, "--wheel-dir", folder, source, cwd=folder)
    (built,) = folder.glob("k2beam-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, which borrows the dependencies from the one that runs the tests.

    The .pth line puts the borrowed site-packages behind the new one on sys.path, so that k2beam is the wheel's. Python
    does not read the .pth files of a folder that came from a .pth itself: the editable install of the checkout, which
    is such a file, is not active there.
    """
    home = tmp_path_factory.mktemp("installed") / "an environment"
    venv.create(home, with_pip=False)
    run(*PIP, "--python", home / "bin" / "python", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=home)
    site_packages = home / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    (site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return home / "bin"


def test_the_wheel_has_the_packages_and_the_schemas_but_no_tests(wheel: Path, repository: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    schemas = {f"k2beam/_schemas/{path.name}" for path in (repository / "schemas").glob("*.avsc")}
    assert len(schemas) >= 7
    assert schemas <= set(names)
    assert "k2beam/py.typed" in names
    assert any(name.endswith((".dist-info/licenses/LICENSE", ".dist-info/LICENSE")) for name in names)
    tops = {name.split("/")[0] for name in names}
    assert tops == {"k2beam", "transforms", f"{wheel.name.split('-py3')[0]}.dist-info"}


def test_every_package_of_the_checkout_is_in_the_wheel(wheel: Path, repository: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {
        str(path.relative_to(repository))
        for top in ("k2beam", "transforms")
        for path in (repository / top).rglob("*.py")
    }
    assert modules - names == set()


def test_its_schemas_are_found_from_another_folder(installed: Path, tmp_path: Path) -> None:
    code = "import k2beam; from k2beam import schemas; schemas.avro_schema('trade_v2'); print(k2beam.__file__)"
    where = run(installed / "python", "-c", code, cwd=tmp_path).strip()
    assert Path(where).is_relative_to(installed.parent), "the wheel's, not the checkout's"


def test_its_command_starts_from_another_folder(installed: Path, tmp_path: Path) -> None:
    assert "ingest" in run(installed / "k2beam", "--help", cwd=tmp_path)
