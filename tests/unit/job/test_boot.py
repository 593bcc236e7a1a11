"""A worker's start: what it asks its runner, and how one that can't work says so."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    endpoints_pb2,
)
from apache_beam.runners.worker import bundle_processor
from google.protobuf import struct_pb2

from k2beam.errors import WorkerRefused
from k2beam.job import boot
from k2beam.job.beam import refuse_work, work_as_we_need
from k2beam.job.boot import Endpoints, environment_of
from k2beam.job.versions import made_by, other_versions, versions


class Provision(beam_provision_api_pb2_grpc.ProvisionServiceServicer):
    """A runner that says what a worker needs, and remembers who asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def GetProvisionInfo(self, _request: Any, context: Any) -> Any:  # noqa: N802 - Beam's name
        self.asked.append(dict(context.invocation_metadata())["worker_id"])
        options = struct_pb2.Struct()
        options.update({"beam:option:job_name:v1": "x"})
        info = beam_provision_api_pb2.ProvisionInfo(
            pipeline_options=options,
            control_endpoint=endpoints_pb2.ApiServiceDescriptor(url="localhost:1"),
            runner_capabilities=["a", "b"],
        )
        return beam_provision_api_pb2.GetProvisionInfoResponse(info=info)


@pytest.fixture
def runner() -> Iterator[tuple[Provision, str]]:
    server, servicer = grpc.server(ThreadPoolExecutor(1)), Provision()
    beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(0)


def test_a_worker_is_started_with_what_its_runner_says(runner: tuple[Provision, str]) -> None:
    servicer, address = runner
    found = environment_of("7-1", Endpoints(address, control="localhost:9", logging="localhost:2"))
    assert servicer.asked == ["7-1"]
    assert (found["WORKER_ID"], found["RUNNER_CAPABILITIES"]) == ("7-1", "a b")
    assert '"beam:option:job_name:v1": "x"' in found["PIPELINE_OPTIONS"]
    assert "localhost:1" in found["CONTROL_API_SERVICE_DESCRIPTOR"], "the runner knows better"
    assert "localhost:2" in found["LOGGING_API_SERVICE_DESCRIPTOR"]


def test_a_runner_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "ANSWER_SECONDS", 0.2)
    with pytest.raises(WorkerRefused, match=r"the runner at 127\.0\.0\.1:9 does not say what worker 1-1 is to do"):
        environment_of("1-1", Endpoints("127.0.0.1:9"))


def test_other_versions_are_told_with_both() -> None:
    assert other_versions(["beam_fn_api", made_by()]) is None
    assert other_versions(["beam_fn_api"]) is None, "another program's job"
    said = other_versions([made_by().replace("k2beam/", "k2beam/9")])
    assert said is not None
    assert f"has {versions()}, and the job was started with k2beam/9" in said
    assert "," not in made_by(), "Beam parts experiments at commas"


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test changes of Beam's processor is put back."""
    for name in ("__init__", "try_split"):
        monkeypatch.setattr(bundle_processor.BundleProcessor, name, getattr(bundle_processor.BundleProcessor, name))


def a_bundle() -> tuple[Any, SimpleNamespace, list[str]]:
    """A description of a bundle whose one step can't be set up, and the addresses that are connected to for it."""
    port = beam_fn_api_pb2.RemoteGrpcPort(api_service_descriptor=endpoints_pb2.ApiServiceDescriptor(url="localhost:3"))
    descriptor = beam_fn_api_pb2.ProcessBundleDescriptor()
    source = descriptor.transforms["source"]
    source.spec.urn, source.spec.payload = bundle_processor.DATA_INPUT_URN, port.SerializeToString()
    source.outputs["out"] = "elements"
    descriptor.transforms["step"].spec.urn = "unknown"
    descriptor.transforms["step"].inputs["in"] = "elements"
    connected: list[str] = []
    channels = SimpleNamespace(
        create_data_channel=lambda port: connected.append(port.api_service_descriptor.url),
        create_data_channel_from_url=connected.append,
    )
    return descriptor, channels, connected


@pytest.mark.usefixtures("as_before")
def test_a_bundle_is_connected_to_before_its_setup_fails() -> None:
    """Flink's runner waits for the connection, and only then looks at the answer."""
    work_as_we_need()
    descriptor, channels, connected = a_bundle()
    with pytest.raises(Exception, match=r"elements|unknown"):
        bundle_processor.BundleProcessor(frozenset(), descriptor, None, channels)
    assert connected == ["localhost:3"]


@pytest.mark.usefixtures("as_before")
def test_a_worker_that_is_refused_fails_each_bundle_with_the_reason() -> None:
    refuse_work("other versions")
    descriptor, channels, connected = a_bundle()
    with pytest.raises(WorkerRefused, match="other versions"):
        bundle_processor.BundleProcessor(frozenset(), descriptor, None, channels)
    assert connected == ["localhost:3"]
