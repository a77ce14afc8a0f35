"""An open-loop client: requests leave at their times whether or not answers come, and a latency begins when its request was due.

h2load can be told a rate, but it wakes a hundred times a second and sends what is due in one burst, which measures the
burst. Here the times between requests are exponential, as from many independent clients, and the same for every server.
All requests are the same bytes except for the stream id, so a little HTTP/2 (RFC 9113) written by hand is enough and fast.
"""

import random
import select
import socket
import time
from collections.abc import Iterator

from support.server import CHECK_METHOD

from bench.load import CONNECTIONS, Load, grpc_frame
from bench.timing import cores, first_in_line, pinned

__all__ = ["open_loop"]

SEED = 8705
GIVE_UP_SECONDS = 10.0
"""After the last request was due."""

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_FRAME_HEAD = 9
_INITIAL_WINDOW = 65_535
_LARGEST_WINDOW = 2**31 - 1


def open_loop(address: str, message: bytes, *, rate: float, seconds: float, response: bytes | None = None) -> Load:
    """Send Check with `message` at `rate` a second for so many seconds after one more of warming up.

    Args:
        address: `host:port` of a plain-text gRPC server.
        message: the CheckRequest.
        rate: requests per second over all connections.
        seconds: how long is measured.
        response: the right answer: every one has its size.

    Raises:
        AssertionError: an answer is missing, or not of the right size, or the server ended a stream or connection.
    """
    connections = [_Connection(address, message) for _ in range(CONNECTIONS)]
    try:
        with pinned(cores()[1]), first_in_line():
            latencies, elapsed = _play(connections, rate, seconds)
    finally:
        for connection in connections:
            connection.close()
    if response is not None:
        answers = sum(connection.answers for connection in connections)
        received = sum(connection.data_bytes for connection in connections)
        if received != answers * len(grpc_frame(response)):
            raise AssertionError(f"{answers} answers with {received} bytes are not all the right one")
    return Load(len(latencies) / elapsed, len(latencies), tuple(latencies))


def _play(connections: list["_Connection"], rate: float, seconds: float) -> tuple[list[float], float]:
    """Milliseconds of each request that was due after the warm-up, and how long those took to send."""
    by_socket = {connection.socket: connection for connection in connections}
    sockets = list(by_socket)
    due_times = _times(rate, seconds + 1.0)
    started = time.perf_counter()
    measured_from = started + 1.0
    latencies: list[float] = []
    due = started + next(due_times)
    last = started
    sent = 0
    exhausted = False
    while not exhausted or any(connection.waiting for connection in connections):
        now = time.perf_counter()
        while not exhausted and due <= now:
            connections[sent % len(connections)].send(due)
            sent += 1
            last = due
            offset = next(due_times, None)
            exhausted = offset is None
            due = started + (offset or 0.0)
        if exhausted and now > last + GIVE_UP_SECONDS:
            raise AssertionError(f"{sum(len(connection.waiting) for connection in connections)} answers never came")
        pause = GIVE_UP_SECONDS if exhausted else max(0.0, due - time.perf_counter())
        readable, _, _ = select.select(sockets, (), (), pause)
        for one in readable:
            by_socket[one].receive(latencies, measured_from)
    return latencies, max(last - measured_from, 1e-9)


def _times(rate: float, seconds: float) -> Iterator[float]:
    generator = random.Random(SEED)
    at = 0.0
    while (at := at + generator.expovariate(rate)) < seconds:
        yield at


class _Connection:
    """One HTTP/2 connection.

    Attributes:
        socket: to wait for.
        waiting: when the request of each open stream was due.
        answers: streams that ended.
        data_bytes: of all answers.
    """

    def __init__(self, address: str, message: bytes) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.waiting: dict[int, float] = {}
        self.answers = 0
        self.data_bytes = 0
        self._block = _header_block(address)
        self._body = grpc_frame(message)
        self._next_stream = 1
        self._window = _INITIAL_WINDOW
        self._unsent: list[float] = []
        self._received = b""
        # our windows: as large as they can be, so that the server never waits for us
        settings = (4).to_bytes(2, "big") + _LARGEST_WINDOW.to_bytes(4, "big")
        update = (_LARGEST_WINDOW - _INITIAL_WINDOW).to_bytes(4, "big")
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        self.socket.sendall(preface + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW_UPDATE, 0, 0, update))

    def close(self) -> None:
        """Close."""
        self.socket.close()

    def send(self, due: float) -> None:
        """Send one request, or keep it until the server's window lets it through."""
        if self._unsent or self._window < len(self._body):
            self._unsent.append(due)
            self.waiting.setdefault(-1, due)
            return
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._window -= len(self._body)
        self.waiting[stream] = due
        headers = _frame(_HEADERS, _END_HEADERS, stream, self._block)
        self.socket.sendall(headers + _frame(_DATA, _END_STREAM, stream, self._body))

    def receive(self, latencies: list[float], measured_from: float) -> None:
        """Read what is there; for each answer that ended, add the milliseconds since its request was due."""
        data = self.socket.recv(262_144)
        if not data:
            raise AssertionError("the server closed a connection")
        now = time.perf_counter()
        data = self._received + data
        position = 0
        while len(data) - position >= _FRAME_HEAD:
            length = int.from_bytes(data[position : position + 3], "big")
            end = position + _FRAME_HEAD + length
            if end > len(data):
                break
            kind, flags = data[position + 3], data[position + 4]
            stream = int.from_bytes(data[position + 5 : position + _FRAME_HEAD], "big")
            if kind == _DATA:
                self.data_bytes += length
            elif kind != _HEADERS:
                self._control(kind, flags, stream, data[position + _FRAME_HEAD : end])
            if kind in {_DATA, _HEADERS} and flags & _END_STREAM:
                self.answers += 1
                due = self.waiting.pop(stream)
                if due >= measured_from:
                    latencies.append((now - due) * 1_000)
            position = end
        self._received = data[position:]

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _WINDOW_UPDATE:
            # those of streams do not matter: a request is smaller than a stream's first window
            if stream == 0:
                self._window += int.from_bytes(payload, "big")
                self._send_kept()
        elif kind == _SETTINGS and not flags & _ACK:
            self.socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self.socket.sendall(_frame(_PING, _ACK, 0, payload))
        elif kind in {_RESET, _GOAWAY}:
            raise AssertionError(f"the server ended a stream or the connection: {payload.hex()}")

    def _send_kept(self) -> None:
        kept, self._unsent = self._unsent, []
        self.waiting.pop(-1, None)
        for due in kept:
            self.send(due)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _header_block(authority: str) -> bytes:
    """HPACK (RFC 7541) without a dynamic table and without Huffman: indices of the static table, and literals."""

    def literal(name: bytes, value: str) -> bytes:
        return name + _string(value)

    return b"".join(
        (
            b"\x83",  # :method POST
            b"\x86",  # :scheme http
            literal(b"\x04", CHECK_METHOD),  # :path
            literal(b"\x01", authority),  # :authority
            literal(b"\x0f\x10", "application/grpc"),  # content-type
            literal(b"\x00" + _string("te"), "trailers"),
        )
    )


def _string(text: str) -> bytes:
    data = text.encode()
    if len(data) >= 127:
        raise ValueError("such a length would take a second byte")
    return bytes((len(data),)) + data
