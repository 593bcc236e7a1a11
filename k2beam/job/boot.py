"""A Python worker as a runner asks for one: Beam's container contract without a container.

The runner names an endpoint that knows the pipeline's options; the worker asks it, and connects. The options say what
the job was made by. A worker of other versions, whose pickles may not fit, does no work: it fails each bundle
with one sentence, which the runner makes the reason of the job's failure.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import grpc  # type: ignore[import-untyped]
from apache_beam.portability.api import (
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    endpoints_pb2,
)
from apache_beam.runners.worker import sdk_worker_main
from apache_beam.runners.worker.worker_id_interceptor import WorkerIdInterceptor
from google.protobuf import json_format, text_format

from k2beam.errors import WorkerRefused
from k2beam.job.beam import refuse_work, work_as_we_need
from k2beam.job.versions import other_versions
from k2beam.logs import inherit_logging

ANSWER_SECONDS = 60.0
"""How long the runner may take to say what a worker needs."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a runner is reached, each as ``host:port``; what the runner itself says goes before the last two."""

    provision: str
    control: str = ""
    logging: str = ""


def boot(worker_id: str, endpoints: Endpoints) -> None:
    """Do a runner's work until it closes the connection; then this process ends, whatever it is doing.

    Raises WorkerRefused where the runner does not say what to do.
    """
    inherit_logging()
    environment = environment_of(worker_id, endpoints)
    options = sdk_worker_main._parse_pipeline_options(environment["PIPELINE_OPTIONS"])
    refused = other_versions(options.get_all_options().get("experiments") or [])
    if refused is None:
        work_as_we_need()
    else:
        refuse_work(refused)
    os.environ.update(environment)
    try:
        sdk_worker_main.main([])
    finally:
        # A thread of the harness may be in a commit or wait for a server; nobody would hear of what it does.
        sys.stderr.flush()
        os._exit(0 if sys.exc_info()[0] is None else 1)


def environment_of(worker_id: str, endpoints: Endpoints) -> dict[str, str]:
    """The variables that Beam's harness is started with, as the runner's provision service says."""
    channel = grpc.intercept_channel(grpc.insecure_channel(endpoints.provision), WorkerIdInterceptor(worker_id))
    stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
    request = beam_provision_api_pb2.GetProvisionInfoRequest()
    try:
        info = stub.GetProvisionInfo(request, timeout=ANSWER_SECONDS, wait_for_ready=True).info
    except grpc.RpcError as error:
        raise WorkerRefused(
            f"the runner at {endpoints.provision} does not say what worker {worker_id} is to do: {error.details()}"
        ) from error
    found = {
        "WORKER_ID": worker_id,
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
        "CONTROL_API_SERVICE_DESCRIPTOR": _descriptor(info.control_endpoint.url or endpoints.control),
    }
    if logging := info.logging_endpoint.url or endpoints.logging:
        found["LOGGING_API_SERVICE_DESCRIPTOR"] = _descriptor(logging)
    return found


def boot_main(arguments: Sequence[str] | None = None) -> None:
    """What a runner starts as a process (``--environment_type=PROCESS``): it adds these options itself."""
    parser = argparse.ArgumentParser(prog="k2beam-boot", description=boot_main.__doc__)
    parser.add_argument("--id", required=True)
    parser.add_argument("--provision_endpoint", required=True)
    parser.add_argument("--control_endpoint", default="")
    parser.add_argument("--logging_endpoint", default="")
    given, _ = parser.parse_known_args(arguments)
    try:
        boot(given.id, Endpoints(given.provision_endpoint, given.control_endpoint, given.logging_endpoint))
    except WorkerRefused as error:
        raise SystemExit(f"Error: {error}") from error


def _descriptor(url: str) -> str:
    return str(text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=url)))


if __name__ == "__main__":
    boot_main()
