"""What k2beam raises on purpose, as one line on standard error and an exit code."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from k2beam.cli.output import printable
from k2beam.errors import K2BeamError, UsageError
from k2beam.logs import get_logger

BROKEN_PIPE = 141
"""What a shell reports for a program that SIGPIPE ended."""

P = ParamSpec("P")
_T = TypeVar("_T")


def run_guarded(function: Callable[P, _T], /, *args: P.args, **kwargs: P.kwargs) -> _T:
    """Call ``function``; what k2beam raises on purpose becomes one line on standard error and an exit code.

    UsageError exits with 2, any other K2BeamError with 1, a reader of the pipe that went away with
    141. So does an error of the operating system, such as a full disk, with 1, and one of a catalog, a store or their
    drivers by what it means; its traceback is in the log at DEBUG. Everything else is a defect and keeps its traceback.
    """
    try:
        return function(*args, **kwargs)
    except K2BeamError as error:
        sys.stderr.write(f"Error: {printable(str(error))}\n")
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from error
    except BrokenPipeError:
        raise SystemExit(BROKEN_PIPE) from None
    except Exception as error:
        own = _own(error)
        if own is None and not isinstance(error, OSError):
            raise
        get_logger("cli").debug("where it came from", exc_info=True)
        sys.stderr.write(f"Error: {printable(str(own or error))}\n")
        raise SystemExit(2 if isinstance(own, UsageError) else 1) from error


def _own(error: Exception) -> K2BeamError | None:
    """Only what is loaded already can have raised it, and takes seconds to load."""
    if "strictyaml" in sys.modules:
        from strictyaml import YAMLError

        if isinstance(error, YAMLError):  # then pyiceberg itself can't be imported
            said = " ".join(str(error).split())
            return UsageError(f"the configuration of pyiceberg, .pyiceberg.yaml, is not the YAML that it takes: {said}")
    if "k2beam.lake.patience" not in sys.modules:
        return None
    from k2beam.lake.patience import own_error

    return own_error(error)


def guarded(command: Callable[P, _T]) -> Callable[P, _T]:
    """:func:`run_guarded` as a decorator for a typer command."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> _T:
        return run_guarded(command, *args, **kwargs)

    return run
