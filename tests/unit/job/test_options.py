"""Beam's options: which runner is taken, and what it is told of Prism."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k2beam.cli.main import split_beam_options
from k2beam.config import LakeConfig
from k2beam.errors import UsageError
from k2beam.job import options as module
from k2beam.job.config import IngestConfig
from k2beam.job.options import beam_options
from tests.lake_helpers import write_config


def chosen(*arguments: str, streaming: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = beam_options(arguments, streaming=streaming).get_all_options()
    return found


@pytest.fixture(autouse=True)
def prism_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_prism", lambda: Path("/cache/prism"))


def test_the_in_process_runner_is_the_default() -> None:
    assert chosen()["runner"] == "FnApiRunner"
    assert chosen()["prism_location"] is None
    assert not chosen()["streaming"]
    assert chosen(streaming=True)["streaming"]


@pytest.mark.parametrize("arguments", [["--runner=DirectRunner"], ["--runner", "PrismRunner"]])
def test_a_prism_at_hand_is_used_and_none_downloaded(arguments: list[str]) -> None:
    found = chosen(*arguments)
    assert (found["prism_location"], found["environment_type"]) == ("/cache/prism", "LOOPBACK")
    assert chosen(*arguments, "--prism_location=/mine")["prism_location"] == "/mine"


def test_without_a_prism_the_runner_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_prism", lambda: None)
    assert chosen("--runner=DirectRunner")["runner"] == "DirectRunner"
    assert chosen("--runner=DirectRunner")["prism_location"] is None


def test_workers_are_the_in_process_runners() -> None:
    found = chosen("--runner=DirectRunner", "--direct_num_workers=2", "--direct_running_mode", "multi_processing")
    assert (found["runner"], found["direct_num_workers"], found["prism_location"]) == ("FnApiRunner", 2, None)


def test_what_follows_the_dashes_is_beams() -> None:
    assert split_beam_options(["ingest", "a", "--", "--x", "--", "y"]) == (["ingest", "a"], ("--x", "--", "y"))
    assert split_beam_options(["ingest"]) == (["ingest"], ())


def test_a_negative_grace_is_refused() -> None:
    with pytest.raises(UsageError, match="--gap-grace"):
        IngestConfig(LakeConfig(warehouse="w"), write_config(), gap_grace_seconds=-1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--runner=NoRunner",), "--runner=NoRunner: Beam has no such runner; choose from .*FlinkRunner"),
        (("--direct_num_wokers=2", "--x"), "--direct_num_wokers, --x after --: Beam has no such option"),
        (("--runner=PrismRunner", "--streamin"), "--streamin"),
    ],
)
def test_what_beam_does_not_know_is_refused(arguments: tuple[str, ...], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        beam_options(arguments)


def test_a_job_server_may_know_more() -> None:
    assert beam_options(("--runner=FlinkRunner", "--job_endpoint=x:1", "--of_the_server=1")) is not None
    assert beam_options(("--runner=some.other.Runner", "--its_own=1")) is not None
