"""What catalogs, stores and their drivers raise, as one sentence and an exit code: each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

NOBODY = "127.0.0.1:9"
"""Where nothing listens."""


def asked(home: Path, configuration: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """``k2beam query stats`` on the catalog ``x`` of a configuration file."""
    (home / ".pyiceberg.yaml").write_text(f"catalog:\n  x:\n{configuration}", encoding="utf-8")
    program = f"{before}\nfrom k2beam.cli.main import main\nmain(['query', 'stats', '--catalog', 'x'])"
    env = os.environ | {"PYICEBERG_HOME": str(home)}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, check=False)


@pytest.mark.parametrize(
    ("configuration", "code", "said"),
    [
        ("    type: rest\n    uri: http://" + NOBODY, 1, "does not answer: is it up"),
        ("    type: sql\n    uri: postgresql+psycopg2://me@" + NOBODY + "/x", 1, "does not answer: is it up"),
        ("    type: sql\n    uri: sqlite:////nowhere/x.db", 1, "unable to open database file; look at"),
        ("    type: &a\n      b: c", 2, ".pyiceberg.yaml, is not the YAML that it takes"),
        ("    type: hive\n    uri: thrift://" + NOBODY, 2, "pip install 'pyiceberg[hive]'"),
    ],
)
def test_it_is_one_line(tmp_path: Path, configuration: str, code: int, said: str) -> None:
    ended = asked(tmp_path, configuration)
    assert ended.returncode == code
    assert said in ended.stderr
    assert ended.stderr.startswith("Error: ")
    assert ended.stderr.count("\n") == 1


def test_a_driver_that_is_not_installed_is_named_with_its_extra(tmp_path: Path) -> None:
    uri = "    type: sql\n    uri: postgresql+psycopg2://me@" + NOBODY + "/x"
    missing = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'psycopg2': raise ModuleNotFoundError('No module named psycopg2', name=name)\n"
        "sys.meta_path.insert(0, Missing())"
    )
    ended = asked(tmp_path, uri, missing)
    assert (ended.returncode, ended.stderr) == (
        2,
        "Error: catalog x: the driver psycopg2 is not installed: pip install 'k2beam[postgres]'\n",
    )
