"""gRPC over HTTP/2 as bytes: the length-prefixed message of a unary call, `grpc-timeout`, and status codes.

Grammar and names are those of gRPC's PROTOCOL-HTTP2.md; which fault has which code is from its statuscodes.md.
"""

import re
from enum import IntEnum

__all__ = ["CallRefused", "MessageBuffer", "Status", "frame", "is_grpc", "parse_timeout", "take_message"]

PREFIX_BYTES = 5
"""Compressed-Flag (1 byte) and Message-Length (4 bytes, big endian)."""


class Status(IntEnum):
    """The gRPC status codes that a transport gives of its own accord."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class CallRefused(Exception):  # noqa: N818 - named for what it says, as `errors.Refusal`
    """A call that ends without an answer.

    Attributes:
        status: what the caller is told.
        message: why; fixed ASCII text without `%`, so that it needs no percent-encoding.
    """

    def __init__(self, status: Status, message: str) -> None:
        """Refuse with `status`."""
        super().__init__(message)
        self.status = status
        self.message = message


# TimeoutValue is at most 8 digits, TimeoutUnit one of six letters
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def parse_timeout(value: bytes) -> float:
    """Seconds in a `grpc-timeout` header.

    Raises:
        CallRefused: INTERNAL when it is anything else. Guessing would give a call the wrong time.
    """
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise CallRefused(Status.INTERNAL, "malformed grpc-timeout")
    return int(match[1]) * _UNITS[match[2]]


def is_grpc(content_type: bytes) -> bool:
    """Whether a content type promises gRPC messages in protocol buffers. Media types have no case (RFC 9110 §8.3.1)."""
    return content_type.partition(b";")[0].rstrip(b" \t").lower() in {b"application/grpc", b"application/grpc+proto"}


def frame(message: bytes) -> bytes:
    """`message` with its prefix, uncompressed."""
    return b"\x00" + len(message).to_bytes(4, "big") + message


def take_message(body: bytes, ceiling: int) -> bytes:
    """The only message of a whole request body.

    Raises:
        CallRefused: UNIMPLEMENTED for a compressed message, RESOURCE_EXHAUSTED for one above `ceiling` bytes, INTERNAL
            when the body holds anything but exactly one message.
    """
    length = _length(body, ceiling)
    if length is None or len(body) != PREFIX_BYTES + length:
        raise CallRefused(Status.INTERNAL, "the request is not exactly one whole message")
    return body[PREFIX_BYTES:]


def _length(body: bytes, ceiling: int) -> int | None:
    """The length that `body` begins with; None when there are too few bytes to tell."""
    if body and body[0]:
        if body[0] == 1:
            raise CallRefused(Status.UNIMPLEMENTED, "compressed messages are not supported")
        raise CallRefused(Status.INTERNAL, "malformed message prefix")
    if len(body) < PREFIX_BYTES:
        return None
    length = int.from_bytes(body[1:PREFIX_BYTES], "big")
    if length > ceiling:
        raise CallRefused(Status.RESOURCE_EXHAUSTED, "the message is larger than this server accepts")
    return length


class MessageBuffer:
    """A body that arrives in pieces. What can be refused is refused at once, so at most one piece is held too much."""

    __slots__ = ("_ceiling", "_data", "_length")

    def __init__(self, ceiling: int) -> None:
        """Accept a message up to `ceiling` bytes."""
        self._ceiling = ceiling
        self._length: int | None = None
        # one piece of memory, however small the pieces are in which it comes
        self._data = bytearray()

    def add(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            CallRefused: as `take_message`, as soon as it is certain.
        """
        self._data += piece
        if self._length is None:
            self._length = _length(bytes(self._data[:PREFIX_BYTES]), self._ceiling)
        if self._length is not None and len(self._data) > PREFIX_BYTES + self._length:
            raise CallRefused(Status.INTERNAL, "the request is not exactly one whole message")

    def finish(self) -> bytes:
        """The message, after the last piece.

        Raises:
            CallRefused: as `take_message`.
        """
        return take_message(bytes(self._data), self._ceiling)
