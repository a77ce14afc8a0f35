"""Messages between the supervisor and a worker or the nursery, with open files beside them, over a Unix stream socket.

    message = header-length payload-length files (4 bytes each, big-endian)  header (JSON object)  payload

A socket, unlike a pipe, carries open files (`SCM_RIGHTS`): connections that were accepted. The kernel delivers them with the
first byte they were sent with, so they come in the order of the messages that name their number.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

__all__ = ["MAX_FILES", "Channel", "Message", "MessageReader", "encoded"]

_HEAD = struct.Struct("!III")

READ_BYTES = 262_144
"""Taken from the socket at once."""

MAX_FILES = 16
"""Files that one read may bring; a message has at most one, and what does not fit into a read would be closed unseen."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        kind: what it says.
        fields: what varies, JSON values.
        payload: bytes that are no JSON.
        files: descriptors, for the receiver to close.
    """

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""
    files: tuple[int, ...] = ()


def encoded(message: Message) -> bytes:
    """The bytes of `message`; its files are sent beside the first of them."""
    header = orjson.dumps({"kind": message.kind, **message.fields})
    return _HEAD.pack(len(header), len(message.payload), len(message.files)) + header + message.payload


class MessageReader:
    """Puts messages together from what a socket gave."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._buffer = bytearray()
        self._files: deque[int] = deque()

    def feed(self, data: bytes, files: Sequence[int]) -> list[Message]:
        """The messages that are whole now, in order."""
        self._buffer += data
        self._files.extend(files)
        messages: list[Message] = []
        at = 0
        while len(self._buffer) - at >= _HEAD.size:
            header_size, payload_size, count = _HEAD.unpack_from(self._buffer, at)
            begin = at + _HEAD.size
            end = begin + header_size + payload_size
            if len(self._buffer) < end:
                break
            header = orjson.loads(self._buffer[begin : begin + header_size])
            kind = header.pop("kind")
            payload = bytes(self._buffer[begin + header_size : end])
            messages.append(Message(kind, header, payload, tuple(self._files.popleft() for _ in range(count))))
            at = end
        del self._buffer[:at]
        return messages

    def close(self) -> None:
        """Close files of a message that never became whole."""
        while self._files:
            os.close(self._files.popleft())


class Channel:
    """One end, on an event loop. What cannot be sent at once waits; the other end's death ends it."""

    def __init__(self, own: socket.socket, on_message: Callable[[Message], None], on_end: Callable[[], None]) -> None:
        """Read from `own`, which belongs to the channel from now on.

        Args:
            own: connected Unix stream socket.
            on_message: given each message; must not raise.
            on_end: told once when the other end is gone; not after `close`.
        """
        own.setblocking(False)
        self._socket = own
        self._on_message = on_message
        self._on_end = on_end
        self._reader = MessageReader()
        self._waiting: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._writing = False
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(own, self._readable)

    def send(self, message: Message) -> None:
        """Send `message`, now or soon; its files are copied for the other end and stay the caller's.

        Files of a message that has to wait are copied first, so that the caller may close them at once.
        """
        if self._closed:
            return
        data = memoryview(encoded(message))
        if self._writing:
            self._waiting.append((data, tuple(os.dup(file) for file in message.files)))
            return
        sent = self._try_to_send(data, message.files)
        if sent == len(data) or self._closed:
            return
        # files travel with the first byte
        files = () if sent else tuple(os.dup(file) for file in message.files)
        self._waiting.append((data[sent:], files))
        self._writing = True
        self._loop.add_writer(self._socket, self._writable)

    def flush(self, seconds: float) -> None:
        """Send what waits, and let nothing else happen meanwhile; for the end of a process."""
        if self._closed:
            return
        self._socket.settimeout(seconds)
        with contextlib.suppress(OSError):
            while self._waiting:
                data, files = self._waiting.popleft()
                if files:
                    data = data[socket.send_fds(self._socket, [data], list(files)) :]
                    _close_all(files)
                self._socket.sendall(data)

    def close(self) -> None:
        """Close this end; the other one learns of it."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._reader.close()
        for _, files in self._waiting:
            _close_all(files)
        self._waiting.clear()

    def _try_to_send(self, data: memoryview, files: Sequence[int]) -> int:
        try:
            if files:
                return socket.send_fds(self._socket, [data], list(files))
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._end()
            return 0

    def _writable(self) -> None:
        while self._waiting:
            data, files = self._waiting[0]
            sent = self._try_to_send(data, files)
            if self._closed or not sent:
                return
            _close_all(files)
            if sent < len(data):
                self._waiting[0] = (data[sent:], ())
                return
            self._waiting.popleft()
        self._writing = False
        self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            data, files, flags, _ = socket.recv_fds(self._socket, READ_BYTES, MAX_FILES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, files, flags = b"", [], 0
        if not data or flags & socket.MSG_CTRUNC:
            # a file that this process had no room for is lost, and from then on files would be taken for others
            _close_all(files)
            self._end()
            return
        for message in self._reader.feed(data, files):
            self._on_message(message)

    def _end(self) -> None:
        if not self._closed:
            self.close()
            self._on_end()


def _close_all(files: Sequence[int]) -> None:
    for file in files:
        with contextlib.suppress(OSError):
            os.close(file)
