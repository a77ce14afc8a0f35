"""Clients that send exactly what they are told: HTTP/1.1 as bytes on a TLS socket, HTTP/2 with any target and header."""

import http.client
import json
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import httpx
from e2e.upstream import Seen
from support.pki import Leaf

__all__ = ["Header", "Reply", "connect", "head_of", "over_http1", "over_http2", "read_reply", "tls_context"]

TIMEOUT_SECONDS = 15.0

Header: TypeAlias = tuple[str, str | bytes]


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        status: HTTP status.
        headers: names lowercase, in order, duplicates kept.
        body: as sent.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        """The values of a header (lowercase name)."""
        return [value for key, value in self.headers if key == name]

    @property
    def seen(self) -> Seen:
        """What the upstream received, from its answer."""
        assert self.status == 200, f"not from the upstream: {self}"
        content = json.loads(self.body)
        pairs = tuple((name, value) for name, value in content["headers"])
        return Seen(content["method"], content["target"], pairs, content["body"].encode("latin-1"))


@cache
def tls_context(ca: bytes, leaf: Leaf | None, directory: Path, protocol: str) -> ssl.SSLContext:
    """A client's context that trusts `ca` and presents `leaf`; `protocol` is offered by ALPN.

    Args:
        ca: PEM.
        leaf: with its chain, or None to present nothing.
        directory: where its key may lie.
        protocol: `http/1.1` or `h2`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca.decode())
    # the tests send any server name to any listener
    context.check_hostname = False
    context.set_alpn_protocols([protocol])
    if leaf is not None:
        certificate, key = directory / f"{leaf.thumbprint.hex()}.pem", directory / f"{leaf.thumbprint.hex()}.key"
        certificate.write_bytes(leaf.chain_pem)
        key.write_bytes(leaf.key_pem)
        context.load_cert_chain(certificate, key)
    return context


def connect(port: int, context: ssl.SSLContext | None, server_name: str) -> socket.socket:
    """A connection to a listener on loopback, in plain text without a context."""
    raw = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is None:
        return raw
    try:
        return context.wrap_socket(raw, server_hostname=server_name)
    except BaseException:
        raw.close()
        raise


def head_of(method: str, target: str, headers: Sequence[Header]) -> bytes:
    """The head of an HTTP/1.1 request; nothing is checked or added."""
    lines = [f"{method} {target} HTTP/1.1".encode("latin-1")]
    lines += [
        name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()) for name, value in headers
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def read_reply(connection: socket.socket, method: str = "GET") -> Reply:
    """The next response on the connection."""
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    try:
        headers = tuple((name.lower(), value) for name, value in response.getheaders())
        return Reply(response.status, headers, response.read())
    finally:
        response.close()


def over_http1(
    port: int,
    context: ssl.SSLContext | None,
    server_name: str,
    *,
    method: str,
    target: str,
    headers: Sequence[Header],
    body: bytes = b"",
) -> Reply:
    """One request on a connection of its own."""
    framing = [("content-length", str(len(body)))] if body else []
    with connect(port, context, server_name) as connection:
        connection.sendall(head_of(method, target, [*headers, *framing]) + body)
        return read_reply(connection, method)


def over_http2(
    port: int,
    context: ssl.SSLContext | None,
    server_name: str,
    *,
    method: str,
    target: str,
    headers: Sequence[Header],
    body: bytes = b"",
) -> Reply:
    """One request on a connection of its own; `host` among the headers becomes `:authority`."""
    assert context is not None, "HTTP/2 is spoken over TLS here"
    extensions = {"target": target.encode("latin-1"), "sni_hostname": server_name}
    with httpx.Client(http1=False, http2=True, verify=context, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        request = httpx.Request(
            method,
            f"https://127.0.0.1:{port}/",
            headers=[(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers],
            content=body or None,
            extensions=extensions,
        )
        # the constructor writes it in capitals
        request.method = method
        response = client.send(request)
        assert response.http_version == "HTTP/2"
        pairs = tuple((name.decode().lower(), value.decode("latin-1")) for name, value in response.headers.raw)
        return Reply(response.status_code, pairs, response.content)
