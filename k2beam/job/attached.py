"""A job on Flink that another client has started: found by its key, and followed as one's own."""

from __future__ import annotations

import time

from apache_beam.runners.runner import PipelineState

from k2beam.errors import FlinkRestError, RunnerGone, UsageError
from k2beam.flink import FlinkRun
from k2beam.job.beam import AGAIN
from k2beam.job.config import Existing
from k2beam.logs import get_logger

CLUSTER_AWAY_SECONDS = 120.0
"""How long a cluster is waited for that does not answer: a JobManager may come back with its jobs."""

_ENDS = {"FINISHED": PipelineState.DONE, "FAILED": PipelineState.FAILED, "CANCELED": PipelineState.CANCELLED}
_ENDING = frozenset({"CANCELLING", "FAILING"})


class AttachedJob:
    """What of a Beam ``PipelineResult`` the following of a job needs, over Flink's REST API."""

    def __init__(self, run: FlinkRun) -> None:
        self._run = run
        self._heard = time.monotonic()

    @property
    def state(self) -> str:
        """Beam's word for the job's state.

        Raises RunnerGone for a job that the cluster does not know any more, and FlinkRestError for a cluster that has
        been away for two minutes.
        """
        try:
            job = self._run.job()
        except FlinkRestError:
            if time.monotonic() - self._heard > CLUSTER_AWAY_SECONDS:
                raise
            return str(PipelineState.RUNNING)
        self._heard = time.monotonic()
        if job is None:
            raise RunnerGone(f"the cluster does not know job {self._run.name} any more; {AGAIN}")
        return str(_ENDS.get(job.state, PipelineState.RUNNING))

    def cancel(self) -> None:
        """Nothing: the one that follows it ends the job in the cluster."""

    def wait_until_finish(self) -> str:
        """The state of a job that has ended. Raises RuntimeError with the cause of one that failed."""
        state = self.state
        if state == PipelineState.FAILED:
            raise RuntimeError(self._run.last_cause())
        return state


def take_over(run: FlinkRun, existing: Existing) -> FlinkRun | None:
    """The run of the same job that is to be followed, or None where ``run`` is to be started.

    With ``REPLACE`` what runs is ended first. Raises UsageError where the same job runs and nothing says what is to
    become of it, and FlinkRestError for a cluster that does not answer.
    """
    for rival in run.rivals():
        if rival.state in _ENDING:
            FlinkRun.of(run.cluster, rival).wait_ended()
    rivals = run.rivals()
    if not rivals:
        return None
    names = ", ".join(rival.name for rival in rivals)
    if existing is Existing.REPLACE:
        for rival in rivals:
            get_logger("live").info("the job that runs already is ended first", job=rival.name)
            FlinkRun.of(run.cluster, rival).end(submitted=False)
        return None
    if existing is Existing.ATTACH and len(rivals) == 1:
        get_logger("live").info("the job runs already and is followed", job=names)
        return FlinkRun.of(run.cluster, rivals[0])
    several = "" if existing is Existing.REFUSE else ", and only one job can be followed"
    raise UsageError(
        f"the same job, into the same tables, runs at {run.cluster.url} already{several}: {names}. --replace ends "
        "it and starts anew, --attach follows it, k2beam job stop ends it"
    )
