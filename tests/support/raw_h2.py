"""An HTTP/2 client that may say anything: frames by the `h2` library, or raw bytes."""

import contextlib
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from ext_authz.runtime.transport import CHECK_METHOD

__all__ = ["PREFACE", "RawConnection", "Stream", "frame", "http2_frame"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(message: bytes, flag: int = 0, length: int | None = None) -> bytes:
    """A gRPC message with its prefix, or a false one."""
    return bytes([flag]) + (len(message) if length is None else length).to_bytes(4, "big") + message


def http2_frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """One HTTP/2 frame (RFC 9113 §4.1), or a false one."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class Stream:
    """What came on one stream."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.data = b""
        self.ended = False
        self.reset: int | None = None

    @property
    def finished(self) -> bool:
        return self.ended or self.reset is not None

    @property
    def status(self) -> int | None:
        """`grpc-status`, wherever it stands."""
        value = self.trailers.get("grpc-status", self.headers.get("grpc-status"))
        return None if value is None else int(value)

    @property
    def trailers_only(self) -> bool:
        return "grpc-status" in self.headers and not self.data


class RawConnection:
    """One connection.

    Attributes:
        streams: by stream id.
        goaway: the error code of a GOAWAY, if one came.
        closed: the server closed the connection.
        greeted: the server's settings have come and been acknowledged, so that they hold.
    """

    def __init__(
        self,
        target: tuple[str, int],
        settings: dict[h2.settings.SettingCodes, int] | None = None,
        *,
        read_windows: bool = True,
        hello: bool = True,
    ) -> None:
        """Connect and say hello.

        Args:
            target: host and port.
            settings: to announce.
            read_windows: give the server back what was read; False for a reader that never does.
            hello: False to say everything oneself, with `send`, and to read with `drop_until_closed`.
        """
        self.streams: defaultdict[int, Stream] = defaultdict(Stream)
        self.goaway: int | None = None
        self.closed = False
        self.greeted = False
        self._read_windows = read_windows
        self._socket = socket.create_connection(target, 5)
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        if settings:
            self.h2.local_settings = h2.settings.Settings(client=True, initial_values=settings)
        if hello:
            self.h2.initiate_connection()
            self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    def flush(self) -> None:
        """Send what `h2` has to send."""
        self.send(self.h2.data_to_send())

    def send(self, data: bytes) -> None:
        """Send bytes as they are; a server that has closed the connection is an outcome, not an error."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def request(
        self,
        *pieces: bytes,
        end: bool = True,
        path: str = CHECK_METHOD,
        method: str = "POST",
        headers: Iterable[tuple[str, str]] = (),
        without: Iterable[str] = (),
    ) -> int:
        """Open a stream, send each piece as a DATA frame, and return the stream's id."""
        stream = self.h2.get_next_available_stream_id()
        given = dict(headers)
        usual = [("te", "trailers"), ("content-type", "application/grpc")]
        block = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "server.test")]
        block += [(name, value) for name, value in usual if name not in without and name not in given]
        block += list(headers)
        self.h2.send_headers(stream, block, end_stream=end and not pieces)
        for number, piece in enumerate(pieces, 1):
            self.h2.send_data(stream, piece, end_stream=end and number == len(pieces))
        self.flush()
        return stream

    def finished(self, stream: int, seconds: float = 5.0) -> Stream:
        """The stream, once it has ended or the connection has."""
        self.read_until(lambda: self.streams[stream].finished, seconds)
        return self.streams[stream]

    def read_until(self, done: Callable[[], bool], seconds: float = 5.0) -> bool:
        """Read until `done`, the connection ends or time is up; whether `done`."""
        until = time.monotonic() + seconds
        while not done() and not self.closed:
            remaining = until - time.monotonic()
            if remaining <= 0:
                break
            self._socket.settimeout(remaining)
            try:
                data = self._socket.recv(65_536)
            except TimeoutError:
                break
            except ConnectionResetError:
                data = b""
            if not data:
                self.closed = True
                break
            try:
                events = self.h2.receive_data(data)
            except h2.exceptions.ProtocolError as error:
                raise AssertionError(f"the server broke the protocol: {error}") from error
            for event in events:
                self._take(event)
            self.flush()
        return done()

    def drop_until_closed(self, seconds: float) -> None:
        """Read until the server closes the connection, and look only for a GOAWAY."""
        until = time.monotonic() + seconds
        data = b""
        while not self.closed and self.goaway is None and (remaining := until - time.monotonic()) > 0:
            self._socket.settimeout(remaining)
            try:
                piece = self._socket.recv(65_536)
            except TimeoutError:
                return
            except ConnectionResetError:
                piece = b""
            self.closed = not piece
            data += piece
            while len(data) >= 9 and len(data) >= (end := 9 + int.from_bytes(data[:3], "big")):
                if data[3] == 7:
                    self.goaway = int.from_bytes(data[13:17], "big")
                data = data[end:]

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = int(event.error_code or 0)
            return
        self.greeted = self.greeted or isinstance(event, h2.events.RemoteSettingsChanged)
        number = getattr(event, "stream_id", None)
        if not number:
            return
        stream = self.streams[number]
        if isinstance(event, h2.events.ResponseReceived):
            stream.headers = {str(name): str(value) for name, value in event.headers or ()}
        elif isinstance(event, h2.events.TrailersReceived):
            stream.trailers = {str(name): str(value) for name, value in event.headers or ()}
        elif isinstance(event, h2.events.DataReceived):
            stream.data += event.data or b""
            if self._read_windows and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, number)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = int(event.error_code or 0)
