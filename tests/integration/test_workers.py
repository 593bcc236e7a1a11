"""Python workers apart from the client, on Flink: from a pool that two TaskManagers share, and as processes of one."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import yaml

from k2beam.flink import ENDED, FlinkJobs, FlinkRun
from k2beam.stack.flink import SECOND_TASK_MANAGER, TASK_MANAGER
from k2beam.stack.stack import LocalStack
from tests.integration.flink_job import FlinkIngest, flink_ingest, worker_pool
from tests.live_helpers import assert_live_audit, produce, produce_early, produce_more, register
from tests.replay_helpers import open_gaps, simulated, true_gaps

pytestmark = pytest.mark.integration

ROWS = 60_000
BOOT = "k2beam.job.boot"


def boot_script(folder: Path) -> Sequence[str]:
    """Beam's options for workers that the TaskManager starts itself."""
    program = folder / "boot"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {BOOT} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    config = json.dumps({"command": str(program)})
    return ("--environment_type=PROCESS", f"--environment_config={config}")


def workers_of(pid: int) -> list[psutil.Process]:
    """The Python workers below a process."""
    return [child for child in psutil.Process(pid).children(recursive=True) if BOOT in child.cmdline()]


def assert_exact_through_a_lost_worker(
    flink: LocalStack, folder: Path, workers: Sequence[str], starter: int, parallelism: int
) -> None:
    """All workers are killed between two halves of a feed; every message is there once, and the gaps are the true."""
    truth = simulated(folder / "in", rows=ROWS, faults="gaps=20,duplicates=9", kinds=("trades",), files=1, symbols=6)
    topics, early, late, ids = produce_early(flink, folder / "in", "workers")
    with flink_ingest(flink, topics, folder / "lake", workers=workers, parallelism=parallelism) as job:
        job.wait_until(lambda: job.committed() == len(early), "the first half is committed")
        (*killed,) = workers_of(starter)
        assert killed
        for worker in killed:
            worker.kill()
        produce_more(flink, topics[0], late, ids)
        job.wait_until(lambda: job.committed() == ROWS, "everything is committed")
        job.stop()
        job.end()
        assert "the job failed in the cluster and begins again" in job.said()
        assert_live_audit(flink, topics, job.warehouse)
        assert open_gaps(job.warehouse) == true_gaps(truth)
        assert_ended(job)


def flink_hosts(flink: LocalStack) -> set[str]:
    """The TaskManagers that ran tasks of the latest job."""
    cluster = FlinkJobs(flink.flink_rest_url)
    latest = max(cluster.jobs(), key=lambda job: cluster.started(job.id))
    tasks = [
        cluster._ask(f"/jobs/{latest.id}/vertices/{vertex['id']}")
        for vertex in cluster._ask(f"/jobs/{latest.id}")["vertices"]
    ]
    return {subtask["taskmanager-id"] for task in tasks for subtask in task["subtasks"]}


def assert_ended(job: FlinkIngest) -> None:
    found = job.in_cluster()
    assert found is not None
    assert found.state in ENDED


def test_two_taskmanagers_share_a_pool_and_a_job(flink: LocalStack, tmp_path: Path) -> None:
    """Both count their workers from 1-1."""
    second = LocalStack(flink.state, [SECOND_TASK_MANAGER])
    second.up()
    try:
        with worker_pool() as (pid, workers):
            assert_exact_through_a_lost_worker(flink, tmp_path, workers, pid, parallelism=4)
            assert len(flink_hosts(flink)) == 2
    finally:
        second.down([SECOND_TASK_MANAGER])


@pytest.mark.full
def test_a_job_whose_workers_stand_still_is_ended_with_what_waits_and_the_next_takes_it(
    flink: LocalStack, tmp_path: Path
) -> None:
    """Flink itself sees nothing: the job is RUNNING, and no task fails."""
    simulated(tmp_path / "in", rows=ROWS, kinds=("trades",), files=1, symbols=6)
    topics, early, late, ids = produce_early(flink, tmp_path / "in", "stall")
    with worker_pool() as (pid, workers):
        with flink_ingest(flink, topics, tmp_path / "lake", "--stall-after", "60s", workers=workers) as job:
            job.wait_until(lambda: job.committed() == len(early), "the first half is committed")
            (*stopped,) = workers_of(pid)
            for worker in stopped:
                worker.suspend()
            produce_more(flink, topics[0], late, ids)
            assert job.process.wait(240) == 1
            said = job.said()
            assert "Error: the job has taken nothing for 60.5 s, while the broker has offset" in said
            assert topics[0] in said
            assert "the job failed in the cluster" not in said
            assert f"Besides, job {job.name}" in said, "Flink waits for its workers"
            for worker in stopped:
                worker.kill()
            found = job.in_cluster()
            assert found is not None
            FlinkRun(job.cluster, found.name).wait_ended()
        with flink_ingest(flink, topics, tmp_path / "lake", "--until-caught-up", workers=workers) as job:
            assert job.end()["consumed"] == len(late)
        assert_live_audit(flink, topics, job.warehouse)


@pytest.mark.full
def test_a_taskmanager_starts_workers_itself(flink: LocalStack, tmp_path: Path) -> None:
    (manager,) = (server for server in flink.status() if server.name == TASK_MANAGER)
    assert manager.pid is not None
    assert_exact_through_a_lost_worker(flink, tmp_path, boot_script(tmp_path), manager.pid, parallelism=2)


def catalog(home: Path) -> str:
    """A catalog of the same name as another folder's."""
    home.mkdir()
    settings = {"type": "sql", "init_catalog_tables": "true", "uri": f"sqlite:///{home}/catalog.db"}
    written = {"catalog": {"same": {**settings, "warehouse": f"file://{home}"}}}
    (home / ".pyiceberg.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    return str(home)


def test_a_worker_that_lacks_a_variable_or_has_another_warehouse_ends_the_job_with_one_sentence(
    flink: LocalStack, tmp_path: Path
) -> None:
    """Flink's runner alone would wait three minutes for a connection, begin again, and say nothing of it."""
    simulated(tmp_path / "in", rows=1_000, kinds=("trades",), files=1)
    topics = produce(flink, tmp_path / "in", f"workers-{uuid.uuid4().hex[:8]}", register(flink))
    login = ("--registry-username", "${env:REGISTRY_USER}", "--registry-password", "${env:REGISTRY_USER}")
    with worker_pool({"PYICEBERG_HOME": catalog(tmp_path / "pool")}) as (_, workers):
        with flink_ingest(
            flink, topics, tmp_path / "lake", *login, workers=workers, env={"REGISTRY_USER": "me"}
        ) as job:
            assert job.process.wait(120) == 1
            assert "Error: --registry-username: the environment variable REGISTRY_USER is not set here" in job.said()
            assert_ended(job)
        home = catalog(tmp_path / "client")
        with flink_ingest(
            flink, topics, tmp_path / "none", "--catalog", "same", workers=workers, env={"PYICEBERG_HOME": home}
        ) as job:
            assert job.process.wait(120) == 1
            assert "has another catalog same than the job was started with" in job.said()
            assert not list((tmp_path / "pool").glob("market_data/*/data"))
            assert_ended(job)
