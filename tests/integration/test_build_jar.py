"""A job as one Java archive: written by the command, started by Flink's own command line, followed by a client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import requests

from k2beam.flink import FlinkJobs
from k2beam.job.config import Reader
from k2beam.stack.beam_jars import java_flags
from k2beam.stack.flink import JOB_MANAGER
from k2beam.stack.flink_dist import ensure_flink, libraries
from k2beam.stack.java import ensure_java
from k2beam.stack.stack import LocalStack
from k2beam.stack.versions import FLINK_JAVA
from tests.integration.flink_job import PATIENCE_S, flink_ingest, worker_pool
from tests.live_helpers import assert_live_audit, produce_early, produce_more
from tests.replay_helpers import open_gaps, simulated, true_gaps

pytestmark = pytest.mark.integration

ROWS = 40_000


def built(
    flink: LocalStack, topics: Sequence[str], lake: Path, out: Path, workers: Sequence[str], reader: Reader
) -> dict[str, Any]:
    """What ``k2beam build-jar`` prints."""
    command = [
        *(sys.executable, "-m", "k2beam.cli.main", "build-jar", str(out)),
        *(word for topic in topics for word in ("--topic", topic)),
        *("--bootstrap", flink.bootstrap, "--registry", flink.registry_url, "--reader", reader),
        *("--expansion", flink.flink_expansion_address, "--warehouse", str(lake), "--commit-age", "500ms"),
        *("--output", "json", "--", *workers, "--parallelism=2", f"--job_name={lake.parent.name}"),
        "--checkpointing_interval=2000",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def flink_run(flink: LocalStack, jar: Path) -> None:
    """``flink run --detached``, as the script of that name calls it."""
    java, folder = ensure_java(*FLINK_JAVA), ensure_flink()
    command = [
        *(str(java), *java_flags(), "-cp", libraries(folder), "org.apache.flink.client.cli.CliFrontend"),
        *("run", "--detached", "--jobmanager", flink.flink_rest_url.removeprefix("http://"), str(jar)),
    ]
    environment = os.environ | {"FLINK_CONF_DIR": str(flink.state / JOB_MANAGER / "conf")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Job has been submitted with JobID" in done.stdout


def upload_and_run(flink: LocalStack, jar: Path) -> None:
    """The same by Flink's REST API, as its web page does."""
    with requests.Session() as session, jar.open("rb") as stream:
        session.trust_env = False
        uploaded = session.post(
            f"{flink.flink_rest_url}/jars/upload", files={"jarfile": (jar.name, stream)}, timeout=60
        )
        assert uploaded.ok, uploaded.text
        name = Path(uploaded.json()["filename"]).name
        run = session.post(f"{flink.flink_rest_url}/jars/{name}/run", json={}, timeout=PATIENCE_S)
        assert run.ok, run.text


def test_an_archive_is_started_twice_by_flinks_own_tools_and_followed(
    flink: LocalStack, tmp_path: Path, reader: Reader
) -> None:
    truth = simulated(tmp_path / "in", rows=ROWS, faults="gaps=20,duplicates=9", kinds=("trades",), files=1, symbols=6)
    topics, early, late, ids = produce_early(flink, tmp_path / "in", "jar")
    lake, out = tmp_path / "lake", tmp_path / "a job.jar"
    cluster = FlinkJobs(flink.flink_rest_url)
    with worker_pool() as (_, workers):
        jar = built(flink, topics, lake, out, workers, reader)
        assert jar["jar"] == str(out)
        assert jar["bytes"] == out.stat().st_size
        attached = {"reader": reader, "workers": workers}
        flink_run(flink, out)
        with flink_ingest(flink, topics, lake, "--attach", "--until-caught-up", **attached) as first:  # type: ignore[arg-type]
            stats = first.end()
        assert stats["written"]["trades_v2"] == len(early)
        produce_more(flink, topics[0], late, ids)
        upload_and_run(flink, out)
        with flink_ingest(flink, topics, lake, "--attach", "--until-caught-up", **attached) as second:  # type: ignore[arg-type]
            second.end()
            assert second.in_cluster() is None, "it submits nothing"
    assert [job.state for job in cluster.jobs(jar["name"])] == ["CANCELED", "CANCELED"]
    assert_live_audit(flink, topics, lake)
    assert open_gaps(lake) == true_gaps(truth)
