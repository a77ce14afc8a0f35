"""CheckRequest bytes to `RequestFacts`: what Envoy said, as values, or a refusal.

Whatever bytes come in, the outcome is facts or a `Refusal`, never another error. Nothing here decides anything: it only
refuses what two readers could understand differently.
"""

from collections.abc import Collection, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from google.protobuf.message import DecodeError

from ext_authz.errors import Reason, Refusal
from ext_authz.facts import HeaderNames, Headers, RequestFacts
from ext_authz.wire._pb.envoy.config.core.v3.base_pb2 import HeaderValue
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest

__all__ = ["MAX_HEADERS", "MAX_HEADER_VALUE_BYTES", "parse_check_request"]

MAX_HEADERS = 1024
"""Header fields of one request. Envoy refuses more than 100 by default; operators raise that, hardly tenfold."""

MAX_HEADER_VALUE_BYTES = 64 * 1024
"""One header value. Envoy's default for all headers of a request together is 60 KiB."""

# RFC 9110 §5.6.2 `tchar`, without the uppercase letters: Envoy writes names in lowercase.
_LOWERCASE_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"

# `FromString` without the attribute lookup; upb raises DecodeError for text that is not UTF-8, the pure Python
# implementation of protobuf UnicodeDecodeError.
_read = CheckRequest.FromString
_UNREADABLE = (DecodeError, UnicodeDecodeError, RecursionError)

_NO_EXTENSIONS: Mapping[str, str] = MappingProxyType({})

# `:method`, `:path`, `:authority` and `:scheme` as the attributes give them.
_Pseudo: TypeAlias = tuple[str, str, str, str]

# Extended CONNECT (RFC 8441 §4): known, and of no use to a decision.
_PROTOCOL = ":protocol"
_PSEUDO_NAMES = frozenset({":method", ":path", ":authority", ":scheme", _PROTOCOL})

_LONGEST_REMEMBERED = 2_048
"""Characters of the names of a request that are kept: several times what browsers and services send."""

_MOST_REMEMBERED = 64
"""Names of a request that are kept; browsers and services send up to 40. A short name takes as much as a long one."""


def parse_check_request(data: bytes) -> RequestFacts:
    """One CheckRequest as values.

    Args:
        data: the serialized `envoy.service.auth.v3.CheckRequest`.

    Raises:
        Refusal: REQUEST_MALFORMED (not a CheckRequest, text that is not UTF-8, headers in both forms, a pseudo header
            that contradicts its attribute), REQUEST_WITHOUT_HTTP (a TCP connection), HEADER_MALFORMED,
            HEADER_TOO_LARGE.
    """
    try:
        attributes = _read(data).attributes
    except _UNREADABLE:
        raise Refusal(Reason.REQUEST_MALFORMED, "the message is not a CheckRequest") from None
    request = attributes.request
    if not request.HasField("http"):
        raise Refusal(Reason.REQUEST_WITHOUT_HTTP, "the CheckRequest has no `http` attribute")
    http = request.http
    method, path, host, scheme = http.method, http.path, http.host, http.scheme
    pseudo = (method, path, host, scheme)
    merged = http.headers
    if http.HasField("header_map"):
        if merged:
            raise Refusal(Reason.REQUEST_MALFORMED, "the CheckRequest has both `headers` and `header_map`")
        headers = _raw_headers(http.header_map.headers, pseudo, len(data))
    else:
        headers = _merged_headers(merged, pseudo, len(data))
    source, destination = attributes.source, attributes.destination
    # a Unix socket or an internal listener has no socket address: empty text and port 0
    source_socket, destination_socket = source.address.socket_address, destination.address.socket_address
    extensions = attributes.context_extensions
    return RequestFacts(
        method,
        path,
        host,
        scheme,
        http.protocol,
        http.id,
        headers,
        source_socket.address,
        source_socket.port_value,
        source.principal,
        source.certificate,
        destination_socket.address,
        destination_socket.port_value,
        destination.principal,
        attributes.tls_session.sni,
        MappingProxyType(dict(extensions)) if extensions else _NO_EXTENSIONS,
    )


def _merged_headers(fields: Mapping[str, str], pseudo: _Pseudo, size: int) -> Headers:
    """`http.headers` without its pseudo headers. `size` is that of the whole message."""
    if len(fields) > MAX_HEADERS:
        raise _too_many()
    method, path, host, scheme = pseudo
    value_of = fields.get
    if (
        value_of(":method", method) != method
        or value_of(":path", path) != path
        or value_of(":authority", host) != host
        or value_of(":scheme", scheme) != scheme
    ):
        raise _contradiction()
    # no name has a line end; one that does is a line too many
    lines, count = "\n".join(fields), len(fields)
    is_usual = count <= _MOST_REMEMBERED and len(lines) <= _LONGEST_REMEMBERED
    names, as_sent = (_remembered_names if is_usual else _read_names)(lines, count)
    values = fields if as_sent is None else {name: fields[sent] for name, sent in as_sent.items()}
    # RFC 9113 §8.3.1: a `host` field that differs from `:authority` makes the request malformed
    if "host" in names.names and values["host"] != host:
        raise _contradiction()
    # a value is never longer than the message that holds it
    if size > MAX_HEADER_VALUE_BYTES:
        for name in names.names:
            if len(values[name].encode()) > MAX_HEADER_VALUE_BYTES:
                raise _too_long()
    # the values stay in the message, where most of them are never asked for
    return Headers.merged(values, names)


class _Names(NamedTuple):
    """The names of `http.headers`.

    Attributes:
        names: without the pseudo headers.
        as_sent: by lowercase name, as the request has it; None where that is the same for all.
    """

    names: HeaderNames
    as_sent: Mapping[str, str] | None


def _read_names(lines: str, count: int) -> _Names:
    """The `count` names in `lines`, each on one.

    Raises:
        Refusal: HEADER_MALFORMED for a name that is no token, and for two that differ only in letter case.
    """
    sent = lines.split("\n") if count else []
    if len(sent) != count:
        raise _no_token()
    regular = [name for name in sent if name not in _PSEUDO_NAMES]
    lowered = {_token(name): name for name in regular}
    if len(lowered) != len(regular):
        raise Refusal(Reason.HEADER_MALFORMED, "two header names differ only in letter case")
    is_lowercase = all(name == sent for name, sent in lowered.items())
    return _Names(HeaderNames.of(frozenset(lowered)), None if is_lowercase else lowered)


# what one kind of client sends is always the same; at most 512 of less than 20 KB
_remembered_names = lru_cache(maxsize=512)(_read_names)


def _raw_headers(pairs: Collection[HeaderValue], pseudo: _Pseudo, size: int) -> Headers:
    """`http.header_map` without its pseudo headers. `size` is that of the whole message."""
    # the pseudo headers count here, as the four that every request has
    if len(pairs) > MAX_HEADERS:
        raise _too_many()
    fields = [(pair.key, pair.raw_value or pair.value.encode()) for pair in pairs]
    regular = [field for field in fields if field[0][:1] != ":"]
    if len(regular) != len(fields):
        _compare([field for field in fields if field[0][:1] == ":"], pseudo)
    names = [field[0] for field in regular]
    if "" in names or "".join(names).encode().translate(None, _LOWERCASE_TOKEN):
        regular = [(_token(name), value) for name, value in regular]
        names = [field[0] for field in regular]
    if "host" in names:
        _compare([(":authority", value) for name, value in regular if name == "host"], pseudo)
    if size > MAX_HEADER_VALUE_BYTES:
        for _, value in regular:
            if len(value) > MAX_HEADER_VALUE_BYTES:
                raise _too_long()
    return Headers.raw(regular)


def _compare(fields: list[tuple[str, bytes]], pseudo: _Pseudo) -> None:
    attributes = dict(zip((":method", ":path", ":authority", ":scheme"), pseudo, strict=True))
    for name, value in fields:
        if name in attributes:
            if attributes[name].encode() != value:
                raise _contradiction()
        elif name != _PROTOCOL:
            raise Refusal(Reason.HEADER_MALFORMED, "a pseudo header is unknown")


def _token(name: str) -> str:
    """`name` in lowercase.

    Raises:
        Refusal: HEADER_MALFORMED when it is not a token (RFC 9110 §5.1).
    """
    # `lower` maps two characters outside ASCII into it (U+0130, U+212A); those are no token either
    lowered = name.lower() if name.isascii() else ""
    if not lowered or lowered.encode().translate(None, _LOWERCASE_TOKEN):
        raise _no_token()
    return lowered


def _no_token() -> Refusal:
    return Refusal(Reason.HEADER_MALFORMED, "a header name is not a token")


def _contradiction() -> Refusal:
    return Refusal(Reason.REQUEST_MALFORMED, "a pseudo header contradicts its attribute")


def _too_many() -> Refusal:
    return Refusal(Reason.HEADER_TOO_LARGE, f"more than {MAX_HEADERS} headers")


def _too_long() -> Refusal:
    return Refusal(Reason.HEADER_TOO_LARGE, f"a header value is longer than {MAX_HEADER_VALUE_BYTES} bytes")
