"""The wheel alone: what is in it, and that it works away from the checkout. And Python beside a clone."""

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


def copy_of(repository: Path, source: Path) -> Path:
    """What an installation needs of a checkout."""
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, source / name)
    for name in ("k2beam", "transforms", "schemas", "tests"):
        shutil.copytree(repository / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    return source


def environment(home: Path, *what: str | Path) -> Path:
    """The programs of a new environment with what is to be installed, by pip's arguments.

    It borrows the dependencies from the environment that runs the tests. The .pth line puts the borrowed site-packages
    behind the new one on sys.path, so that k2beam is the new one's. Python does not read the .pth files of a folder
    that came from a .pth itself: the editable install of the checkout, which is such a file, is not active there.
    """
    venv.create(home, with_pip=False)
    site_packages = home / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    (site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(*PIP, "--python", home / "bin" / "python", "install", *options, *what, cwd=home)
    return home / "bin"


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources: setuptools would leave build/ and an egg-info in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = copy_of(repository, folder / "source")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(*PIP, "wheel", *options, "--wheel-dir", folder, source, cwd=folder)
    (built,) = folder.glob("k2beam-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel."""
    return environment(tmp_path_factory.mktemp("installed") / "an environment", wheel)


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


def test_python_beside_a_clone_finds_the_package_and_not_the_folder(repository: Path, tmp_path: Path) -> None:
    """A clone has the package's name, and Python looks into its own folder first."""
    clone = copy_of(repository, tmp_path / "k2beam")
    programs = environment(tmp_path / "an environment", "--editable", clone)
    code = (
        "import k2beam; from k2beam import LakeConfig, schemas; schemas.avro_schema('trade_v2'); print(k2beam.__file__)"
    )
    assert Path(run(programs / "python", "-c", code, cwd=tmp_path).strip()) == clone / "k2beam" / "__init__.py"
