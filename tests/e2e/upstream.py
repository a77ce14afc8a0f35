"""An application that records every request byte for byte and answers with what it received."""

import json
import socketserver
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

__all__ = ["Seen", "Upstream"]

_MAXIMUM_HEAD = 1 << 20


@dataclass(frozen=True)
class Seen:
    """One request as it arrived.

    Attributes:
        method: as sent.
        target: path and query as sent.
        headers: in order; names as sent, values decoded as Latin-1.
        body: without its transfer coding.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        """The values of a header (lowercase name), in order."""
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


class _Handler(socketserver.StreamRequestHandler):
    timeout = 30
    server: "_Server"

    def handle(self) -> None:
        try:
            while self._serve_one():
                pass
        except OSError:
            # the proxy closes its connections when it stops
            return

    def _serve_one(self) -> bool:
        lines: list[bytes] = []
        while (line := self.rfile.readline(_MAXIMUM_HEAD)) not in (b"\r\n", b""):
            lines.append(line)
        if not lines:
            return False
        method, target, _ = lines[0].decode("latin-1").split(" ")
        pairs = [line.decode("latin-1").rstrip("\r\n").partition(":") for line in lines[1:]]
        headers = tuple((name, value.strip(" ")) for name, _, value in pairs)
        head = Seen(method, target, headers)
        if "100-continue" in head.all("expect"):
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        seen = Seen(method, target, headers, self._read_body(head))
        self.server.requests.append(seen)
        if "websocket" in head.all("upgrade"):
            return self._upgrade(head)
        self._answer(seen)
        return True

    def _read_body(self, head: Seen) -> bytes:
        if "chunked" in head.all("transfer-encoding"):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int((head.all("content-length") or ["0"])[0]))

    def _answer(self, seen: Seen) -> None:
        content = {
            "method": seen.method,
            "target": seen.target,
            "headers": seen.headers,
            "body": seen.body.decode("latin-1"),
        }
        body = json.dumps(content).encode()
        # headers that a rule may overwrite: one of each kind
        own = "x-decided-by: upstream\r\nx-upstream: here\r\n"
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{own}content-length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + (b"" if seen.method == "HEAD" else body))

    def _upgrade(self, head: Seen) -> bool:
        """Switch protocols and send back whatever comes, until the end."""
        accepted = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        self.wfile.write(f"{accepted}x-seen-subject: {','.join(head.all('x-subject'))}\r\n\r\n".encode("latin-1"))
        while data := self.request.recv(1024):
            self.wfile.write(data)
        return False


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class Upstream:
    """The server, in a thread of its own while its `with` block runs.

    Attributes:
        address: `host:port`.
    """

    def __init__(self) -> None:
        self._server = _Server()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        host, port = self._server.server_address[:2]
        self.address = f"{host!s}:{port}"

    @property
    def requests(self) -> list[Seen]:
        """Everything that arrived so far."""
        return list(self._server.requests)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
