"""Logs: where they go, what they look like, and that no secret is in them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2beam.errors import UsageError
from k2beam.logs import (
    LOG_VARIABLE,
    MASK,
    commit_logged,
    configure_logging,
    get_logger,
    inherit_logging,
    redact,
    redact_text,
)
from k2beam.model import CommitReceipt

CANARY = "canary-7f3a"


@pytest.fixture(autouse=True)
def logging_as_before(nothing_hidden: None) -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("k2beam")
    handlers, levels = list(root.handlers), (root.level, own.level)
    # A test of the command line in the same process may have configured the logs already.
    root.handlers = [handler for handler in handlers if not handler.__module__.startswith("k2beam")]
    # What a configuration leaves for the processes that this one starts.
    said = os.environ.pop(LOG_VARIABLE, None)
    yield
    os.environ.pop(LOG_VARIABLE, None)
    if said is not None:
        os.environ[LOG_VARIABLE] = said
    root.handlers = handlers
    root.setLevel(levels[0])
    own.setLevel(levels[1])


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_a_line_is_one_json_object_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", json=True)
    get_logger("reader").info("opened", topic="trades", partitions=3)
    get_logger("reader").debug("not shown")
    (line,) = lines(capsys)
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {
        "event": "opened",
        "level": "info",
        "logger": "k2beam.reader",
        "topic": "trades",
        "partitions": 3,
    }


def test_text_has_the_values_and_no_colours_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO")
    get_logger("reader").info("opened", topic="trades")
    text = capsys.readouterr().err
    assert "opened" in text
    assert "topic=trades" in text
    assert "\x1b" not in text


def test_libraries_speak_from_warning_on_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("DEBUG", json=True)
    logging.getLogger("pyiceberg.io").info("quiet")
    logging.getLogger("apache_beam.runners").warning("moved %d bundles", 3)
    assert [line["event"] for line in lines(capsys)] == ["moved 3 bundles"]
    configure_logging("DEBUG", json=True, library_level="INFO")
    logging.getLogger("pyiceberg.io").info("asked")
    assert [line["event"] for line in lines(capsys)] == ["asked"]


def test_configuring_twice_does_not_double_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(json=True)
    configure_logging(json=True)
    get_logger("reader").info("once")
    assert len(lines(capsys)) == 1


def test_an_unknown_level_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="LOUD"):
        configure_logging("LOUD")


def test_without_configuration_a_line_goes_to_the_handler_that_is_there(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="k2beam"):
        get_logger("worker").info("100% of it", password=CANARY, rows=2)
    (record,) = caplog.records
    assert json.loads(record.getMessage()) == {"event": "100% of it", "password": MASK, "rows": 2}
    assert record.name == "k2beam.worker"


@pytest.mark.parametrize(
    "key",
    ["password", "sasl.password", "SASL_JAAS_CONFIG", "client_secret", "aws-secret-access-key", "api_key", "API-Key"],
)
def test_values_under_secret_names_are_masked(key: str) -> None:
    check_masked(key)


@pytest.mark.parametrize(
    "key",
    ["sessionToken", "credentials", "private_key", "Authorization", "passphrase", "s3.access-key-id", "account_key"],
)
def test_values_under_other_secret_names_are_masked(key: str) -> None:
    check_masked(key)


def check_masked(key: str) -> None:
    assert redact({key: CANARY, "deeper": [{key: {"x": CANARY}}], "rows": 3}) == {
        key: MASK,
        "deeper": [{key: MASK}],
        "rows": 3,
    }


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"postgresql://user:{CANARY}@db:5432/x", "postgresql://***@db:5432/x"),
        (f"s3+http://{CANARY}@store/b and kafka://a:{CANARY}@k", "s3+http://***@store/b and kafka://***@k"),
        (f"http://u:{CANARY}@more@host/path", "http://***@host/path"),
        (f"no answer of user:{CANARY}@host:9091 in 5 s", "no answer of ***@host:9091 in 5 s"),
        ("http://host/path@2x?mail=a@b", "http://host/path@2x?mail=a@b"),
        (f"https://host/?api_key={CANARY}&page=2", "https://host/?api_key=***&page=2"),
        (f'username="u" password="{CANARY} 2";', 'username="u" password=***;'),
        (f"{{'sasl.password': '{CANARY}', 'acks': 'all'}}", "{'sasl.password': ***, 'acks': 'all'}"),
        (f"Authorization: Bearer {CANARY}", "Authorization: ***"),
        ("the token ring has 3 passengers", "the token ring has 3 passengers"),
    ],
)
def test_secrets_inside_text_are_masked(text: str, masked: str) -> None:
    assert redact_text(text) == masked


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_what_holds_no_secret_stays_as_it_is_and_masking_twice_changes_nothing(value: object) -> None:
    once = redact(value)
    assert redact(once) == once
    assert redact({"secret": value})["secret"] in (None, MASK)


def test_a_secret_is_masked_in_messages_extras_and_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (True, False):
        configure_logging("INFO", json=as_json)
        url = f"postgresql://user:{CANARY}@db/x"
        get_logger("lake").warning("no catalog", uri=url, token=CANARY, options={"s3.secret-access-key": CANARY})
        logging.getLogger("pyiceberg").warning("can't reach %s", url, extra={"password": CANARY})
        try:
            raise ValueError(f"password={CANARY} {url}")
        except ValueError:
            get_logger("lake").exception("failed")
            logging.getLogger("apache_beam").exception("failed")
        text = capsys.readouterr().err
        assert CANARY not in text
        assert text.count("ValueError: password=***") == 2
        assert text.count("postgresql://***@db/x") >= 4


def test_a_commit_is_one_audit_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", json=True)
    windows, sources = (0, 60_000_000, 120_000_000), tuple(f"archive:{number}" for number in range(9))
    commit_logged(CommitReceipt("trades_v2", 1, 2, 1000, 3, 4096, 1_500_000, 1, 7, "ab12", windows, sources))
    (line,) = lines(capsys)
    del line["timestamp"]
    assert line == {
        "event": "commit",
        "level": "info",
        "logger": "k2beam.lake",
        "table": "trades_v2",
        "snapshot_before": 1,
        "snapshot_after": 2,
        "windows": ["1970-01-01T00:00:00+00:00", "1970-01-01T00:02:00+00:00"],
        "source": ["archive:0", "archive:1", "archive:2", "archive:3", "archive:4"],
        "sources": 9,
        "rows": 1000,
        "rows_left_out": 7,
        "files": 3,
        "bytes": 4096,
        "duration_s": 1.5,
        "attempts": 1,
        "coverage_digest": "ab12",
    }


def test_a_commit_that_found_nothing_to_do_is_told_from_one(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", json=True)
    commit_logged(CommitReceipt("trades_v2", 2, 2, 0, 0, 0, 1, 1, 7, ""))
    (line,) = lines(capsys)
    assert (line["event"], line["rows"], line["rows_left_out"]) == ("nothing to commit", 0, 7)


def test_a_window_beyond_the_calendar_is_logged_as_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", json=True)
    commit_logged(CommitReceipt("trades_v2", 1, 2, 1, 1, 1, 1, 1, 0, "ab", (2**63 - 1,), ("s",)))
    (line,) = lines(capsys)
    assert line["windows"] == [str(2**63 - 1)]


WORKER = """
import logging
logging.warning("said before anything of ours is imported")
import transforms
from k2beam.logs import get_logger
get_logger("worker").info("took", rows=3)
get_logger("worker").debug("not shown")
logging.getLogger("transforms.reader").warning("bad tail of %s", "a.avro")
logging.getLogger("pyiceberg").info("not shown either")
"""


def worker_lines() -> list[str]:
    """What a process that is started by this one says, without the time."""
    done = subprocess.run([sys.executable, "-c", WORKER], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()[1:]


def test_a_worker_process_logs_as_its_job_does() -> None:
    configure_logging("INFO", json=True)
    took, tail = map(json.loads, worker_lines())
    assert (took["event"], took["rows"], took["level"], took["logger"]) == ("took", 3, "info", "k2beam.worker")
    assert (tail["event"], tail["logger"]) == ("bad tail of a.avro", "transforms.reader")
    configure_logging("WARNING")
    [tail] = worker_lines()
    assert "bad tail of a.avro" in tail
    assert not tail.startswith("{")
    configure_logging("ERROR")
    assert worker_lines() == []


def test_without_a_job_that_said_how_a_process_logs_as_it_did() -> None:
    [tail] = worker_lines()
    assert tail == "WARNING:transforms.reader:bad tail of a.avro"


def test_a_configuration_that_is_none_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOG_VARIABLE, "loud")
    with pytest.raises(UsageError, match="'loud'"):
        inherit_logging()


def test_the_runners_copy_of_a_workers_line_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO", json=True)
    runner = logging.getLogger("apache_beam.runners.portability.local_job_service")
    runner.warning("Worker: %s", "message")
    runner.warning("Workers: %s", 2)
    assert [line["event"] for line in lines(capsys)] == ["Workers: 2"]
