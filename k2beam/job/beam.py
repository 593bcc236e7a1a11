"""A running Beam job as the program that started it sees it: its state, why it failed, its cancellation.

Much here works round what Beam does by itself in the process that starts a job: it takes SIGINT, ends the runner
with it, reports each part of a cancellation as a failure, and splits what must stay whole.
"""

from __future__ import annotations

import functools
import logging
import signal
import subprocess
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import apache_beam as beam
import grpc  # type: ignore[import-untyped]
from apache_beam import pipeline as beam_pipeline
from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability import job_server
from apache_beam.runners.runner import PipelineState
from apache_beam.runners.worker import bundle_processor, sdk_worker
from apache_beam.utils import subprocess_server

from k2beam.errors import K2BeamError, PlatformError, RunnerGone, WorkerRefused
from k2beam.flink import root_cause
from k2beam.logs import get_logger

CANCEL_SECONDS = 30.0
POLL_SECONDS = 0.5
"""How often a job that is followed is looked at."""
vars(sdk_worker)["print"] = lambda *_, **__: None  # the worker prints a traceback besides logging it
ENDED_STATES = frozenset({PipelineState.DONE, PipelineState.FAILED, PipelineState.CANCELLED, PipelineState.DRAINED})
AGAIN = "run it again: what was committed is left out, the rest is taken"
_START_IT = f"start it, or give another address, and {AGAIN}"


def state_of(result: Any) -> str:
    """The runner's word on the job. Raises RunnerGone."""
    try:
        state: str = result.state
    except (grpc.RpcError, ValueError) as error:  # ValueError: its channel was closed
        raise RunnerGone(f"the runner of the job does not answer any more ({type(error).__name__}); {AGAIN}") from None
    return state


def reason_of(result: Any) -> str:
    """Why an ended job ended: of what the runner was told, the last line that names an exception."""
    root = logging.getLogger()
    root.addFilter(_nothing)  # Beam logs there once more what the workers have said
    try:
        result.wait_until_finish()
    except (RuntimeError, grpc.RpcError, ValueError) as error:
        return root_cause(str(error) or type(error).__name__)
    finally:
        root.removeFilter(_nothing)
    return "its input came to an end"


@contextmanager
def answered(server: str) -> Iterator[None]:
    """While it lasts, a server of Beam's that is needed and does not answer raises PlatformError, which names it."""
    try:
        yield
    except grpc.FutureTimeoutError as error:
        raise PlatformError(f"{server} does not answer: {_START_IT}") from error
    except grpc.RpcError as error:
        code = error.code().name if isinstance(error, grpc.Call) else type(error).__name__
        raise PlatformError(f"{server} does not answer ({code}): {_START_IT}") from error


def submitted(pipeline: beam.Pipeline) -> Any:
    """Beam's result of the pipeline, which runs from now on; signals stay ours. Raises PlatformError as answered."""
    endpoint = pipeline.options.view_as(PortableOptions).job_endpoint
    server = f"the job server at {endpoint} (--job_endpoint)" if endpoint else "the runner that Beam started"
    with _signals_to_us(), answered(server):
        return pipeline.run()


@contextmanager
def ended_after(end: Callable[[], None]) -> Iterator[None]:
    """What is raised while it lasts ends the job by ``end``; K2BeamError has both where that fails too."""
    try:
        yield
    except BaseException as error:
        try:
            end()
        except K2BeamError as left:
            raise K2BeamError(f"{str(error) or type(error).__name__}. Besides, {left}") from error
        raise


def _nothing(_record: logging.LogRecord) -> bool:
    return False


def cancel(result: Any) -> bool:
    """Cancel the job, in a thread, since a runner that hangs must not keep the process; whether it had not ended."""
    try:
        state = state_of(result)
    except RunnerGone:
        return True
    if state == PipelineState.DONE:
        _in_time(result.wait_until_finish)  # Beam ends its worker in this process by that
    if state in ENDED_STATES:
        return False
    quiet.begin()
    _in_time(partial(_tell, result))
    return True


def _in_time(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(CANCEL_SECONDS)


def _tell(result: Any) -> None:
    try:
        result.cancel()
    except (grpc.RpcError, ValueError) as error:
        get_logger("live").warning("the runner went away before it was told to cancel the job", error=str(error))


class Quiet:
    """Hides what Beam says from the cancellation of one job to the start of the next.

    A cancelled bundle fails wherever it stands, on purpose, and each of Beam's threads reports that its stream is
    gone. Nothing of it is news: the work is thrown away. Our own lines and those of other libraries stay.
    """

    def __init__(self) -> None:
        self._on = False
        self._handlers: list[logging.Handler] = []
        self._hook = threading.excepthook

    def begin(self) -> None:
        """Hide from now on."""
        self.end()
        self._on = True
        self._handlers = list(logging.getLogger().handlers)
        for handler in self._handlers:
            handler.addFilter(_is_not_beams)
        self._hook, threading.excepthook = threading.excepthook, self._on_exception

    def end(self) -> None:
        """Show everything again."""
        if not self._on:
            return
        self._on = False
        for handler in self._handlers:
            handler.removeFilter(_is_not_beams)
        threading.excepthook = self._hook

    def _on_exception(self, raised: Any) -> None:
        if not issubclass(raised.exc_type, grpc.RpcError):
            self._hook(raised)


def _is_not_beams(record: logging.LogRecord) -> bool:
    return not record.name.startswith(("apache_beam", "PrismRunner", "SdkWorker"))


quiet = Quiet()


@contextmanager
def _signals_to_us() -> Iterator[None]:
    """While it lasts, what Beam starts can't take SIGINT for itself.

    A terminal sends Ctrl-C to the whole process group, and Beam's handler for it ends the runner at once: either way
    the runner would be gone before the job could be cancelled.
    """
    modules = (subprocess_server, "subprocess"), (job_server, "signal")
    plain = [(module, name, getattr(module, name)) for module, name in modules]
    apart = functools.partial(subprocess.Popen, process_group=0)
    subprocess_server.subprocess = types.SimpleNamespace(**{**vars(subprocess), "Popen": apart})
    job_server.signal = types.SimpleNamespace(**{**vars(signal), "signal": lambda *_: None})
    try:
        yield
    finally:
        for module, name, before in plain:
            setattr(module, name, before)


_split = bundle_processor.BundleProcessor.try_split


_begin = bundle_processor.BundleProcessor.__init__


def work_as_we_need() -> None:
    """From now on, workers in this process keep bundles of state whole, and tell why one could not begin.

    They do not split a bundle of a step that has timers, as all of ours with state. Prism (2.77) asks any slow bundle
    to be split, between two elements of one key too, and then runs both parts at the same time: the state that one of
    them wrote is lost, and with it files that wait for their commit. Other runners split no such bundle. A worker may
    always answer that it can't (Beam Fn API, ProcessBundleSplitResponse).

    They connect for a bundle's data before the setup of its steps. Flink's runner (Beam 2.70) waits three minutes for
    that connection, and does not look meanwhile whether the worker has answered that the setup failed: a job whose
    first bundle fails then stands still, with no failure, no checkpoint, and nothing done.

    In a notebook the steps have the names that they have elsewhere. Beam puts the number of the cell before them, by
    code for interactive pipelines, which can't be loaded beside pandas 3 (Beam 2.77).
    """
    beam_pipeline.alter_label_if_ipython = _as_it_is
    bundle_processor.BundleProcessor.try_split = _split_unless_state
    bundle_processor.BundleProcessor.__init__ = _begin_connected


def _as_it_is(_transform: Any, _input: Any) -> None:
    """Leaves the label of a step alone."""


def refuse_work(said: str) -> None:
    """From now on, workers in this process fail each bundle with one sentence."""

    def refuse(_processor: Any, _capabilities: Any, descriptor: Any, _state: Any, channels: Any, *_: Any) -> None:
        _connect(descriptor, channels)
        raise WorkerRefused(said)

    bundle_processor.BundleProcessor.__init__ = refuse


def _split_unless_state(processor: Any, request: Any) -> Any:
    if processor.timers_info:
        return beam_fn_api_pb2.ProcessBundleSplitResponse()
    return _split(processor, request)


def _begin_connected(
    processor: Any, capabilities: Any, descriptor: Any, state: Any, channels: Any, *further: Any, **named: Any
) -> None:
    _connect(descriptor, channels)
    _begin(processor, capabilities, descriptor, state, channels, *further, **named)


def _connect(descriptor: Any, channels: Any) -> None:
    """Open the connections that a bundle of this description gets its data by; the bundle itself finds them open."""
    for transform in descriptor.transforms.values():
        if transform.spec.urn in (bundle_processor.DATA_INPUT_URN, bundle_processor.DATA_OUTPUT_URN):
            channels.create_data_channel(beam_fn_api_pb2.RemoteGrpcPort.FromString(transform.spec.payload))
