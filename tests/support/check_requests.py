"""Check requests as Envoy sends them: messages and bytes for everyone's tests."""

from collections.abc import Iterable, Mapping
from urllib.parse import quote

from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest

__all__ = ["check_request", "check_request_message", "envoy_certificate"]


def check_request(**parts: object) -> bytes:
    """The bytes of `check_request_message(**parts)`."""
    return check_request_message(**parts).SerializeToString()  # type: ignore[arg-type]


def check_request_message(
    *,
    method: str = "GET",
    path: str = "/",
    host: str = "api.example.com",
    scheme: str = "https",
    protocol: str = "HTTP/2",
    request_id: str = "1234567890",
    headers: Mapping[str, str] | Iterable[tuple[str, str | bytes]] = (),
    raw_headers: Iterable[tuple[str, str | bytes]] | None = None,
    pseudo_headers: bool = True,
    source_address: str = "10.0.0.7",
    source_port: int = 40000,
    source_principal: str = "",
    source_certificate: str = "",
    destination_address: str = "10.0.0.8",
    destination_port: int = 8443,
    destination_principal: str = "",
    sni: str = "",
    context_extensions: Mapping[str, str] | None = None,
) -> CheckRequest:
    """One request, laid out as Envoy 1.40 lays it out.

    Args:
        method: `http.method`, as are the three that follow for their fields.
        path: see `method`.
        host: see `method`.
        scheme: see `method`.
        protocol: see `method`.
        request_id: `http.id`.
        headers: what the client sent, lowercase. Repeated names are joined with `,`, as Envoy does.
        raw_headers: instead of `headers`: what the client sent, in order, as `encode_raw_headers: true` gives it.
        pseudo_headers: also put `:method`, `:path`, `:authority` and `:scheme` among the headers, as Envoy does.
        source_address: of the connection; one that begins with `/` or `@` makes a Unix socket.
        source_port: of the connection.
        source_principal: `source.principal`.
        source_certificate: `source.certificate`; make it with `envoy_certificate(pem)`.
        destination_address: as `source_address`.
        destination_port: as `source_port`.
        destination_principal: `destination.principal`, the workload's own identity.
        sni: `tls_session.sni`.
        context_extensions: set by the proxy's configuration.
    """
    request = CheckRequest()
    attributes = request.attributes
    for peer, address, port, principal in (
        (attributes.source, source_address, source_port, source_principal),
        (attributes.destination, destination_address, destination_port, destination_principal),
    ):
        if address.startswith(("/", "@")):
            peer.address.pipe.path = address
        elif address:
            peer.address.socket_address.address = address
            peer.address.socket_address.port_value = port
        peer.principal = principal
    attributes.source.certificate = source_certificate
    attributes.request.time.seconds = 1_700_000_000
    http = attributes.request.http
    http.id, http.method, http.path, http.host = request_id, method, path, host
    http.scheme, http.protocol, http.size = scheme, protocol, -1
    pseudo = {":authority": host, ":method": method, ":path": path, ":scheme": scheme} if pseudo_headers else {}
    if raw_headers is not None:
        for name, value in (*pseudo.items(), *raw_headers):
            header = http.header_map.headers.add()
            header.key = name
            header.raw_value = value.encode() if isinstance(value, str) else value
    else:
        for name, value in (*pseudo.items(), *(headers.items() if isinstance(headers, Mapping) else headers)):
            text = value if isinstance(value, str) else value.decode("ascii", "replace").replace("\ufffd", "!")
            http.headers[name] = f"{http.headers[name]},{text}" if name in http.headers else text
    if sni:
        attributes.tls_session.sni = sni
    attributes.context_extensions.update(context_extensions or {})
    return request


def envoy_certificate(pem: str | bytes) -> str:
    """PEM as `source.certificate` and XFCC `Cert` carry it: URL-encoded, `+`, `/` and `=` too."""
    return quote(pem, safe="")
