"""How a bounded run ends when something else than its input is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k2beam.errors import K2BeamError, LakeError
from k2beam.job.bounded import run_ingest
from k2beam.job.config import IngestConfig
from k2beam.logs import configure_logging
from tests.lake_helpers import lake_config
from transforms.read_archive import ReadArchive


def run_with(monkeypatch: pytest.MonkeyPatch, folder: Path, error: Exception) -> None:
    """A run in which files can't be written."""

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("transforms.write_iceberg.write_rows", fail)
    run_ingest(ReadArchive(["samples/asx"]), IngestConfig(lake_config(folder)))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), r"\[Errno 28\] No space left on device"),
        (LakeError("table t: it is gone"), "table t: it is gone"),
    ],
)
def test_what_can_be_mended_is_told_in_one_sentence_and_its_trace_at_debug(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    told: str,
) -> None:
    for level, traces in (("INFO", False), ("DEBUG", True)):
        configure_logging(level)
        with pytest.raises(K2BeamError, match=f"^the job ended: {told}; run it again: what was committed is left out"):
            run_with(monkeypatch, tmp_path / level, error)
        assert ("Traceback" in capsys.readouterr().err) is traces


def test_a_defect_keeps_its_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("INFO")
    with pytest.raises(TypeError, match="a mistake"):
        run_with(monkeypatch, tmp_path, TypeError("a mistake"))
    assert "TypeError: a mistake" in capsys.readouterr().err
