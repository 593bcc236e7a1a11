"""Jobs of a Flink cluster over its REST API: found by name, cancelled, waited for.

A job outlives the client that submitted it, so a client that ends has to see to it that the job does. One that is
killed can't: the name of a job says which other start would be the same job (:func:`job_key`), so that the next
client finds it.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from k2beam.errors import FlinkRestError, PlatformError, UsageError

ENDED: Final = frozenset({"FINISHED", "FAILED", "CANCELED"})
"""The states of Flink that a job does not leave."""

_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.2
_SUBMISSION_S: Final = 90.0
"""What a submission may take from the client's end on: the job server uploads its archives first."""
_CANCEL_S: Final = 60.0
_RUNNING_S: Final = 300.0
"""What a job may take until all its tasks run: each TaskManager loads the archives, and workers start."""
_SETTLE_S: Final = 2.0
_THIS_MACHINE: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_METRICS_A_CALL: Final = 20
_EXCEPTION: Final = re.compile(r"(?:Caused by: )?[\w.$]+: ")
"""A line of a traceback that names an exception, in Python or in Java; places have a space before the colon."""
_NAME: Final = re.compile(r"(?P<label>.*)-(?P<key>[0-9a-f]{12})-(?P<run_id>[^-].*)")
"""The name of a job: what the user calls it, its key, the id of its run."""
_COUNTER_MARK: Final = ".k2beam_"
_COUNTER: Final = re.compile(r"\.k2beam_\w+$")
"""How Beam names a counter of the namespace ``k2beam`` among the metrics of a Flink task."""


@dataclass(frozen=True)
class FlinkJob:
    """A job: its id, name, and state in Flink's words (``RUNNING``, ``RESTARTING``, ``CANCELED``, …).

    ``started_ms`` is when the cluster got it (milliseconds UTC); ``tasks`` are its tasks, ``tasks_started`` those that
    are at work or through with it.
    """

    id: str
    name: str
    state: str
    started_ms: int = 0
    tasks: int = 0
    tasks_started: int = 0

    @property
    def key(self) -> str | None:
        """What it has in common with every start of the same job (:func:`job_key`); None for a job of others."""
        return _part(self.name, "key")

    @property
    def run_id(self) -> str | None:
        """The id of its run, by which its snapshots are known; None for a job of others."""
        return _part(self.name, "run_id")

    @property
    def label(self) -> str | None:
        """What the user calls it (``--job_name``); None for a job of others."""
        return _part(self.name, "label")

    @property
    def has_ended(self) -> bool:
        """Whether its state is one that a job does not leave."""
        return self.state in ENDED


@dataclass(frozen=True)
class JobFailure:
    """Why a job failed, whether it was started again or not: when (milliseconds UTC), and the cause in one line."""

    at_ms: int
    cause: str


class FlinkJobs:
    """The jobs of the cluster whose REST API is at ``url``, such as ``http://localhost:8081``; no scheme means http."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") if "://" in url else f"http://{url.rstrip('/')}"
        if not self.url.startswith(("http://", "https://")):
            raise PlatformError(f"{url} is not the address of Flink's REST API: give HOST:PORT or an http(s) URL")

    def overview(self) -> dict[str, Any]:
        """What the cluster says of itself: ``taskmanagers``, ``slots-total`` and so on. Raises FlinkRestError."""
        return self._ask("/overview")

    def jobs(self, name: str | None = None) -> list[FlinkJob]:
        """Every job that the cluster knows, also ended ones, or those of one name. Raises FlinkRestError."""
        found = map(_job, self._ask("/jobs/overview")["jobs"])
        return [job for job in found if name is None or job.name == name]

    def find(self, text: str) -> FlinkJob:
        """The job with this id, name, key or label: of several that which has not ended, or the latest.

        Raises UsageError where there is none, and where two of them run; and FlinkRestError.
        """
        found = [job for job in self.jobs() if text in (job.id, job.name, job.key, job.label)]
        running = [job for job in found if not job.has_ended]
        if len(running) > 1:
            raise UsageError(
                f"{len(running)} jobs run as {text}: name one by its id, {', '.join(one.id for one in running)}"
            )
        if not found:
            raise UsageError(f"{self.url} knows no job {text}: k2beam job list shows ids, keys and names")
        return max(running or found, key=lambda job: job.started_ms)

    def started(self, job_id: str) -> float:
        """When the cluster got a job, in seconds since the epoch. Raises FlinkRestError."""
        return float(self._ask(f"/jobs/{job_id}")["start-time"]) / 1000

    def checkpoints(self, job_id: str) -> dict[str, Any]:
        """Flink's statistics of a job's checkpoints: ``counts``, ``summary``, ``latest``. Raises FlinkRestError."""
        return self._ask(f"/jobs/{job_id}/checkpoints")

    def failures(self, job_id: str) -> list[JobFailure]:
        """The failures of a job that Flink remembers (by default 16), the newest first. Raises FlinkRestError."""
        entries = self._ask(f"/jobs/{job_id}/exceptions").get("exceptionHistory", {}).get("entries", [])
        return [JobFailure(int(entry["timestamp"]), root_cause(entry["stacktrace"])) for entry in entries]

    def counters(self, job_id: str) -> Counter[str]:
        """The project's Beam counters of a job, by name, summed over its tasks. Raises FlinkRestError.

        As of Flink's last look (``metrics.fetcher.update-interval``), which each call prompts anew, and since the
        job last started: after a restart from a checkpoint they begin at 0.
        """
        totals: Counter[str] = Counter()
        for vertex in self._ask(f"/jobs/{job_id}")["vertices"]:
            metrics = f"/jobs/{job_id}/vertices/{vertex['id']}/subtasks/metrics"
            ours = [metric["id"] for metric in self._list(metrics) if _COUNTER.search(metric["id"])]
            for start in range(0, len(ours), _METRICS_A_CALL):
                names = urllib.parse.quote(",".join(ours[start : start + _METRICS_A_CALL]))
                for metric in self._list(f"{metrics}?get={names}&agg=sum"):
                    totals[metric["id"].rpartition(_COUNTER_MARK)[2]] += int(metric["sum"])
        return totals

    def cancel(self, job_id: str) -> None:
        """Ask for a job's end; one that has ended already is left alone. Raises FlinkRestError."""
        try:
            self._get(f"/jobs/{job_id}?mode=cancel", "PATCH")
        except FlinkRestError:
            if self._ask(f"/jobs/{job_id}")["state"] not in ENDED:
                raise

    def _ask(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self._get(path)
        return found

    def _list(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._get(path)
        return found

    def _get(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310 - the scheme is checked
        try:
            with opener_of(self.url).open(request, timeout=_TIMEOUT_S) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            said = error.read()[:500].decode("utf-8", errors="replace")
            raise FlinkRestError(f"{method} {self.url}{path} was refused: {error}: {said}") from error
        except (OSError, ValueError) as error:
            raise FlinkRestError(f"{method} {self.url}{path} was not answered: {error}") from error


def opener_of(url: str) -> urllib.request.OpenerDirector:
    """What asks a server: one on this machine itself, and not through the proxy of the environment."""
    here = urllib.parse.urlsplit(url).hostname in _THIS_MACHINE
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if here else []))


def job_key(*parts: str | Iterable[str]) -> str:
    """Twelve hex digits that two starts of one job have in common, and two jobs have not.

    ``parts`` say what makes it the same job: the tables, and its sources, in any order.

    Examples:
        >>> from k2beam.flink import job_key
        >>> job_key("tables", ["trades", "quotes"]) == job_key("tables", ["quotes", "trades"])
        True
        >>> len(job_key("tables", ["trades"]))
        12
    """
    plain = [part if isinstance(part, str) else sorted(part) for part in parts]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:12]


def _part(name: str, part: str) -> str | None:
    found = _NAME.fullmatch(name)
    return None if found is None else found[part]


def _job(entry: dict[str, Any]) -> FlinkJob:
    """A job as ``/jobs/overview`` lists it."""
    tasks = entry.get("tasks", {})
    started = tasks.get("running", 0) + tasks.get("finished", 0)
    return FlinkJob(
        entry["jid"], entry["name"], entry["state"], entry.get("start-time", 0), tasks.get("total", 0), started
    )


def root_cause(trace: str) -> str:
    """The line of a stack trace of Java or Python that says why: the last one that names an exception.

    Examples:
        >>> from k2beam.flink import root_cause
        >>> root_cause("java.lang.RuntimeException: Error\\nTraceback:\\n  File x\\nValueError: seven\\n\\tat org.x")
        'ValueError: seven'
    """
    lines = [line.strip() for line in trace.splitlines() if line.strip()]
    named = [line for line in lines if _EXCEPTION.match(line)]
    return (named or lines or ["unknown"])[-1]


@dataclass(frozen=True)
class FlinkRun:
    """One run of the pipeline on a cluster, known there by its name; by its id too, once it has one.

    A job that this program submits has a name that no other job has. An archive (``k2beam build-jar``) may be started
    several times, always by the same name.
    """

    cluster: FlinkJobs
    name: str
    job_id: str | None = None

    @classmethod
    def of(cls, cluster: FlinkJobs, job: FlinkJob) -> FlinkRun:
        """The run that a job of the cluster is."""
        return cls(cluster, job.name, job.id)

    @property
    def run_id(self) -> str | None:
        """The id of the run, from the name."""
        return _part(self.name, "run_id")

    def job(self) -> FlinkJob | None:
        """The job as the cluster knows it; None where it does not. Raises FlinkRestError."""
        return next(iter(self._jobs()), None)

    def rivals(self) -> list[FlinkJob]:
        """Other runs of the same job, by its key, that have not ended, the oldest first. Raises FlinkRestError."""
        key = _part(self.name, "key")
        same = [job for job in self.cluster.jobs() if job.key == key and job.name != self.name and not job.has_ended]
        return sorted(same, key=lambda job: job.started_ms)

    def counters(self, settle_s: float = _SETTLE_S) -> Counter[str]:
        """The counters of the job, asked twice with a pause, as the first question is what makes Flink look."""
        found: Counter[str] = Counter()
        for job in self._jobs():
            self.cluster.counters(job.id)
            time.sleep(settle_s)
            found += self.cluster.counters(job.id)
        return found

    def failures(self) -> list[JobFailure]:
        """Why the job failed so far, the newest failure first. Raises FlinkRestError."""
        return [failure for job in self._jobs() for failure in self.cluster.failures(job.id)]

    def last_cause(self) -> str:
        """Why the job failed last. Raises FlinkRestError."""
        return next((failure.cause for failure in self.failures()), "no cause is known")

    def wait_running(self, look: Callable[[], None] = lambda: None, patience_s: float = _RUNNING_S) -> FlinkJob:
        """Wait until all tasks of the job run, and give it; ``look`` is called meanwhile.

        Raises:
            FlinkRestError: the API does not answer, the job did not come up in ``patience_s`` seconds, or it ended.
        """
        job: FlinkJob | None = None

        def runs() -> bool:
            nonlocal job
            look()
            job = self.job()
            if job is not None and job.has_ended:
                raise FlinkRestError(f"job {self.name} ended as {job.state}: {self.last_cause()}")
            return job is not None and job.state == "RUNNING" and job.tasks == job.tasks_started > 0

        self._until(runs, patience_s, "does not run")
        assert job is not None
        return job

    def end(self, submitted: bool = True, submission_s: float = _SUBMISSION_S, cancel_s: float = _CANCEL_S) -> None:
        """Cancel the job and wait until it has ended.

        With ``submitted`` a job that the cluster does not have yet is waited for: a submission goes on when its
        client ends. Without, nothing is done where there is no job.

        Raises:
            FlinkRestError: the API does not answer or refuses, or the job did not end, or never came.
        """
        if submitted:
            self._until(lambda: bool(self._jobs()), submission_s, "has not come up")
        for job in self._running():
            self.cluster.cancel(job.id)
        self.wait_ended(cancel_s)

    def wait_ended(self, patience_s: float = _CANCEL_S) -> None:
        """Wait until the job has ended. Raises FlinkRestError as :meth:`end` does."""
        self._until(lambda: not self._running(), patience_s, "has not ended")

    def _running(self) -> list[FlinkJob]:
        return [job for job in self._jobs() if not job.has_ended]

    def _jobs(self) -> list[FlinkJob]:
        return [job for job in self.cluster.jobs(self.name) if self.job_id in (None, job.id)]

    def _until(self, reached: Callable[[], bool], patience_s: float, what: str) -> None:
        deadline = time.monotonic() + patience_s
        while not reached():
            if time.monotonic() > deadline:
                raise FlinkRestError(
                    f"job {self.name} {what} at {self.cluster.url} after {patience_s:.0f} s: look for it there and "
                    f"cancel it by hand, since it would run on without this program"
                )
            time.sleep(_POLL_S)
