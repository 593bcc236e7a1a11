"""Options of a job on Flink: how its cluster will know it, and how partitions are shared."""

from __future__ import annotations

import pytest

from k2beam.errors import UsageError
from k2beam.job.options import (
    beam_options,
    check_as_jar,
    check_on_flink,
    check_outlives_client,
    flink_run,
    uneven_readers,
)

ON_FLINK = ("--runner=FlinkRunner", "--flink_master=here:8081", "--job_endpoint=here:8099")


KEY = "0123456789ab"


def test_a_run_on_a_cluster_has_a_name_of_its_own() -> None:
    options = beam_options((*ON_FLINK, "--job_name=ticks"), streaming=True)
    run = flink_run(options, KEY, "0a1b")
    assert run is not None
    assert (run.name, run.run_id, run.cluster.url) == (f"ticks-{KEY}-0a1b", "0a1b", "http://here:8081")
    assert options.get_all_options()["job_name"] == run.name, "the name that Flink is given"
    unnamed = flink_run(beam_options(ON_FLINK), KEY, "0a1b")
    assert unnamed is not None
    assert unnamed.name == f"k2beam-{KEY}-0a1b"


@pytest.mark.parametrize(
    "arguments", [(), ("--runner=FlinkRunner",), ("--runner=FlinkRunner", "--flink_master=[auto]")]
)
def test_a_job_that_ends_with_its_client_needs_none(arguments: tuple[str, ...]) -> None:
    assert flink_run(beam_options(arguments), KEY, "x") is None
    with pytest.raises(UsageError, match="--replace is for Flink clusters"):
        check_on_flink(beam_options(arguments), "--replace")


def test_a_job_server_without_the_address_of_its_cluster_is_refused() -> None:
    with pytest.raises(UsageError, match="--flink_master=HOST:PORT"):
        flink_run(beam_options(("--runner=FlinkRunner", "--job_endpoint=here:8099")), KEY, "x")


def test_a_job_whose_worker_is_the_client_does_not_work_without_it() -> None:
    check_outlives_client(beam_options((*ON_FLINK, "--environment_type=EXTERNAL")), "--detach")
    with pytest.raises(UsageError, match="--detach is not for --environment_type=LOOPBACK"):
        check_outlives_client(beam_options((*ON_FLINK, "--environment_type=LOOPBACK")), "--detach")
    with pytest.raises(UsageError, match="--detach is for Flink clusters"):
        check_outlives_client(beam_options(()), "--detach")


@pytest.mark.parametrize(
    ("arguments", "partitions", "fits"),
    [
        ((), 3, True),
        (("--parallelism=2",), 4, True),
        (("--parallelism=2",), 3, False),
        (("--parallelism=8",), 3, True),
        (("--parallelism=2", "--parallelism=3"), 3, True),
        (("--parallelism=4",), 6, False),
    ],
)
def test_partitions_that_parallelism_does_not_divide_are_told(
    arguments: tuple[str, ...], partitions: int, fits: bool
) -> None:
    assert (uneven_readers(beam_options((*ON_FLINK, *arguments)), partitions) is None) is fits


def test_what_would_divide_them_is_said() -> None:
    told = uneven_readers(beam_options((*ON_FLINK, "--parallelism", "4")), 6)
    assert told is not None
    assert "--parallelism=4 does not divide 6 partitions" in told
    assert told.endswith("take one of 1, 2, 3, 6")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--environment_type=EXTERNAL", "--runner=PrismRunner"), "leave --runner out"),
        (("--environment_type=EXTERNAL", "--flink_master=here:8081"), "whoever starts the archive says where"),
        (("--environment_type=EXTERNAL", "--job_endpoint=here:8099"), "whoever starts the archive says where"),
        (("--environment_type=LOOPBACK",), "k2beam build-jar is not for --environment_type=LOOPBACK"),
        ((), "k2beam build-jar needs --environment_type"),
    ],
)
def test_an_archive_knows_its_workers_and_no_cluster(arguments: tuple[str, ...], message: str) -> None:
    check_as_jar(beam_options(("--environment_type=EXTERNAL",), default_runner="FlinkRunner"))
    with pytest.raises(UsageError, match=message):
        check_as_jar(beam_options(arguments, default_runner="FlinkRunner"))
