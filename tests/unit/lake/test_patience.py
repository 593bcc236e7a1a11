"""What is waited for, what is refused and what is damage, by the errors that catalogs and stores really give."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator

import pytest
import requests
from psycopg2 import OperationalError as PostgresError
from pyiceberg.exceptions import ForbiddenError, RESTError, ServerError, ServiceUnavailableError, UnauthorizedError
from sqlalchemy.exc import IntegrityError, OperationalError

from k2beam.errors import LakeError, StoreRefused, StoreUnavailable, UnreadableFile, UsageError
from k2beam.lake import patience
from k2beam.lake.patience import PatientRetries, is_away, is_refused, own_error, waiting
from k2beam.lake.scan import read_error
from tests.lake_helpers import answered

S3_DOWN = OSError(
    "When reading information for key 'x' in bucket 'lake': AWS Error NETWORK_CONNECTION during HeadObject operation: "
    "curlCode: 7, Could not connect to server"
)
S3_DENIED = OSError(
    "When reading information for key 'a' in bucket 'lake': AWS Error ACCESS_DENIED during HeadObject operation: No "
    "response body."
)
S3_NO_BUCKET = OSError("AWS Error NO_SUCH_BUCKET during CreateMultipartUpload operation: The bucket does not exist.")
GONE = FileNotFoundError(2, "Path does not exist 'lake/nokey'")


def of_database(error: Exception) -> OperationalError:
    return OperationalError("SELECT 1", None, error)


AWAY = [
    S3_DOWN,
    OSError("AWS Error SLOW_DOWN during PutObject operation: Please reduce your request rate."),
    requests.ConnectionError("Max retries exceeded with url: /iceberg/v1/config"),
    requests.ReadTimeout("Read timed out."),
    ServerError("NullPointerException"),
    ServiceUnavailableError("starting"),
    ConnectionRefusedError(111, "Connection refused"),
    of_database(PostgresError('connection to server at "127.0.0.1", port 1 failed: Connection refused')),
    of_database(PostgresError("server closed the connection unexpectedly")),
    of_database(PostgresError("FATAL:  the database system is starting up")),
    of_database(sqlite3.OperationalError("database is locked")),
]
FINAL = [
    S3_DENIED,
    S3_NO_BUCKET,
    GONE,
    PermissionError(13, "Permission denied"),
    OSError(28, "No space left on device"),
    OSError("Couldn't deserialize thrift"),
    UnauthorizedError("no token"),
    ForbiddenError("not yours"),
    RESTError("RESTError 413: too large"),
    ValueError("no"),
    of_database(PostgresError('FATAL:  password authentication failed for user "k2"')),
    of_database(PostgresError('FATAL:  database "lake" does not exist')),
    of_database(sqlite3.OperationalError("attempt to write a readonly database")),
    IntegrityError("INSERT", None, sqlite3.IntegrityError("UNIQUE constraint failed")),
]


@pytest.mark.parametrize("error", AWAY, ids=repr)
def test_what_may_come_back_is_away(error: Exception) -> None:
    assert is_away(error)
    assert not is_refused(error)


@pytest.mark.parametrize("error", FINAL, ids=repr)
def test_what_does_not_mend_by_itself_is_not_waited_for(error: Exception) -> None:
    assert not is_away(error)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (S3_DOWN, StoreUnavailable, "the store did not answer for file s3://lake/x"),
        (S3_DENIED, StoreRefused, "the store refuses file s3://lake/x.*ACCESS_DENIED.*credentials"),
        (S3_NO_BUCKET, StoreRefused, "NO_SUCH_BUCKET"),
        (PermissionError(13, "Permission denied"), StoreRefused, "rights"),
        (GONE, UnreadableFile, "file s3://lake/x is gone"),
        (OSError("Couldn't deserialize thrift"), UnreadableFile, "can't be read: Couldn't deserialize thrift"),
    ],
)
def test_only_a_file_that_is_damaged_or_gone_is_called_so(error: OSError, kind: type[LakeError], said: str) -> None:
    found = read_error("market_data.trades_v2", "s3://lake/x", error)
    assert type(found) is kind
    with pytest.raises(kind, match=said):
        raise found


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (requests.ConnectionError("Connection refused"), StoreUnavailable, "catalog x: Connection refused; .*is it up"),
        (UnauthorizedError("no token"), StoreRefused, "catalog x: no token; look at the credentials"),
        (FINAL[10], StoreRefused, "password authentication failed"),
        (RESTError("413"), LakeError, "catalog x: 413; the catalog does not take"),
        (ModuleNotFoundError("No module named 's3fs'", name="s3fs"), UsageError, r"pip install 'pyiceberg\[s3fs\]'"),
    ],
)
def test_what_catalogs_and_stores_raise_has_a_sentence(error: Exception, kind: type[Exception], said: str) -> None:
    found = own_error(error, "catalog x: ")
    assert type(found) is kind
    assert re.search(said, str(found))


@pytest.mark.parametrize("error", [ValueError("seven"), ModuleNotFoundError("none", name="k2beam.none"), GONE])
def test_what_may_be_a_defect_has_none(error: Exception) -> None:
    assert own_error(error) is None


@pytest.mark.parametrize("status", [400, 401, 403, 413, 422])
def test_what_a_rest_catalog_refuses_is_final(status: int) -> None:
    assert is_refused(answered(status))
    assert not is_away(answered(status))
    assert type(own_error(answered(status))) is StoreRefused
    assert ("expire snapshots" in str(own_error(answered(status)))) == (status == 413)


@pytest.mark.parametrize("status", [408, 419, 429, 500, 502, 503, 504])
def test_what_a_rest_catalog_may_do_later_is_not(status: int) -> None:
    assert not is_refused(answered(status))


def failing(*errors: Exception) -> Callable[[], str]:
    left: Iterator[Exception] = iter(errors)

    def call() -> str:
        error = next(left, None)
        if error is not None:
            raise error
        return "answer"

    return call


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)


@pytest.mark.usefixtures("no_pause")
def test_a_call_is_made_again_while_the_store_is_away() -> None:
    assert waiting(failing(S3_DOWN, ServerError("500"), S3_DOWN))() == "answer"


@pytest.mark.usefixtures("no_pause")
def test_an_error_that_says_nothing_is_named() -> None:
    assert waiting(failing(TimeoutError(), ConnectionError()))() == "answer"
    assert str(read_error("t", "x", EOFError())).endswith("can't be read: EOFError")
    assert str(own_error(TimeoutError())).startswith("TimeoutError; it does not answer")


@pytest.mark.usefixtures("no_pause")
def test_a_refusal_is_raised_at_once() -> None:
    call = waiting(failing(S3_DOWN, S3_DENIED))
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        call()


@pytest.mark.usefixtures("no_pause")
def test_the_wait_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "AWAY_SECONDS", 0.0)
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        waiting(failing(S3_DOWN, S3_DOWN))()


def test_arrow_tries_s3_often_enough_for_some_minutes() -> None:
    assert PatientRetries().max_attempts == 40
