"""The page, served: what it shows is read again and again, and the open page asks for it.

It is for one person at one machine. There is no login, so it listens on 127.0.0.1 unless told otherwise, and there it
answers only who asks for that name: a web site whose name was pointed at 127.0.0.1 gets nothing.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from k2beam.errors import K2BeamError, UsageError
from k2beam.logs import get_logger
from k2beam.query.lake import Lake
from k2beam.report.contents import LagRows, ReportSelection, audit_verdict, gather_contents, now_ms
from k2beam.report.page import render
from k2beam.signals import stop_signal

REST = 4
"""A page takes a fifth of the time at most: it must not keep a machine busy that has a job to do."""

_log = get_logger("report")


class LivePage:
    """What the page shows now; :meth:`refresh` reads it again.

    The tables are read again when they have a new snapshot, and audited at most every ``audit_every`` seconds (None:
    never). The lag is asked for each time.

    Examples:
        >>> from k2beam import Lake
        >>> from k2beam.report import LivePage, ReportSelection
        >>> page = LivePage(Lake("warehouse"), ReportSelection(), title="my lake")
        >>> page.refresh()
        >>> page.contents["verdict"]["ok"], page.contents["gaps"]["open"]
        (True, 20)
    """

    def __init__(
        self,
        lake: Lake,
        asked: ReportSelection,
        *,
        title: str,
        lag: Callable[[], LagRows] | None = None,
        audit_every: float | None = 600.0,
        on_step: Callable[[str], None] = lambda _step: None,
    ) -> None:
        self.title = title
        self.contents: Mapping[str, Any] = {}
        self._lake = lake
        self._asked = asked
        self._lag = lag
        self._audit_every = audit_every
        self._on_step = on_step
        self._seen: Mapping[str, int | None] = {}
        self._verdict: dict[str, Any] | None = None
        self._audited: Mapping[str, int | None] = {}
        self._next_audit = time.monotonic()

    def refresh(self) -> None:
        """Read what is new. Raises as :func:`gather_contents` does; then the page shows what it showed."""
        now = self._lake.snapshots().ids
        audits = self._audit(now)
        contents = self.contents
        if audits or now != self._seen:
            self._on_step("reading the tables")
            contents = gather_contents(self._lake, self._asked, self._verdict)
            self._seen = now
        lag = None
        if self._lag is not None:
            self._on_step("asking for the lag")
            lag = self._lag()
        self.contents = {**contents, "made_at": now_ms(), "lag": lag, "problem": None}

    def try_refresh(self) -> None:
        """The same, but what fails is logged and shown on the page, beside what it showed."""
        try:
            self.refresh()
        except K2BeamError as error:
            self._failed(str(error))
        # What a catalog, a store or a client raises is without number; whatever it is, the next time tries again.
        except Exception as error:  # noqa: BLE001 - logged with its traceback, and shown
            self._failed(f"{type(error).__name__}: {error}", error)

    def _audit(self, now: Mapping[str, int | None]) -> bool:
        """Audit if it is time and there is something new; whether it did."""
        if self._audit_every is None or now == self._audited or time.monotonic() < self._next_audit:
            return False
        self._verdict = audit_verdict(self._lake, self._on_step)
        self._audited = now
        self._next_audit = time.monotonic() + self._audit_every
        return True

    def _failed(self, problem: str, error: Exception | None = None) -> None:
        if self.contents["problem"] != problem:
            _log.warning("the page could not be read again", problem=problem, exc_info=error)
        self.contents = {**self.contents, "problem": problem}


class PageServer:
    """Serves a :class:`LivePage` at an address; port 0 takes a free one. Close it by leaving ``with``.

    The page asks for what is new every ``interval`` seconds. Raises UsageError when the address can't be listened on.

    Examples:
        >>> import urllib.request
        >>> from k2beam import Lake
        >>> from k2beam.report import LivePage, PageServer, ReportSelection
        >>> page = LivePage(Lake("warehouse"), ReportSelection(), title="my lake")
        >>> page.refresh()
        >>> with PageServer(page, "127.0.0.1", 0, interval=15) as server:
        ...     with urllib.request.urlopen(server.address) as answer:
        ...         answer.status
        200
    """

    def __init__(self, page: LivePage, host: str, port: int, interval: float) -> None:
        self._page = page
        self._host = host
        self._interval = interval
        try:
            self._server = _Server((host, port), self._handler())
        except OSError as error:
            raise UsageError(f"--listen {host}:{port}: {error.strerror or error}; choose another address") from error

    @property
    def address(self) -> str:
        """Where the page is."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._server.server_port}/"

    def __enter__(self) -> PageServer:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def run(self) -> None:
        """Serve, and read what is new every interval, until SIGINT or SIGTERM. Only in the main thread.

        Where reading takes long, it is followed by a rest of :data:`REST` times as much.
        """
        spent = 0.0
        with stop_signal() as stop, self:
            while not stop.wait(max(self._interval, REST * spent)):
                begun = time.monotonic()
                self._page.try_refresh()
                spent = time.monotonic() - begun

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        page, interval = self._page, self._interval
        local = _is_loopback(self._host)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if local and not _is_loopback(_host_of(self.headers.get("Host", ""))):
                    self._answer(HTTPStatus.FORBIDDEN, "text/plain", "this page is for this machine\n")
                elif self.path == "/":
                    text = render(page.contents, page.title, round(interval * 1_000))
                    self._answer(HTTPStatus.OK, "text/html", text)
                elif self.path == "/contents.json":
                    self._answer(HTTPStatus.OK, "application/json", json.dumps(page.contents, allow_nan=False))
                else:
                    self._answer(HTTPStatus.NOT_FOUND, "text/plain", "the page is at /\n")

            def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("X-Content-Type-Options", "nosniff")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                _log.debug("page asked for", request=format % args)

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)


def _host_of(header: str) -> str:
    """The name in a header ``Host``; nothing where it can't be one."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    """Whether a name is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
