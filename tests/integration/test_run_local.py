"""run_local.sh: its environment, its messages, the sample run, and how the test run treats skips."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from k2beam.config import LakeConfig
from k2beam.lake.catalog import open_catalog

pytestmark = pytest.mark.integration

# A project that installs in a moment and without the network: its build backend writes the wheel by hand.
STUB_PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
STUB_BACKEND = """
import zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "stub-1-py3-none-any.whl"
    with zipfile.ZipFile(folder + "/" + name, "w") as wheel:
        wheel.writestr("stub-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: stub\\nVersion: 1\\n")
        wheel.writestr("stub-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("stub-1.dist-info/RECORD", "")
    return name
build_wheel = build_editable
"""


def run_local(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"K2BEAM_VENV", "K2BEAM_PYTHON"}}
    command = ["bash", str(checkout / "run_local.sh"), *arguments]
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A small checkout, at a path with a space, whose run_local.sh is the real one."""
    root = tmp_path / "a checkout"
    (root / "requirements").mkdir(parents=True)
    shutil.copy(repository / "run_local.sh", root)
    (root / "requirements" / "run.txt").write_text("# nothing\n", encoding="utf-8")
    (root / "setup.py").write_text("", encoding="utf-8")
    (root / "pyproject.toml").write_text(STUB_PYPROJECT, encoding="utf-8")
    (root / "backend.py").write_text(STUB_BACKEND, encoding="utf-8")
    return root


def setup(root: Path) -> str:
    cache = str(root.parent / "a cache")
    done = run_local(root, "setup", K2BEAM_CACHE=cache, K2BEAM_PYTHON=sys.executable, PIP_NO_INDEX="1")
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_environment_is_made_once_and_again_when_the_lock_or_the_place_changes(checkout: Path) -> None:
    first = setup(checkout)
    assert "Making" in first
    assert "Installing requirements/run.txt" in first
    assert setup(checkout) == ""
    (checkout / "requirements" / "run.txt").write_text("# nothing, put otherwise\n", encoding="utf-8")
    changed = setup(checkout)
    assert "Making" not in changed
    assert "Installing" in changed
    moved = checkout.rename(checkout.parent / "moved")
    assert "Making" in setup(moved), "scripts of a moved environment point to the old place"


def test_an_environment_that_was_cut_off_is_made_anew(checkout: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(checkout / ".venv")], check=True)
    assert "Making" in setup(checkout)


def test_without_prism_the_tests_run_and_name_what_they_skip(checkout: Path, tmp_path: Path) -> None:
    (checkout / "requirements" / "test.txt").write_text("# nothing\n", encoding="utf-8")
    setup(checkout)
    tools = checkout / ".venv" / "lib" / "python3.11" / "site-packages"
    (tools / "pytest.py").write_text(
        "import os; print('pytest runs', os.environ.get('K2BEAM_PRISM'))", encoding="utf-8"
    )
    stack = tools / "k2beam" / "stack"
    stack.mkdir(parents=True)
    (stack / "prism.py").write_text("import sys; sys.exit('no Go')", encoding="utf-8")
    ready = {"K2BEAM_CACHE": str(tmp_path / "a cache"), "PIP_NO_INDEX": "1"}
    done = run_local(checkout, "test", K2BEAM_PRISM="", **ready)
    assert (done.returncode, done.stdout) == (0, "pytest runs \n"), done.stderr
    assert "the tests that need it are skipped" in done.stderr
    named = run_local(checkout, "test", K2BEAM_PRISM="/no/prism", **ready)
    assert (named.returncode, named.stdout) == (2, "")
    assert "K2BEAM_PRISM=/no/prism is not a usable Prism" in named.stderr


def test_without_python_311_it_says_what_to_do(checkout: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "mkdir", "cat"):
        (tools / name).symlink_to(shutil.which(name) or name)
    (tools / "python3").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")  # another version: the check says no
    (tools / "python3").chmod(0o755)
    done = run_local(checkout, "setup", PATH=str(tools), HOME=str(tmp_path), K2BEAM_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 2
    assert "needs Python 3.11 with its venv module" in done.stderr
    assert "K2BEAM_PYTHON=" in done.stderr


def test_a_cache_that_cannot_be_written_is_named(checkout: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("", encoding="utf-8")
    done = run_local(checkout, "setup", K2BEAM_CACHE=str(blocked / "cache"))
    assert done.returncode == 2
    assert f"can't write to the cache {blocked}/cache: set K2BEAM_CACHE" in done.stderr


@pytest.mark.parametrize("arguments", [("--wharehouse", "x"), ("--warehouse",), ("setup", "everything")])
def test_wrong_arguments_exit_with_2(checkout: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run_local(checkout, *arguments, K2BEAM_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 2
    assert done.stderr.strip()


def test_the_sample_run_twice(repository: Path, tmp_path: Path) -> None:
    """The second run adds nothing and says so; the example reads the same rows as a DataFrame."""
    warehouse = tmp_path / "a warehouse"
    ready = {"K2BEAM_VENV": sys.prefix, "K2BEAM_CACHE": str(tmp_path / "cache")}
    first = run_local(repository, "--warehouse", str(warehouse), **ready)
    assert first.returncode == 0, first.stdout + first.stderr
    written = json.JSONDecoder().raw_decode(first.stdout)[0]["written"]
    assert f"Added {sum(written.values()):,} rows" in first.stderr
    second = run_local(repository, f"--warehouse={warehouse}", **ready)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "Nothing was added: all" in second.stderr
    next_steps = [line.strip() for line in second.stdout.splitlines() if line.startswith("  '")]
    assert len(next_steps) == 3
    for step in next_steps:
        subprocess.run(step, shell=True, check=True, stdout=subprocess.DEVNULL)
    snippet = [line.removeprefix("  >>> ") for line in second.stdout.splitlines() if line.startswith("  >>> ")]
    snippet[-1] = f"print(len({snippet[-1]}), 'trades')"
    shown = subprocess.run([sys.executable, "-c", "\n".join(snippet)], capture_output=True, text=True, check=True)
    assert int(shown.stdout.split()[0]) > 500
    example = [sys.executable, str(repository / "examples" / "dataframe.py"), str(warehouse)]
    shown = subprocess.run(example, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    trades = next(rows for table, rows in written.items() if table.endswith("trades_v2"))
    assert shown.splitlines()[-1].startswith(f"{trades:,} rows")


def test_the_dataframe_example_gives_the_rows_of_one_symbol(repository: Path, tmp_path: Path) -> None:
    catalog = open_catalog(LakeConfig(warehouse=str(tmp_path)))
    catalog.create_namespace("market_data")
    rows = pa.table(
        {"symbol": ["BHP", "'; DROP TABLE trades; --", "BHP"], "price": [Decimal("1.5"), Decimal(2), Decimal(3)]}
    )
    catalog.create_table("market_data.trades_v2", schema=rows.schema).append(rows)
    dataframe = runpy.run_path(str(repository / "examples" / "dataframe.py"))["dataframe"]
    assert len(dataframe(str(tmp_path))) == 3
    assert dataframe(str(tmp_path), symbol="BHP")["price"].tolist() == [Decimal("1.5"), Decimal("3.0")]
    assert len(dataframe(str(tmp_path), symbol="'; DROP TABLE trades; --")) == 1


@pytest.mark.parametrize(("forbid", "code"), [("1", 1), ("", 0)])
def test_a_skip_is_named_and_fails_the_run_where_skips_are_forbidden(
    repository: Path, tmp_path: Path, forbid: str, code: int
) -> None:
    shutil.copy(repository / "tests" / "conftest.py", tmp_path)
    body = "import pytest\ndef test_good(): pass\n@pytest.mark.skip(reason='no broker')\ndef test_kafka(): pass\n"
    (tmp_path / "test_some.py").write_text(body, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)]
    environment = os.environ | {"K2BEAM_FORBID_SKIPS": forbid, "PYTHONPATH": str(repository)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout
    lines = done.stdout.strip().splitlines()
    assert any(line.startswith("test_some.py::test_kafka: ") and "no broker" in line for line in lines)
    assert lines[-1].startswith("1 passed, 1 skipped in ")
    assert any("so this run fails" in line for line in lines) is bool(forbid)
