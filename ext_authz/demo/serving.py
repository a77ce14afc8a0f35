"""HTTP for the demo's own small servers: one function from request to response."""

import contextlib
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

__all__ = ["MAXIMUM_BODY_BYTES", "Request", "Response", "serve", "serve_until_stopped"]

MAXIMUM_BODY_BYTES = 65_536
"""Token requests are a kilobyte; nothing larger is read."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        method: as sent.
        target: as sent, path and query.
        headers: in order, names as sent, duplicates kept.
        body: at most `MAXIMUM_BODY_BYTES`.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> str:
        """The query without `?`, empty when absent."""
        return urlsplit(self.target).query

    def header(self, name: str) -> str | None:
        """The only value of a header (lowercase name); None when it is absent or there are several."""
        values = [value for key, value in self.headers if key.lower() == name]
        return values[0] if len(values) == 1 else None


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # headers and body in one segment, at once: else Nagle's algorithm adds 40 ms to each response
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = 60
    answer: ClassVar[Callable[[Request], Response]]

    def _respond(self) -> None:
        length = self.headers.get("content-length", "0")
        if "transfer-encoding" in self.headers or not length.isdecimal():
            self.close_connection = True
            response = Response(411)
        elif int(length) > MAXIMUM_BODY_BYTES:
            self.close_connection = True
            response = Response(413)
        else:
            # the request line, because `self.path` has its leading slashes merged
            target = self.requestline.split(" ")[1]
            body = self.rfile.read(int(length))
            response = type(self).answer(Request(self.command, target, tuple(self.headers.items()), body))
        self.send_response_only(response.status)
        for name, value in response.headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _respond  # noqa: N815 - http.server's names

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - http.server's signature
        """Say nothing: request lines can hold tokens, and Envoy's access log has the rest."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def serve(answer: Callable[[Request], Response], host: str, port: int) -> ThreadingHTTPServer:
    """A bound server, one thread per connection; call `serve_forever` on it."""
    handler = type("Handler", (_Handler,), {"answer": staticmethod(answer)})
    server = _Server((host, port), handler, bind_and_activate=False)
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.server_bind()
    server.server_activate()
    return server


def serve_until_stopped(answer: Callable[[Request], Response], host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C ends the process; as the first process of a container it would not end by itself."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with serve(answer, host, port) as server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
