"""A JWKS behind plain HTTP on loopback that counts its requests and can be slow, broken or rotated."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

__all__ = ["JwksEndpoint"]


class JwksEndpoint:
    """Serves `document`; stops with its `with` block.

    Attributes:
        document: what is served next.
        delay: seconds to wait before each answer; ends early when the endpoint stops.
        status: HTTP status of the answers.
        requests: how many have arrived.
    """

    def __init__(self, document: bytes) -> None:
        self.document = document
        self.delay = 0.0
        self.status = 200
        self.requests = 0
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                endpoint._answer(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        """Where."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/jwks"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.requests += 1
        until = time.monotonic() + self.delay
        while time.monotonic() < until and not self._stopping.wait(0.01):
            pass
        try:
            handler.send_response(self.status)
            handler.send_header("content-type", "application/json")
            handler.send_header("content-length", str(len(self.document)))
            handler.end_headers()
            handler.wfile.write(self.document)
        except OSError:
            # the client has given up, as some tests want
            pass
