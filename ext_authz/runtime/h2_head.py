"""The head of a request: header block to what the server does with it (RFC 9113 §8.2, §8.3; gRPC's PROTOCOL-HTTP2.md).

Envoy sends the same block with each call once both sides have indexed its fields. Such a block, that changes nothing in
the decoder, is decoded once.
"""

import re
from dataclasses import dataclass

from hpack import HPACKError

from ext_authz.runtime.grpc_frame import CallRefused, Status, is_grpc, parse_timeout
from ext_authz.runtime.h2_fields import FieldDecoder
from ext_authz.runtime.h2_frame import ConnectionFault, ErrorCode
from ext_authz.telemetry.traceparent import HEADER, parse_traceparent

__all__ = ["HEADER_LIST_BYTES", "MAX_BLOCK_BYTES", "Head", "HeadDecoder", "Malformed"]

HEADER_LIST_BYTES = 65_536
"""Announced, and answered with 431 above. Envoy's own default for request headers is 60 KiB; what it sends here (its
metadata, trace context) is far less."""

MAX_BLOCK_BYTES = 4 * HEADER_LIST_BYTES
"""Above it, coded or decoded, the connection ends: a block must be decoded whole to keep the decoder's state."""

MAX_REMEMBERED = 64
"""Distinct blocks kept for one connection; Envoy needs one for each timeout it uses."""

MAX_REMEMBERED_BYTES = 1_024
"""Of one such block, five times what Envoy's have: blocks that only a client with other aims sends are not worth memory."""

MAX_TRACEPARENT_BYTES = 512
"""Ten times what version 00 has; it is kept for as long as the call lasts, so whoever sends more is in no trace."""

_TRACEPARENT = HEADER.encode()

# RFC 9110 §5.6.2, in lower case (RFC 9113 §8.2.1)
_NAME = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(rb"[^\x00\n\r]*")
_OF_HTTP_1 = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_ONCE = frozenset({b"content-type", b"te", b"grpc-timeout", b"content-length"})
_LENGTH = re.compile(rb"[0-9]{1,18}")


class Malformed(Exception):  # noqa: N818 - named for what it is
    """Not an HTTP request; its stream is reset with PROTOCOL_ERROR (RFC 9113 §8.1.1)."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a well-formed request asks for.

    Attributes:
        path: of the method that is called.
        timeout: seconds, or None when the caller did not say.
        length: `content-length`, or None.
        refusal: how the call ends without being looked at further: an HTTP status, or a gRPC one.
        traceparent: of the call, empty when it names no trace; None when it has none.
    """

    path: bytes
    timeout: float | None = None
    length: int | None = None
    refusal: int | CallRefused | None = None
    traceparent: str | None = None


class HeadDecoder:
    """The header blocks of one connection, in order."""

    def __init__(self) -> None:
        """Begin with an empty table."""
        self._decoder = FieldDecoder(MAX_BLOCK_BYTES)
        self._table = self._decoder.table
        self._remembered: dict[bytes, Head] = {}

    def head(self, block: bytes) -> Head:
        """The head that `block` says.

        Raises:
            Malformed: it says none.
            ConnectionFault: it cannot be decoded.
        """
        known = self._remembered.get(block)
        if known is not None:
            return known
        table, size = self._table, self._table.maxsize
        table.changed = False
        fields = self._fields(block)
        same_table = not table.changed and table.maxsize == size
        if not same_table or len(self._remembered) >= MAX_REMEMBERED:
            # what the same bytes say next time depends on the table; a malformed head has changed it all the same
            self._remembered.clear()
        head = _parse(fields)
        if same_table and len(block) <= MAX_REMEMBERED_BYTES:
            self._remembered[block] = head
        return head

    def skip(self, block: bytes) -> None:
        """Decode a block that nobody needs (trailers, a refused stream), because later ones depend on it."""
        self._fields(block)
        self._remembered.clear()

    def _fields(self, block: bytes) -> list[tuple[bytes, bytes]]:
        try:
            return self._decoder.decode(block)
        except HPACKError:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR) from None


def _parse(fields: list[tuple[bytes, bytes]]) -> Head:
    pseudo, once = _sorted(fields)
    path = pseudo.get(b":path", b"")
    if not {b":method", b":scheme", b":path"} <= pseudo.keys() or not path.startswith(b"/"):
        raise Malformed
    if once.get(b"te", b"trailers").lower() != b"trailers":
        raise Malformed
    length = once.get(b"content-length")
    if length is not None and _LENGTH.fullmatch(length) is None:
        raise Malformed
    if sum(len(name) + len(value) + 32 for name, value in fields) > HEADER_LIST_BYTES:
        return Head(path, refusal=431)
    return _call(pseudo[b":method"], path, once, None if length is None else int(length))


def _sorted(fields: list[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """Pseudo-header fields, and the others that matter here."""
    pseudo: dict[bytes, bytes] = {}
    once: dict[bytes, bytes] = {}
    regular = False
    for name, value in fields:
        if _VALUE.fullmatch(value) is None or value != value.strip(b" \t"):
            raise Malformed
        if name.startswith(b":"):
            if regular or name in pseudo or name not in _PSEUDO:
                raise Malformed
            pseudo[name] = value
            continue
        regular = True
        if _NAME.fullmatch(name) is None or name in _OF_HTTP_1:
            raise Malformed
        if name in _ONCE:
            if name in once and name != b"grpc-timeout":
                raise Malformed
            # two timeouts are as malformed as none that can be read, and gRPC has a status for it
            once[name] = b"" if name in once else value
        elif name == _TRACEPARENT:
            # of several, the last, as from gRPC's own library
            once[name] = value
    return pseudo, once


def _call(method: bytes, path: bytes, once: dict[bytes, bytes], length: int | None) -> Head:
    if method != b"POST":
        return Head(path, length=length, refusal=405)
    if not is_grpc(once.get(b"content-type", b"")):
        return Head(path, length=length, refusal=415)
    if b"te" not in once:
        # a client or proxy that cannot take trailers would never see how a call ends
        return Head(path, length=length, refusal=CallRefused(Status.INTERNAL, "the request must say te: trailers"))
    timeout = None
    if b"grpc-timeout" in once:
        try:
            timeout = parse_timeout(once[b"grpc-timeout"])
        except CallRefused as refusal:
            return Head(path, length=length, refusal=refusal)
    return Head(path, timeout, length, traceparent=_traceparent(once.get(_TRACEPARENT)))


def _traceparent(value: bytes | None) -> str | None:
    if value is None:
        return None
    text = value.decode("latin-1")
    return text if len(value) <= MAX_TRACEPARENT_BYTES and parse_traceparent(text) else ""
