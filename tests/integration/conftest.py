"""The servers that the live tests share: one Kafka and one Schema Registry for a whole run."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from k2beam.errors import PlatformError
from k2beam.job.config import Reader
from k2beam.stack.flink import FLINK_SERVICES
from k2beam.stack.stack import LocalStack
from tests.integration.servers import servers_up


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """Kafka and a registry on free ports, up for the session.

    A test that stops one starts it again. Topics and subjects are shared: take names of your own (``unique``).
    """
    local = LocalStack(tmp_path_factory.mktemp("stack"), services=("kafka", "registry"), free_ports=True)
    with servers_up(local, "local stack (kafka, registry)"):
        yield local


@pytest.fixture(scope="session")
def live(stack: LocalStack) -> LocalStack:
    """The session's stack with the Java expansion service beside it."""
    try:
        stack.start("expansion")
    except PlatformError as error:
        pytest.skip(f"no expansion service: {error}")
    return stack


@pytest.fixture(scope="module")
def flink(stack: LocalStack) -> Iterator[LocalStack]:
    """The session's stack with Flink beside it."""
    beside = LocalStack(stack.state, FLINK_SERVICES, free_ports=True)
    with servers_up(beside, "Flink", FLINK_SERVICES):
        yield beside


@pytest.fixture(params=list(Reader), ids=str)
def reader(request: pytest.FixtureRequest) -> Reader:
    """Each of the two that read topics: the test runs over both."""
    found: Reader = request.param
    return found


@pytest.fixture
def unique() -> Callable[[str], str]:
    """A name that no other test has: ``unique("ticks")`` is ``ticks-`` and eight hex digits."""
    return lambda name: f"{name}-{uuid.uuid4().hex[:8]}"
