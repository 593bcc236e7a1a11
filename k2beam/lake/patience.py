"""Catalogs and object stores that are away for a while: told apart from those that refuse, and waited for.

A job waits (:data:`AWAY_SECONDS`) as it does for Kafka. Reads and writes of S3 are tried again by Arrow itself.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TypeVar

import requests
from pyarrow.fs import AwsStandardS3RetryStrategy
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    ForbiddenError,
    NotInstalledError,
    RESTError,
    ServerError,
    ServiceUnavailableError,
    TooManyRequestsError,
    UnauthorizedError,
)
from pyiceberg.io import S3_RETRY_STRATEGY_IMPL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from tenacity import RetryCallState, retry, retry_if_exception, stop_after_delay, wait_random_exponential

from k2beam.errors import K2BeamError, LakeError, StoreRefused, StoreUnavailable, UsageError, first_line
from k2beam.logs import get_logger

AWAY_SECONDS = 300.0
"""How long a job waits for a catalog or a store."""

_TRIES_OF_S3 = 40
"""Arrow waits up to 20 s between two, 10 on average: some minutes in all."""

_AWAY = (
    ServerError,
    ServiceUnavailableError,
    TooManyRequestsError,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    ConnectionError,
    TimeoutError,
)
_STORE_AWAY = re.compile(
    r"AWS Error (NETWORK_CONNECTION|REQUEST_TIMEOUT|SERVICE_UNAVAILABLE|SLOW_DOWN|THROTTLING|INTERNAL_FAILURE)"
    r"|google::cloud::Status\((UNAVAILABLE|DEADLINE_EXCEEDED|INTERNAL)|HTTP status 5\d\d"
)
_STORE_REFUSES = re.compile(
    r"AWS Error \w+|google::cloud::Status\((PERMISSION_DENIED|UNAUTHENTICATED)|HTTP status 40[13]"
)
_MAY_PASS = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, 419, HTTPStatus.TOO_MANY_REQUESTS})
"""Refusals of HTTP that another try may not get; 419 is a token that has expired (Iceberg's REST specification)."""

_DATABASE_REFUSES = re.compile(
    r"authentication failed|no pg_hba|does not exist|no password supplied"  # PostgreSQL
    r"|readonly|unable to open|disk is full|malformed"  # SQLite
)

_DRIVERS = {
    "psycopg2": "k2beam[postgres]",
    "boto3": "pyiceberg[glue]",
    "thrift": "pyiceberg[hive]",
    "s3fs": "pyiceberg[s3fs]",
    "gcsfs": "pyiceberg[gcsfs]",
    "adlfs": "pyiceberg[adlfs]",
}
"""What brings a module that catalogs and file systems may need; Arrow's own for S3, GCS and Azure need none."""

Result = TypeVar("Result")


def is_away(error: BaseException) -> bool:
    """Whether a catalog or store did not answer, and may soon: not what it refuses, lacks or finds damaged."""
    if isinstance(error, DBAPIError):
        known = error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError))
        return known and not _DATABASE_REFUSES.search(str(error.orig))
    if isinstance(error, _AWAY):
        return True
    return isinstance(error, OSError) and error.errno is None and _STORE_AWAY.search(str(error)) is not None


def is_refused(error: BaseException) -> bool:
    """Whether a store said no, by its rights or its settings: nothing is wrong with the file that was asked for."""
    if isinstance(error, PermissionError) or _refusal(error) is not None:
        return True
    return isinstance(error, OSError) and not is_away(error) and _STORE_REFUSES.search(str(error)) is not None


def own_error(error: BaseException, said_before: str = "") -> K2BeamError | None:
    """What an error of a catalog, a store or their drivers means to a user, in a sentence; None for anything else."""
    said = said_before + first_line(error)
    lacks = error.__cause__ if isinstance(error, NotInstalledError) else error
    if isinstance(lacks, ModuleNotFoundError) and (lacks is not error or lacks.name in _DRIVERS):
        brought_by = _DRIVERS.get(str(lacks.name), lacks.name)
        return UsageError(f"{said_before}the driver {lacks.name} is not installed: pip install '{brought_by}'")
    if is_away(error):
        return StoreUnavailable(f"{said}; it does not answer: is it up, and its address right?")
    if _refusal(error) == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return StoreRefused(
            f"{said}; the catalog takes no request of this size: expire snapshots (k2beam maintain expire --apply), "
            "or raise its limit"
        )
    if is_refused(error) or isinstance(error, (DBAPIError, ForbiddenError, UnauthorizedError)):
        return StoreRefused(f"{said}; look at the credentials, the rights and the names in its configuration")
    if isinstance(error, RESTError):
        return LakeError(f"{said}; the catalog does not take what it was asked ({type(error).__name__})")
    return None


def _refusal(error: BaseException) -> int | None:
    """The status with which a REST catalog refused a request for good; None where it did not."""
    status = getattr(getattr(error.__cause__, "response", None), "status_code", None)
    refused = isinstance(error, RESTError) and status is not None and 400 <= status < 500
    return status if refused and status not in _MAY_PASS else None


def waiting(call: Callable[..., Result]) -> Callable[..., Result]:
    """The call, made again while what it needs is away: logged, and given up after :data:`AWAY_SECONDS`."""
    told = retry(
        retry=retry_if_exception(is_away),
        stop=stop_after_delay(AWAY_SECONDS),
        wait=wait_random_exponential(multiplier=0.2, max=5.0),
        before_sleep=_tell,
        reraise=True,
    )
    return functools.wraps(call)(told(call))


def patient(catalog: Catalog) -> Catalog:
    """The catalog, whose tables are waited for, and whose S3 is tried for minutes where nothing else is configured."""
    catalog.properties.update(with_patience(catalog.properties))
    catalog.load_table = waiting(catalog.load_table)  # type: ignore[method-assign]
    return catalog


def with_patience(properties: Mapping[str, str]) -> dict[str, str]:
    """Settings of a store, by which S3 is tried for minutes where nothing else is configured."""
    return {S3_RETRY_STRATEGY_IMPL: f"{__name__}.{PatientRetries.__name__}", **properties}


class PatientRetries(AwsStandardS3RetryStrategy):  # type: ignore[misc]
    """Arrow's standard retries, some minutes of them."""

    def __init__(self) -> None:
        super().__init__(max_attempts=_TRIES_OF_S3)


def _tell(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    said = "" if error is None else first_line(error)
    get_logger("lake").warning(
        "the catalog or its store does not answer and is waited for",
        error=said,
        waited_s=round(state.seconds_since_start or 0.0, 1),
        gives_up_after_s=AWAY_SECONDS,
    )
