"""A job on Flink outlives its client: it is found again, followed, taken over by another version, and ended."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from k2beam.audit.audit import audit
from k2beam.config import NAMESPACE
from k2beam.flink import FlinkJobs
from k2beam.lake.catalog import open_catalog
from k2beam.stack.stack import LocalStack
from k2beam.version import RELEASE
from tests.integration.flink_job import PATIENCE_S, flink_ingest, worker_pool
from tests.lake_helpers import lake_config
from tests.live_helpers import assert_live_audit, produce, produce_early, produce_more, register
from tests.replay_helpers import open_gaps, simulated, true_gaps

pytestmark = pytest.mark.integration

ROWS = 60_000


def job(flink: LocalStack, *arguments: str) -> Any:
    """What ``k2beam job …`` prints."""
    command = [sys.executable, "-m", "k2beam.cli.main", "job", *arguments, "--output", "json"]
    done = subprocess.run(
        [*command, "--flink-master", flink.flink_rest_url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def next_version(repository: Path, folder: Path) -> Path:
    """A folder with these packages as another release."""
    for package in ("k2beam", "transforms", "schemas"):
        shutil.copytree(repository / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    version = folder / "k2beam" / "version.py"
    version.write_text(version.read_text("utf-8").replace(RELEASE, "9.9.9"), "utf-8")
    return folder


def test_a_job_is_left_found_again_and_replaced_by_another_version(
    flink: LocalStack, tmp_path: Path, repository: Path
) -> None:
    """Detached; refused to a second start; its follower killed; replaced in mid-stream; followed to its end."""
    truth = simulated(tmp_path / "in", rows=ROWS, faults="gaps=20,duplicates=9", kinds=("trades",), files=1, symbols=6)
    topics, early, late, ids = produce_early(flink, tmp_path / "in", "life")
    lake = tmp_path / "lake"
    with (
        worker_pool() as (_, old_pool),
        flink_ingest(flink, topics, lake, "--detach", workers=old_pool) as left,
    ):
        detached = left.end()
        assert (detached["state"], detached["tasks_started"]) == ("RUNNING", detached["tasks"])
        assert detached in job(flink, "list")
        with flink_ingest(flink, topics, lake, workers=old_pool) as second:
            assert second.process.wait(PATIENCE_S) == 2
            assert f"runs at {left.cluster.url} already: {detached['name']}" in second.said()
        with flink_ingest(flink, topics, lake, "--attach", workers=old_pool) as follower:
            follower.wait_until(lambda: "the job runs already and is followed" in follower.said(), "it follows")
            follower.wait_until(lambda: follower.committed() == len(early), "the first half is committed")
            follower.kill()
        assert job(flink, "status", detached["key"])["state"] == "RUNNING", "it outlives the one that followed it"
        with worker_pool(cwd=next_version(repository, tmp_path / "next")) as (_, new_pool):
            new = {"workers": new_pool, "parallelism": 1, "cwd": tmp_path / "next"}
            with flink_ingest(flink, topics, lake, "--replace", **new) as replaced:  # type: ignore[arg-type]
                replaced.wait_until(lambda: replaced.in_cluster() is not None, "it was submitted")
                assert job(flink, "status", detached["job_id"])["state"] == "CANCELED"
                produce_more(flink, topics[0], late, ids)
                replaced.wait_until(lambda: replaced.committed() > len(early), "the next version commits")
                replaced.kill()
                with flink_ingest(flink, topics, lake, "--attach", "--until-caught-up", **new) as last:  # type: ignore[arg-type]
                    stats = last.end()
                assert stats["written"]["trades_v2"] == len(late)
    assert_live_audit(flink, topics, lake)
    assert open_gaps(lake) == true_gaps(truth)
    ours = [each for each in job(flink, "list") if each["key"] == detached["key"]]
    assert [each["state"] for each in ours] == ["CANCELED", "CANCELED"]


def test_a_server_of_beams_that_does_not_answer_is_named(flink: LocalStack, tmp_path: Path) -> None:
    simulated(tmp_path / "in", rows=1_000, kinds=("trades",), files=1)
    topics = produce(flink, tmp_path / "in", f"away-{uuid.uuid4().hex[:8]}", register(flink))
    with flink_ingest(flink, topics, tmp_path / "lake", "--expansion", "localhost:1") as job:
        assert job.process.wait(PATIENCE_S) == 1
        assert "Error: Beam's Java expansion service at localhost:1 (--expansion) does not answer" in job.said()
        assert "Traceback" not in job.said()
    nowhere = ("--environment_type=LOOPBACK", "--job_endpoint=localhost:2", "--job_server_timeout=3")
    with flink_ingest(flink, topics, tmp_path / "lake", workers=nowhere) as job:
        assert job.process.wait(PATIENCE_S) == 1
        assert "Error: the job server at localhost:2 (--job_endpoint) does not answer" in job.said()
        assert "Traceback" not in job.said()


def test_a_bounded_job_is_ended_by_a_signal_and_completed_by_the_next(flink: LocalStack, tmp_path: Path) -> None:
    truth = simulated(tmp_path / "in", rows=400_000, kinds=("trades",), files=1)
    name = f"bounded-{uuid.uuid4().hex[:8]}"
    command = [
        *(sys.executable, "-m", "k2beam.cli.main", "ingest", "archive", str(tmp_path / "in"), "--output", "json"),
        *("--warehouse", str(tmp_path / "lake"), "--", "--runner=FlinkRunner", f"--job_name={name}"),
        *(f"--flink_master={flink.flink_rest_url}", f"--job_endpoint={flink.job_endpoint}"),
        *("--environment_type=LOOPBACK", "--parallelism=1"),
    ]
    cluster = FlinkJobs(flink.flink_rest_url)

    def states() -> list[str]:
        ours = sorted((job for job in cluster.jobs() if job.name.startswith(name)), key=lambda job: job.started_ms)
        return [job.state for job in ours]

    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + PATIENCE_S
        while states() != ["RUNNING"]:
            assert process.poll() is None, (tmp_path / "log").read_text("utf-8")
            assert time.monotonic() < deadline, (tmp_path / "log").read_text("utf-8")
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        code = process.wait(PATIENCE_S)
    said = (tmp_path / "log").read_text("utf-8")
    assert code == 1, said
    assert "Error: the job ended: a signal ended it; run it again" in said
    assert states() == ["CANCELED"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["consumed"] == truth.offsets
    assert states() == ["CANCELED", "FINISHED"]
    report = audit(open_catalog(lake_config(tmp_path / "lake")), NAMESPACE, [str(tmp_path / "in")])
    assert report.ok, report.problems
    assert open_gaps(tmp_path / "lake") == true_gaps(truth)
