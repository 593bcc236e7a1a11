"""The notebook of the examples, run from its first cell to its last: it says what it said when it was written."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

pytestmark = pytest.mark.integration


def printed(cell: Any) -> str:
    """What a cell printed, without what Beam says beside it."""
    outputs = cell.get("outputs", [])
    return "".join(one.text for one in outputs if one.output_type == "stream" and one.name == "stdout")


def tables(cell: Any) -> list[str]:
    return [one.data["text/plain"] for one in cell.get("outputs", []) if "text/html" in one.get("data", {})]


def test_the_notebook_says_what_it_says(repository: Path) -> None:
    written = nbformat.read(repository / "examples/notebook.ipynb", as_version=4)
    notebook = copy.deepcopy(written)
    where = {"metadata": {"path": str(repository / "examples")}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    assert [printed(cell) for cell in notebook.cells] == [printed(cell) for cell in written.cells]
    assert [tables(cell) for cell in notebook.cells] == [tables(cell) for cell in written.cells]
    assert any(map(printed, notebook.cells))
    assert sum(map(len, map(tables, notebook.cells))) == 2
    charts = [one for cell in notebook.cells for one in cell.get("outputs", []) if "image/png" in one.get("data", {})]
    assert len(charts) == 1
