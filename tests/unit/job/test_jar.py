"""A pipeline written as one Java archive; that Flink runs it is seen in tests/integration/test_build_jar.py."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from k2beam.errors import PlatformError, UsageError
from k2beam.job import jar
from k2beam.job.jar import JarRunner
from k2beam.job.options import beam_options, name_job

OPTIONS = ("--environment_type=EXTERNAL", "--environment_config=pool:50000", "--checkpointing_interval=5000")


@pytest.fixture(autouse=True)
def classes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What stands for Beam's archives."""
    path = tmp_path / "classes" / "beam.jar"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("org/a.class", "a")
    monkeypatch.setattr(jar, "ensure_job_jar", lambda: path)
    return path


def options() -> Any:
    found = beam_options(OPTIONS, streaming=True, default_runner="FlinkRunner")
    name_job(found, "0123456789ab", "run")
    return found


def write(runner: JarRunner, given: Any) -> None:
    pipeline = beam.Pipeline(runner=runner, options=given)
    _ = pipeline | beam.Create([1]) | "Twice" >> beam.Map(lambda number: number * 2)
    pipeline.run()


def test_it_has_the_classes_the_steps_and_the_options_also_those_that_java_alone_knows(tmp_path: Path) -> None:
    out = tmp_path / "job.jar"
    out.write_text("an older one")
    runner, given = JarRunner(out), options()
    write(runner, given)
    with zipfile.ZipFile(out) as archive:
        read = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(read["BEAM-PIPELINE/pipeline-manifest.json"])
    folder = f"BEAM-PIPELINE/{manifest['defaultJobName']}"
    steps = json.loads(read[f"{folder}/pipeline.json"])["components"]["transforms"]
    said = json.loads(read[f"{folder}/pipeline-options.json"])
    assert read["org/a.class"] == b"a"
    assert "Twice" in {step["uniqueName"] for step in steps.values()}
    assert said["beam:option:checkpointing_interval:v1"] == "5000"
    assert said["beam:option:flink_master:v1"] == "[auto]", "whoever starts it says where"
    assert said["beam:option:job_name:v1"] == "k2beam-0123456789ab-run"
    written = runner.written(given)
    assert (written.path, written.job_name, written.nbytes) == (out, "k2beam-0123456789ab-run", out.stat().st_size)
    assert {path.name for path in tmp_path.iterdir()} == {"classes", "job.jar"}


def test_one_that_can_not_be_made_leaves_what_was_there(tmp_path: Path, classes: Path) -> None:
    out = tmp_path / "job.jar"
    out.write_text("an older one")
    classes.unlink()
    with pytest.raises(PlatformError, match=r"job\.jar can't be written: .*No such file"):
        write(JarRunner(out), options())
    assert out.read_text() == "an older one"
    assert {path.name for path in tmp_path.iterdir()} == {"classes", "job.jar"}


def test_a_path_that_can_not_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        JarRunner(tmp_path / "no" / "job.jar")
    with pytest.raises(UsageError, match="is a folder: name the archive to write"):
        JarRunner(tmp_path)
