"""What one HTTP/2 connection sends: answers within the client's windows, and resets (RFC 9113 §5.2, §8.1)."""

import asyncio
import time

from ext_authz.runtime.grpc_frame import CallRefused, Status
from ext_authz.runtime.h2_frame import (
    ANSWER_BLOCK,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD,
    MAX_FRAME_BYTES,
    MAX_WINDOW,
    OK_TRAILERS_BLOCK,
    ConnectionFault,
    ErrorCode,
    Kind,
    frame,
    refusal_block,
    refusal_trailers_block,
)
from ext_authz.runtime.h2_stream import Stream

__all__ = ["DEFAULT_WINDOW", "Answers"]

DEFAULT_WINDOW = 65_535
"""RFC 9113 §6.9.2."""

MAX_RESIZES = 100
"""Changes of the window of all streams, each of which is work for each stream. Clients announce it once, at the beginning."""

_HEADERS = int(Kind.HEADERS)
_DATA = int(Kind.DATA)


class Answers:
    """The sending side of a connection.

    Attributes:
        streams: the open ones, by number.
    """

    def __init__(self) -> None:
        """Nothing is open."""
        self.streams: dict[int, Stream] = {}
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._in_batch = False
        self._goaway: int | None = None
        # since when the connection has been of no use: before its preface, and once it is to close
        self._useless: float | None = time.monotonic()
        self._window = DEFAULT_WINDOW
        self._stream_window = DEFAULT_WINDOW
        self._resizes = 0

    def flush(self) -> None:
        """Send what has been queued, and close when nothing is left to do."""
        if self._in_batch or self._transport is None:
            return
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()
        if self._goaway is not None and not self.streams:
            self._useless = self._useless or time.monotonic()
            self._transport.close()

    def answer(self, stream: Stream, message: bytes) -> None:
        """The only message of an answer, and its end."""
        size = len(message) + 5
        if size > stream.window or size > self._window or size > MAX_FRAME_BYTES or stream.number not in self.streams:
            self.send(stream, message)
            self.finish(stream, OK_TRAILERS_BLOCK)
            return
        self._window -= size
        pack, number = FRAME_HEAD.pack, stream.number
        self._out.append(
            b"".join(
                (
                    pack(0, len(ANSWER_BLOCK), _HEADERS, END_HEADERS, number),
                    ANSWER_BLOCK,
                    pack(0, size, _DATA, 0, number),
                    b"\x00",
                    len(message).to_bytes(4, "big"),
                    message,
                    pack(0, len(OK_TRAILERS_BLOCK), _HEADERS, END_HEADERS | END_STREAM, number),
                    OK_TRAILERS_BLOCK,
                )
            )
        )
        del self.streams[number]
        self.flush()

    def send(self, stream: Stream, message: bytes) -> None:
        """One message of an answer."""
        if stream.number not in self.streams:
            return
        if not stream.begun:
            stream.begun = True
            self._out.append(frame(Kind.HEADERS, END_HEADERS, stream.number, ANSWER_BLOCK))
        stream.outgoing += b"\x00" + len(message).to_bytes(4, "big") + message
        stream.moved = time.monotonic()
        self._pump(stream)
        self.flush()

    def finish(self, stream: Stream, trailers: bytes = OK_TRAILERS_BLOCK) -> None:
        """The end of an answer."""
        if stream.number in self.streams:
            stream.trailers = trailers
            self._pump(stream)
            self.flush()

    def refuse(self, stream: Stream, refusal: CallRefused) -> None:
        """End a call with a status other than OK."""
        if stream.begun:
            stream.stop_work()
            self.finish(stream, refusal_trailers_block(refusal))
        else:
            self._end(stream, refusal_block(refusal))

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream without an answer."""
        if self.streams.pop(stream.number, None) is not None:
            stream.stop_work()
            self._out.append(frame(Kind.RST_STREAM, 0, stream.number, int(code).to_bytes(4, "big")))
            self.flush()

    def _pump(self, stream: Stream) -> None:
        """Send as much of an answer as the client's windows let through."""
        while stream.outgoing:
            size = min(len(stream.outgoing), stream.window, self._window, MAX_FRAME_BYTES)
            if size <= 0:
                return
            self._out.append(frame(Kind.DATA, 0, stream.number, bytes(stream.outgoing[:size])))
            del stream.outgoing[:size]
            stream.window -= size
            self._window -= size
            stream.moved = time.monotonic()
        if stream.trailers is not None:
            self._end(stream, stream.trailers)

    def _end(self, stream: Stream, block: bytes) -> None:
        """The last frame of an answer. A client that still sends its request is told to stop (RFC 9113 §8.1)."""
        if self.streams.pop(stream.number, None) is None:
            return
        stream.stop_work()
        self._out.append(frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream.number, block))
        if not stream.ended:
            code = int(ErrorCode.NO_ERROR).to_bytes(4, "big")
            self._out.append(frame(Kind.RST_STREAM, 0, stream.number, code))
        self.flush()

    def expire(self, now: float, stall: float) -> None:
        """End calls whose deadline has passed, and what a client has let stand still for `stall` seconds."""
        if self._useless is not None and now - self._useless > stall and self._transport is not None:
            self._transport.abort()
            return
        for stream in list(self.streams.values()):
            if stream.deadline is not None and now >= stream.deadline and not stream.ended:
                self.refuse(stream, CallRefused(Status.DEADLINE_EXCEEDED, "deadline exceeded"))
            elif now - stream.moved > stall and (not stream.ended or stream.outgoing):
                self.reset(stream, ErrorCode.CANCEL)
        self.flush()

    def _resize_windows(self, size: int) -> None:
        """The client's SETTINGS_INITIAL_WINDOW_SIZE, which holds for open streams too."""
        if size > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR)
        self._resizes += 1
        if self._resizes > MAX_RESIZES:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM)
        growth, self._stream_window = size - self._stream_window, size
        for stream in list(self.streams.values()):
            stream.window += growth
            if stream.window > MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR)
            self._pump(stream)

    def _grow_window(self, number: int, growth: int) -> None:
        """The client's WINDOW_UPDATE."""
        if number == 0:
            waited = self._window <= 0
            self._window += growth
            if self._window > MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR)
            if not waited:
                # what is left to send waits for windows of streams
                return
            for stream in [stream for stream in self.streams.values() if stream.outgoing]:
                self._pump(stream)
            return
        known = self.streams.get(number)
        if known is None:
            return
        known.window += growth
        if growth == 0 or known.window > MAX_WINDOW:
            self.reset(known, ErrorCode.PROTOCOL_ERROR if growth == 0 else ErrorCode.FLOW_CONTROL_ERROR)
            return
        self._pump(known)
