"""Small HTTP servers in the test's own process, and a port at which nobody listens."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Pushed = list[tuple[str, str, str]]
"""What came to a gateway: method, path, body."""


class QuietHandler(BaseHTTPRequestHandler):
    """A handler that prints nothing."""

    def received(self) -> bytes:
        """The body of the request."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, content: bytes = b"", content_type: str | None = None) -> None:
        """Send the whole answer."""
        self.send_response(status)
        if content_type is not None:
            self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server on this machine until the block ends; gives its URL, without a path."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def gateway(status: int = 200) -> Iterator[tuple[str, Pushed]]:
    """A server that takes pushes of metrics; gives its URL and what came."""
    pushed: Pushed = []

    class Handler(QuietHandler):
        def do_PUT(self) -> None:
            pushed.append((self.command, self.path, self.received().decode()))
            self.answer(status)

    with serving(Handler) as url:
        yield url, pushed


def closed_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])
