"""Whether a worker has the versions that its job was made by: what one of them pickles the other may not read."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence

import apache_beam

from k2beam.version import RELEASE

_MADE_BY = "k2beam_made_by="
"""The experiment among a pipeline's options that has the versions."""


def versions() -> str:
    """What both must have in common, without a comma: Beam parts experiments at commas."""
    python = ".".join(platform.python_version_tuple()[:2])
    return f"k2beam/{RELEASE} apache-beam/{apache_beam.__version__} python/{python}"


def made_by() -> str:
    """The experiment that tells workers what their job was made by."""
    return f"{_MADE_BY}{versions()}"


def other_versions(experiments: Sequence[str]) -> str | None:
    """What is wrong with this worker for a job with these experiments; None where nothing is, or they don't say."""
    wanted = next((text.removeprefix(_MADE_BY) for text in experiments if text.startswith(_MADE_BY)), versions())
    if wanted == versions():
        return None
    return (
        f"the worker on {platform.node()} ({sys.prefix}) has {versions()}, and the job was started with {wanted}: "
        "install the same there"
    )
