"""Each public class and function has an example in its docstring, which is run as a user would run it.

An example imports what it uses. It runs in a folder of its own, which it may write to and which has two things in it:
``samples``, the folder of the checkout, and ``warehouse``, into which ``samples/crypto`` was ingested. The warehouse is
shared, so that an example that ingests takes another folder. Those on servers are in
``tests/integration/test_examples.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from k2beam import IngestConfig, LakeConfig, run_ingest
from tests.example_helpers import needs_servers, public_things, run_example
from transforms.read_archive import ReadArchive

PUBLIC = public_things()


@pytest.fixture(scope="module")
def warehouse(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of ``samples/crypto``."""
    folder = tmp_path_factory.mktemp("examples") / "warehouse"
    run_ingest(ReadArchive([str(repository / "samples" / "crypto")]), IngestConfig(LakeConfig(str(folder))))
    return folder


@pytest.fixture
def folder(repository: Path, warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder of an example."""
    (tmp_path / "samples").symlink_to(repository / "samples")
    (tmp_path / "warehouse").symlink_to(warehouse)
    monkeypatch.chdir(tmp_path)


def test_every_public_thing_has_an_example() -> None:
    assert len(PUBLIC) > 70
    without = [name for name, thing in PUBLIC.items() if ">>> " not in (thing.__doc__ or "")]
    assert not without, f"no example in the docstring of {', '.join(without)}"


def test_no_example_is_skipped() -> None:
    skipped = [name for name, thing in PUBLIC.items() if "+SKIP" in (thing.__doc__ or "")]
    assert not skipped, f"+SKIP in the docstring of {', '.join(skipped)}"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", [name for name in PUBLIC if not needs_servers(name)])
def test_an_example_gives_what_it_says(name: str) -> None:
    run_example(name, PUBLIC[name], {})
