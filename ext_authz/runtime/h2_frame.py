"""HTTP/2 frames (RFC 9113 §4, §6) as bytes, and the few header blocks that this server ever sends."""

from enum import IntEnum
from struct import Struct

from ext_authz.runtime.grpc_frame import CallRefused, Status

__all__ = [
    "ACK",
    "ANSWER_BLOCK",
    "END_HEADERS",
    "END_STREAM",
    "FRAME_HEAD",
    "MAX_FRAME_BYTES",
    "MAX_STREAM_ID",
    "MAX_WINDOW",
    "OK_TRAILERS_BLOCK",
    "PADDED",
    "PREFACE",
    "PRIORITY",
    "ConnectionFault",
    "ErrorCode",
    "Kind",
    "Setting",
    "frame",
    "goaway_frame",
    "http_block",
    "refusal_block",
    "refusal_trailers_block",
    "unpadded",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD = Struct(">BHBBI")
"""Length in 1 + 2 bytes, kind, flags, and stream with a reserved bit."""

MAX_FRAME_BYTES = 16_384
"""The default of SETTINGS_MAX_FRAME_SIZE and the least that every peer accepts; used both ways."""
MAX_WINDOW = 2**31 - 1
MAX_STREAM_ID = 2**31 - 1

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20


class Kind(IntEnum):
    """Frame types."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Setting(IntEnum):
    """Parameters of SETTINGS."""

    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    """Why a stream or connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionFault(Exception):  # noqa: N818 - named for what it is
    """The peer broke the protocol in a way that ends the connection."""

    def __init__(self, code: ErrorCode) -> None:
        """`code` goes into GOAWAY."""
        super().__init__(code.name)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame; `payload` is at most `MAX_FRAME_BYTES`."""
    return FRAME_HEAD.pack(0, len(payload), kind, flags, stream) + payload


def _field(name: bytes, value: bytes) -> bytes:
    """A field without indexing and without Huffman coding (RFC 7541 §6.2.2), so that no state is kept."""
    if len(name) > 126 or len(value) > 126:
        raise ValueError("longer than one byte of length can say")
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


# RFC 7541 Appendix A: 8 is `:status: 200`
_GRPC = b"\x88" + _field(b"content-type", b"application/grpc")
ANSWER_BLOCK = _GRPC
OK_TRAILERS_BLOCK = _field(b"grpc-status", b"0")


def refusal_trailers_block(refusal: CallRefused) -> bytes:
    """Trailers of an answer that began and fails."""
    return _field(b"grpc-status", b"%d" % refusal.status) + _field(b"grpc-message", refusal.message.encode("ascii"))


def refusal_block(refusal: CallRefused) -> bytes:
    """A whole answer in one block (Trailers-Only)."""
    accepted = _field(b"grpc-accept-encoding", b"identity") if refusal.status is Status.UNIMPLEMENTED else b""
    return _GRPC + refusal_trailers_block(refusal) + accepted


def http_block(status: int) -> bytes:
    """An answer to what is not gRPC."""
    return _field(b":status", b"%d" % status) + (_field(b"allow", b"POST") if status == 405 else b"")


def goaway_frame(last: int, code: ErrorCode) -> bytes:
    """GOAWAY: nothing after stream `last` was or will be looked at."""
    return frame(Kind.GOAWAY, 0, 0, last.to_bytes(4, "big") + int(code).to_bytes(4, "big"))


def unpadded(payload: bytes) -> bytes:
    """The payload of a frame with the PADDED flag without its padding. Raises ConnectionFault."""
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR)
    return payload[1 : len(payload) - payload[0]]
