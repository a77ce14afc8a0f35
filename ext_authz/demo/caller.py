"""A client that sends exactly what it is told: any path, any header twice, any certificate, any server name."""

import http.client
import json
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ext_authz.demo.key_pair import KeyPair
from ext_authz.demo.stack import Endpoint

__all__ = ["Answer", "Call", "send"]

_TIMEOUT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        endpoint: the listener.
        target: path and query, sent as it is.
        method: sent as it is.
        headers: in order, sent as they are.
        credential: client certificate, or None to present none.
        host: the Host header; the endpoint's own name and port when None.
        server_name: SNI; the endpoint's own name when None.
        body: sent with a content length.
    """

    endpoint: Endpoint
    target: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    credential: KeyPair | None = None
    host: str | None = None
    server_name: str | None = None
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: HTTP status.
        headers: names lowercase; the last value where there are several.
        body: as sent.
        seconds: from the first byte of the request to the last of the response; connecting is not counted.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0

    def json(self) -> dict[str, object]:
        """The body as a JSON object.

        Raises:
            ValueError: it is none.
        """
        value = json.loads(self.body)
        if not isinstance(value, dict):
            raise ValueError("the body is not a JSON object")  # noqa: TRY004 - the value is wrong, not the argument
        return value

    def upstream_headers(self, name: str) -> Sequence[str]:
        """The values of a header (lowercase) that the echoing upstream received."""
        headers = self.json()["headers"]
        return headers.get(name, []) if isinstance(headers, dict) else []


def send(call: Call, ca_file: str) -> Answer:
    """Send one request on a connection of its own.

    Raises:
        OSError: no connection, or TLS refused.
        http.client.HTTPException: the response is not HTTP.
    """
    endpoint = call.endpoint
    connection: http.client.HTTPConnection
    if endpoint.is_tls:
        context = ssl.create_default_context(cafile=ca_file)
        if call.credential is not None:
            context.load_cert_chain(call.credential.certificate_file, call.credential.key_file)
        connection = _NamedConnection(endpoint, context, call.server_name or endpoint.server_name)
    else:
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.connect()
        started = time.perf_counter()
        connection.putrequest(call.method, call.target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", f"{endpoint.server_name}:{endpoint.port}" if call.host is None else call.host)
        for name, value in call.headers:
            connection.putheader(name, value)
        if call.body:
            connection.putheader("Content-Length", str(len(call.body)))
        connection.endheaders(call.body or None)
        response = connection.getresponse()
        body = response.read()
        seconds = time.perf_counter() - started
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, body, seconds)
    finally:
        connection.close()


class _NamedConnection(http.client.HTTPSConnection):
    """HTTPS to an address with a server name of our choosing."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__(endpoint.host, endpoint.port, timeout=_TIMEOUT_SECONDS, context=context)
        self._tls = context
        self._server_name = server_name

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)
