"""One HTTP/2 connection of a server that answers unary gRPC calls and watches (RFC 9113).

Only what such a server needs: no priorities, no push, no dynamic table for what is sent. Input that came together is
answered together, in one write. A fault of a stream ends that stream, a fault of the connection ends it with GOAWAY.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol, cast

from ext_authz.runtime.grpc_frame import CallRefused, MessageBuffer, take_message
from ext_authz.runtime.h2_answers import DEFAULT_WINDOW
from ext_authz.runtime.h2_frame import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD,
    MAX_FRAME_BYTES,
    MAX_STREAM_ID,
    MAX_WINDOW,
    PADDED,
    PREFACE,
    PRIORITY,
    ConnectionFault,
    ErrorCode,
    Kind,
    Setting,
    frame,
    goaway_frame,
    http_block,
    unpadded,
)
from ext_authz.runtime.h2_head import HEADER_LIST_BYTES, MAX_BLOCK_BYTES, Head, HeadDecoder, Malformed
from ext_authz.runtime.h2_intake import Intake
from ext_authz.runtime.h2_stream import Stream, holds_too_much
from ext_authz.runtime.turns import Turns

__all__ = ["Calls", "Connection"]

STREAM_WINDOW = 1_048_576
"""One message of the default maximum comes without waiting for a window update."""

CONNECTION_WINDOW = 16_777_216
"""All streams together; it is given back as soon as data has come, what bounds memory is `h2_stream.HELD_BYTES`."""

WRITE_BUFFER_BYTES = 1_048_576
"""Waiting for a client that does not read its connection; above it nothing more is read from that client either."""

WEIGHED_BYTES = 65_536
"""Between two sums of what all streams hold: with one for each frame, small frames on many streams would be much work."""

_DRAIN_PING = b"ext-drai"


class Calls(Protocol):
    """Who answers."""

    def open(self, head: Head) -> CallRefused | None:
        """Whether there is such a method; a refusal when not."""
        ...

    def start(self, connection: "Connection", stream: Stream, message: bytes) -> None:
        """Answer `message` with `answer`, `send`, `finish` or `refuse`, now or later."""
        ...

    @property
    def turns(self) -> Turns:
        """Of all connections that have brought more than can be answered at once."""
        ...


class Connection(Intake, asyncio.Protocol):
    """Bytes in, calls out; and back.

    Attributes:
        draining: the client has been told to go elsewhere.
    """

    def __init__(
        self, calls: Calls, ceiling: int, maximum_streams: int, known: set["Connection"], ended: Callable[[], None]
    ) -> None:
        """Wait for `connection_made`.

        Args:
            calls: who answers.
            ceiling: the largest message in bytes.
            maximum_streams: at the same time.
            known: holds this connection from its beginning to its end.
            ended: told when it is there no longer.
        """
        super().__init__(calls.turns)
        self._calls = calls
        self._ceiling = ceiling
        self._maximum_streams = maximum_streams
        self._known = known
        self._ended = ended
        self._greeted = False
        # the one kind of frame that may come next, if only one may
        self._only: int | None = Kind.SETTINGS
        self._decoder = HeadDecoder()
        self._block: tuple[int, int, bytearray] | None = None
        self._last = 0
        self.draining = False
        self._credit = 0
        self._unweighed = 0

    # the event loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        # uvloop's transports are not subclasses of asyncio's
        transport = self._transport = cast(asyncio.Transport, transport)
        self._known.add(self)
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object is not None and ssl_object.selected_alpn_protocol() != "h2":
            transport.abort()
            return
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        settings = (
            (Setting.MAX_CONCURRENT_STREAMS, self._maximum_streams),
            (Setting.INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            (Setting.MAX_HEADER_LIST_SIZE, HEADER_LIST_BYTES),
        )
        payload = b"".join(int(name).to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in settings)
        self._out.append(frame(Kind.SETTINGS, 0, 0, payload))
        growth = CONNECTION_WINDOW - DEFAULT_WINDOW
        self._out.append(frame(Kind.WINDOW_UPDATE, 0, 0, growth.to_bytes(4, "big")))
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason changes nothing
        """Nobody listens any more."""
        self._transport = None
        for stream in self.streams.values():
            stream.stop_work()
        self.streams.clear()
        self._known.discard(self)
        self._ended()

    # the server's side

    def drain(self) -> None:
        """Have the client go elsewhere without losing a call that it sends at this moment.

        RFC 9113 §6.8: first announce it, and say which stream is the last one a round trip later.
        """
        if not self.draining:
            self.draining = True
            self._out.append(goaway_frame(MAX_STREAM_ID, ErrorCode.NO_ERROR))
            self._out.append(frame(Kind.PING, 0, 0, _DRAIN_PING))
            self.flush()

    def abort(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()

    # frames

    def _receive(self) -> bool:
        data = self._buffer
        at, end = self._taken, len(data)
        if not self._greeted:
            at = self._greet(data)
        while self._greeted and end - at >= 9 and self._allowance > 0:
            high, low, kind, flags, number = FRAME_HEAD.unpack_from(data, at)
            if high or low > MAX_FRAME_BYTES:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR)
            following = at + 9 + low
            if following > end:
                break
            if kind != self._only:
                if self._only is not None:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR)
            elif kind == Kind.SETTINGS:
                self._only = None
            handle = _HANDLERS.get(kind)
            if handle is not None:
                handle(self, flags, number & MAX_STREAM_ID, data[at + 9 : following])
            at = following
            self._allowance -= 1
        more = self._allowance <= 0 and end - at >= 9
        # what is left of many frames is copied once, and not for each slice
        self._buffer, self._taken = (data, at) if more else (data[at:], 0)
        return more

    def _greet(self, data: bytes) -> int:
        if not data.startswith(PREFACE[: len(data)]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR)
        self._greeted = len(data) >= len(PREFACE)
        if not self._greeted:
            return 0
        self._useless = None
        return len(PREFACE)

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        if number == 0 or number > self._last:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR)
        if flags & PADDED:
            payload = unpadded(payload)
        self._credit += size
        if self._credit > CONNECTION_WINDOW // 2:
            self._out.append(frame(Kind.WINDOW_UPDATE, 0, 0, self._credit.to_bytes(4, "big")))
            self._credit = 0
        stream = self.streams.get(number)
        if stream is None:
            # reset or answered already; what was under way is of no use
            return
        if stream.ended:
            self.reset(stream, ErrorCode.STREAM_CLOSED)
            return
        stream.credit += size
        stream.size += len(payload)
        try:
            if flags & END_STREAM:
                self._whole(stream, payload)
            else:
                self._piece(stream, payload)
        except CallRefused as refusal:
            self.refuse(stream, refusal)

    def _piece(self, stream: Stream, payload: bytes) -> None:
        stream.moved = time.monotonic()
        if stream.body is None:
            stream.body = MessageBuffer(self._ceiling)
        stream.body.add(payload)
        self._unweighed += len(payload)
        if self._unweighed >= WEIGHED_BYTES:
            self._unweighed = 0
            if holds_too_much(self.streams.values(), self._ceiling):
                self.reset(stream, ErrorCode.ENHANCE_YOUR_CALM)
                return
        if stream.credit > STREAM_WINDOW // 2:
            self._out.append(frame(Kind.WINDOW_UPDATE, 0, stream.number, stream.credit.to_bytes(4, "big")))
            stream.credit = 0

    def _whole(self, stream: Stream, last: bytes) -> None:
        stream.ended = True
        if stream.head.length is not None and stream.head.length != stream.size:
            self.reset(stream, ErrorCode.PROTOCOL_ERROR)
            return
        if stream.body is None:
            message = take_message(last, self._ceiling)
        else:
            stream.body.add(last)
            message = stream.body.finish()
            stream.body = None
        self._calls.start(self, stream, message)

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR)
        if flags & PADDED:
            payload = unpadded(payload)
        if flags & PRIORITY:
            if len(payload) < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR)
            payload = payload[5:]
        if flags & END_HEADERS:
            self._on_block(flags, number, payload)
        else:
            self._block, self._only = (flags, number, bytearray(payload)), Kind.CONTINUATION

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._block is None or self._block[1] != number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR)
        first_flags, _, block = self._block
        block += payload
        # an empty frame moves nothing, and a client could send them for ever
        if len(block) > MAX_BLOCK_BYTES or not payload:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM)
        if flags & END_HEADERS:
            self._block = self._only = None
            self._on_block(first_flags, number, bytes(block))

    def _on_block(self, flags: int, number: int, block: bytes) -> None:
        if number <= self._last:
            self._on_trailers(flags, number, block)
            return
        self._last = number
        if self._goaway is not None or len(self.streams) >= self._maximum_streams:
            self._decoder.skip(block)
            self._out.append(frame(Kind.RST_STREAM, 0, number, int(ErrorCode.REFUSED_STREAM).to_bytes(4, "big")))
            return
        try:
            head = self._decoder.head(block)
        except Malformed:
            self._out.append(frame(Kind.RST_STREAM, 0, number, int(ErrorCode.PROTOCOL_ERROR).to_bytes(4, "big")))
            return
        stream = self.streams[number] = Stream(number, head, self._stream_window, time.monotonic())
        refusal = head.refusal or self._calls.open(head)
        stream.ended = ended = bool(flags & END_STREAM)
        if isinstance(refusal, int):
            self._end(stream, http_block(refusal))
        elif refusal is not None:
            self.refuse(stream, refusal)
        elif ended:
            self._without_body(stream)

    def _without_body(self, stream: Stream) -> None:
        try:
            self._whole(stream, b"")
        except CallRefused as refusal:
            self.refuse(stream, refusal)

    def _on_trailers(self, flags: int, number: int, block: bytes) -> None:
        self._decoder.skip(block)
        stream = self.streams.get(number)
        if stream is None:
            return
        if stream.ended or not flags & END_STREAM:
            self.reset(stream, ErrorCode.PROTOCOL_ERROR)
            return
        self._without_body(stream)

    def _on_priority(self, _flags: int, number: int, payload: bytes) -> None:
        if number == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR)
        if len(payload) != 5:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR)

    def _on_reset(self, _flags: int, number: int, payload: bytes) -> None:
        if number == 0 or number > self._last:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR)
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR)
        stream = self.streams.pop(number, None)
        if stream is not None:
            stream.stop_work()

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR)
        if len(payload) % 6 or (flags & ACK and payload):
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR)
        if flags & ACK:
            return
        for at in range(0, len(payload), 6):
            self._set(int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big"))
        self._out.append(frame(Kind.SETTINGS, ACK, 0))

    def _set(self, name: int, value: int) -> None:
        if name == Setting.ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR)
        if name == Setting.MAX_FRAME_SIZE and not MAX_FRAME_BYTES <= value < 2**24:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR)
        if name == Setting.INITIAL_WINDOW_SIZE:
            self._resize_windows(value)

    def _on_push(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR)

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR)
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR)
        if not flags & ACK:
            self._out.append(frame(Kind.PING, ACK, 0, payload))
        elif self.draining and payload == _DRAIN_PING and self._goaway is None:
            self._goaway = self._last
            self._out.append(goaway_frame(self._last, ErrorCode.NO_ERROR))

    def _on_goaway(self, _flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR)
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR)

    def _on_window_update(self, _flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR)
        growth = int.from_bytes(payload, "big") & MAX_WINDOW
        if number > self._last or (number == 0 and growth == 0):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR)
        self._grow_window(number, growth)

    def _fail(self, code: ErrorCode) -> None:
        self._out.append(goaway_frame(self._last, code))
        for stream in self.streams.values():
            stream.stop_work()
        self.streams.clear()
        self._goaway = self._last


# not of each connection: it would hold itself, and only the cyclic collector would find it when it has ended
_HANDLERS: dict[int, Callable[[Connection, int, int, bytes], None]] = {
    Kind.DATA: Connection._on_data,  # noqa: SLF001 - a table of its own methods
    Kind.HEADERS: Connection._on_headers,  # noqa: SLF001
    Kind.PRIORITY: Connection._on_priority,  # noqa: SLF001
    Kind.RST_STREAM: Connection._on_reset,  # noqa: SLF001
    Kind.SETTINGS: Connection._on_settings,  # noqa: SLF001
    Kind.PUSH_PROMISE: Connection._on_push,  # noqa: SLF001
    Kind.PING: Connection._on_ping,  # noqa: SLF001
    Kind.GOAWAY: Connection._on_goaway,  # noqa: SLF001
    Kind.WINDOW_UPDATE: Connection._on_window_update,  # noqa: SLF001
    Kind.CONTINUATION: Connection._on_continuation,  # noqa: SLF001
}
