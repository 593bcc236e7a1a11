"""Beam's own options: what follows ``--`` on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)

from k2beam.errors import UsageError
from k2beam.flink import FlinkJobs, FlinkRun
from k2beam.job.versions import made_by
from k2beam.stack.prism import find_prism

DEFAULT_RUNNER = "FnApiRunner"
"""Beam's in-process runner: needs nothing but Python. DirectRunner would first look for Prism."""

DIRECT_RUNNERS = frozenset({"DirectRunner", "SwitchingDirectRunner", "PrismRunner"})
"""The runners that are, or may choose, Prism."""

IN_PROCESS_RUNNERS = DIRECT_RUNNERS | {DEFAULT_RUNNER, "BundleBasedDirectRunner"}
"""The runners whose options are all known to Beam's Python."""

_RUNNERS = sorted({*StandardOptions.KNOWN_RUNNER_NAMES, DEFAULT_RUNNER})
_KNOWN_RUNNERS = frozenset(name.rpartition(".")[2].lower() for name in (*StandardOptions.ALL_KNOWN_RUNNERS, *_RUNNERS))

_EMBEDDED_FLINK = frozenset({"[auto]", "[local]", "[collection]"})


def beam_options(
    arguments: Sequence[str], *, streaming: bool = False, default_runner: str = DEFAULT_RUNNER
) -> PipelineOptions:
    """Beam's options from what follows ``--`` on the command line.

    Without a ``--runner`` the in-process runner is taken, and also for a DirectRunner that is given
    a number or mode of workers. A Prism that is at hand is named to the runners that may choose
    it, so that none is downloaded. Raises UsageError for a runner or, on the runners of this process, an option
    that Beam does not know.
    """
    given = list(arguments)
    if not any(argument == "--runner" or argument.startswith("--runner=") for argument in given):
        given.append(f"--runner={default_runner}")
    options: PipelineOptions = PipelineOptions(given)
    chosen: dict[str, Any] = options.get_all_options()
    _check(options, chosen["runner"])
    if chosen["runner"] in DIRECT_RUNNERS and _wants_workers(given):
        # Prism would ignore these options; the in-process runner is what has them.
        given.append(f"--runner={DEFAULT_RUNNER}")
    elif chosen["runner"] in DIRECT_RUNNERS and not chosen.get("prism_location"):
        prism = find_prism()
        if prism is not None:
            given += [f"--prism_location={prism}", "--environment_type=LOOPBACK"]
    if streaming:
        given.append("--streaming")
    if chosen["runner"] not in IN_PROCESS_RUNNERS:
        given.append(f"--experiments={made_by()}")
    return PipelineOptions(given)


def _check(options: PipelineOptions, runner: str) -> None:
    """Beam itself only warns of an option that it does not know. A job server may know more than Python does."""
    if "." not in runner and not {runner.lower(), f"{runner.lower()}runner"} & _KNOWN_RUNNERS:
        raise UsageError(f"--runner={runner}: Beam has no such runner; choose from {', '.join(_RUNNERS)}")
    if runner in IN_PROCESS_RUNNERS:
        known, all_given = options.get_all_options(), options.get_all_options(retain_unknown_options=True)
        unknown = sorted(f"--{name}" for name in all_given.keys() - known.keys())
        if unknown:
            raise UsageError(f"{', '.join(unknown)} after --: Beam has no such option")


def is_prism(options: PipelineOptions) -> bool:
    """Whether the runner is, or may choose, Prism."""
    return options.get_all_options()["runner"] in DIRECT_RUNNERS


def flink_run(options: PipelineOptions, key: str, run_id: str) -> FlinkRun | None:
    """The run as its Flink cluster will know it, or None where the job ends with its client.

    The job is named (:func:`name_job`), by which it is found. Raises UsageError for a job server without the address
    of its cluster, since the job could not be ended.
    """
    master: str = options.view_as(FlinkRunnerOptions).flink_master
    on_flink = options.get_all_options()["runner"] == "FlinkRunner"
    if master in _EMBEDDED_FLINK:
        if on_flink and options.view_as(PortableOptions).job_endpoint:
            raise UsageError(
                "--flink_master=HOST:PORT (Flink's REST API) is needed beside --job_endpoint: a job outlives its "
                "client, and is ended there"
            )
        return None
    return FlinkRun(FlinkJobs(master), name_job(options, key, run_id))


def name_job(options: PipelineOptions, key: str, run_id: str) -> str:
    """Add the key of the job and the id of its run to its name, by which a cluster knows it; gives the name."""
    named = options.view_as(GoogleCloudOptions)  # where Python keeps the name, whatever the runner
    named.job_name = f"{named.job_name or 'k2beam'}-{key}-{run_id}"
    return str(named.job_name)


def check_on_flink(options: PipelineOptions, option: str) -> None:
    """Raises UsageError, naming ``option``, unless the job is to run on a Flink cluster."""
    if options.view_as(FlinkRunnerOptions).flink_master in _EMBEDDED_FLINK:
        raise UsageError(f"{option} is for Flink clusters: elsewhere a job ends with its client")


def check_outlives_client(options: PipelineOptions, option: str) -> None:
    """Raises UsageError, naming ``option``, unless a job with these options works on without its client."""
    check_on_flink(options, option)
    _check_workers(options, option)


def check_as_jar(options: PipelineOptions) -> None:
    """Raises UsageError unless a job with these options can be an archive that Flink's own tools start."""
    if options.get_all_options()["runner"] != "FlinkRunner":
        raise UsageError("k2beam build-jar is for --runner=FlinkRunner, which it takes by itself: leave --runner out")
    server = options.view_as(PortableOptions).job_endpoint
    if server or options.view_as(FlinkRunnerOptions).flink_master not in _EMBEDDED_FLINK:
        raise UsageError(
            "--flink_master and --job_endpoint are not for k2beam build-jar: whoever starts the archive says where"
        )
    if not options.view_as(PortableOptions).environment_type:
        raise UsageError("k2beam build-jar needs --environment_type, such as EXTERNAL, with k2beam worker pool")
    _check_workers(options, "k2beam build-jar")


def _check_workers(options: PipelineOptions, what: str) -> None:
    """Raises UsageError, naming ``what``, for workers that are there only as long as the client is."""
    if options.view_as(PortableOptions).environment_type == "LOOPBACK":
        raise UsageError(
            f"{what} is not for --environment_type=LOOPBACK: there the client is the worker, and no job works on "
            "without it. Take EXTERNAL, with k2beam worker pool"
        )


def uneven_readers(options: PipelineOptions, partitions: int) -> str | None:
    """What is wrong with ``--parallelism`` for so many partitions on Flink, or None.

    Beam makes as many readers as parallelism, and more until the partitions are shared equally; a task that gets
    two takes a message from each in turn, and waits for the one that has none.
    """
    parallelism: int = options.view_as(FlinkRunnerOptions).parallelism
    if parallelism < 1 or partitions <= parallelism or partitions % parallelism == 0:
        return None
    fitting = [number for number in range(1, partitions + 1) if partitions % number == 0]
    return (
        f"--parallelism={parallelism} does not divide {partitions} partitions: a quiet partition then slows its "
        f"neighbours to some hundred messages a second; take one of {', '.join(map(str, fitting))}"
    )


def _wants_workers(arguments: Sequence[str]) -> bool:
    return any(argument.startswith(("--direct_num_workers", "--direct_running_mode")) for argument in arguments)
