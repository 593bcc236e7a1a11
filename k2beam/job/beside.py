"""What a running job does beside its work: tried a few times, and a warning where it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from k2beam.config import RetryPolicy, WriteConfig
from k2beam.errors import K2BeamError, Stopped
from k2beam.lake.patience import is_away
from k2beam.logs import get_logger

TRIES = 3
"""A commit beside the work is tried so often at most: the job's loop waits for it, and the next look does it again."""


def few_tries(write: WriteConfig) -> RetryPolicy:
    """The policy of a job's commits, with :data:`TRIES` attempts at most."""
    return replace(write.retry, attempts=min(TRIES, write.retry.attempts))


@contextmanager
def warned(said: str) -> Iterator[None]:
    """Let nothing that fails within end the job: ``said`` is logged with the reason."""
    try:
        yield
    except Stopped:
        return
    except Exception as error:
        if not (isinstance(error, (K2BeamError, OSError)) or is_away(error)):
            raise
        get_logger("live").warning(said, error=str(error))
