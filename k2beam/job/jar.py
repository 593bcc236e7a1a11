"""A pipeline as one Java archive, which Flink's own tools start: ``flink run -d OUT.jar``, or Flink's REST API.

Beam's own way from Python to such an archive hands it to Flink's REST API (``--flink_submit_uber_jar``). This is the
same without the last step: the archive is kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability.abstract_job_service import AbstractJobServiceServicer, UberJarBeamJob
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.portability.portable_runner import JobServiceHandle

from k2beam.cache import whole
from k2beam.errors import PlatformError, UsageError
from k2beam.stack.merged_jar import ensure_job_jar

_IN_FLINK = "EMBEDDED"
"""The environment of Java steps that run inside of the TaskManager: their classes are in the archive already."""


@dataclass(frozen=True, slots=True)
class FlinkJar:
    """An archive with a job: where it is, the name that the job will have in a cluster, and its size."""

    path: Path
    job_name: str
    nbytes: int


class JarRunner(FlinkRunner):  # type: ignore[misc]
    """Beam's runner for Flink that writes the job into ``out``, with all of Beam's classes, and starts nothing.

    The archive appears when it is whole, in place of one that was there. Raises UsageError where it can't be, and
    PlatformError where writing fails.
    """

    def __init__(self, out: Path) -> None:
        super().__init__()
        self._out = out
        self._partial = out
        if not out.parent.is_dir():
            raise UsageError(f"{out}: there is no folder {out.parent}")
        if out.is_dir():
            raise UsageError(f"{out} is a folder: name the archive to write")

    def run_portable_pipeline(self, pipeline: Any, options: PipelineOptions) -> Any:
        try:
            with whole(self._out) as self._partial:
                return super().run_portable_pipeline(pipeline, options)
        except OSError as error:
            raise PlatformError(f"{self._out} can't be written: {error}") from error

    def written(self, options: PipelineOptions) -> FlinkJar:
        """What was written for a job with these options."""
        return FlinkJar(self._out, options.view_as(GoogleCloudOptions).job_name, self._out.stat().st_size)

    def default_job_server(self, options: PipelineOptions) -> _Server:
        del options
        return _Server(self._partial)

    def create_job_service_handle(self, job_service: Any, options: PipelineOptions) -> JobServiceHandle:
        # No server tells what options Java has: all go along.
        return JobServiceHandle(job_service, options, retain_unknown_options=True)


class _Server(AbstractJobServiceServicer):  # type: ignore[misc]
    """Takes a job as Beam's job server does, in this process."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self._out = out

    def start(self) -> _Server:
        return self

    def create_beam_job(self, job_id: str, job_name: str, pipeline: Any, options: Any) -> _Job:
        return _Job(self._out, job_id, job_name, pipeline, options)


class _Job(UberJarBeamJob):  # type: ignore[misc]
    """A job that is done when its archive is written."""

    def __init__(self, out: Path, *described: Any) -> None:
        super().__init__(ensure_job_jar(), *described)
        self._jar = str(out)

    def prepare(self) -> None:
        for environment in self._pipeline_proto.components.environments.values():
            if environment.urn == _IN_FLINK:
                del environment.dependencies[:]
        shutil.copyfile(self._executable_jar, self._jar)
        self._start_artifact_service(self._jar, self._artifact_port)

    def run(self) -> None:
        self._stop_artifact_service()
        self.set_state(beam_job_api_pb2.JobState.DONE)

    def get_state_stream(self) -> Iterator[Any]:
        return iter(self._state_history)

    def get_message_stream(self) -> Iterator[Any]:
        return iter(())
