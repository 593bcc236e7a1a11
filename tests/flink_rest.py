"""Flink's REST API as tests need it, in the test's own process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

from k2beam.flink import FlinkJobs
from tests.http_servers import QuietHandler, serving


class Cluster:
    """Flink's REST API with jobs that end some calls after they are cancelled."""

    def __init__(self) -> None:
        self.states: dict[str, list[str]] = {}
        """The states of each job, named by its id, one for each time it is listed; the last stays."""
        self.names: dict[str, str] = {}
        self.started: dict[str, int] = {}
        self.tasks: dict[str, dict[str, int]] = {}
        self.cancelled: list[str] = []
        self.stubborn: set[str] = set()
        self.answers: dict[str, object] = {}
        self.listed = 0
        self.comes_at = 0

    def answer(self, method: str, path: str) -> tuple[int, object]:
        if method == "PATCH":
            return self._cancel(path.split("/")[2].partition("?")[0])
        if path == "/jobs/overview":
            self.listed += 1
            jobs = self.states if self.listed > self.comes_at else {}
            return 200, {"jobs": [self._entry(job) for job in jobs]}
        found = self.answers.get(unquote(path))
        return (404, {"errors": ["not found"]}) if found is None else (200, found)

    def _entry(self, job: str) -> dict[str, object]:
        named = {"jid": job, "name": self.names.get(job, f"name-{job}"), "state": self._state(job)}
        return {
            **named,
            "start-time": self.started.get(job, 0),
            "tasks": self.tasks.get(job, {"total": 2, "running": 2}),
        }

    def _state(self, job: str) -> str:
        states = self.states[job]
        return states.pop(0) if len(states) > 1 else states[0]

    def _cancel(self, job: str) -> tuple[int, object]:
        if job in self.stubborn:
            return 404, {"errors": ["Job could not be found."]}
        self.cancelled.append(job)
        self.states[job] = ["CANCELLING", "CANCELED"]
        return 202, {}


@contextmanager
def flink_rest() -> Iterator[tuple[Cluster, FlinkJobs]]:
    """A cluster that a test fills with jobs, and what asks it."""
    made = Cluster()

    class Handler(QuietHandler):
        def _reply(self) -> None:
            code, content = made.answer(self.command, self.path)
            self.answer(code, json.dumps(content).encode())

        do_GET = do_PATCH = _reply  # noqa: N815 - the names that http.server calls

    with serving(Handler) as url:
        yield made, FlinkJobs(url.removeprefix("http://"))
