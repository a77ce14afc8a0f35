"""An Envoy that asks one transport about every request. 403 is our answer, 503 is Envoy's when the call to us failed."""

import http.client
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import ExtAuthz
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManager
from envoy_data_plane.google.protobuf import Any as Packed

from ext_authz.demo.bootstrap import EXT_AUTHZ_FILTER, bootstrap
from ext_authz.demo.envoy import EnvoyProcess
from ext_authz.demo.proxy import CheckFilter, ProxyCluster, ProxyListener, UpstreamTls
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from support.envoys import INSTALLED, require_binary
from support.transports import Running

__all__ = ["Front", "ask_many", "denied", "front", "wait_for", "without_retries"]

Kind = TypeVar("Kind")


def denied() -> bytes:
    response = CheckResponse()
    response.status.code = 7
    response.denied_response.status.code = 403  # type: ignore[assignment]  # the enum is open: a number is a value
    return response.SerializeToString()


class Front:
    """An Envoy that asks the transport about every request, and has nothing to send it on to."""

    def __init__(self, envoy: EnvoyProcess, server: Running) -> None:
        self.envoy = envoy
        self.server = server

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.envoy.ports["front"], timeout=10)

    def stat(self, name: str) -> int:
        return self.envoy.stat(f"cluster.ext_authz.{name}")

    def ask(self, connection: http.client.HTTPConnection, path: str = "/") -> int:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status


def without_retries(config: Bootstrap) -> None:
    """Have Envoy fail a request whose call to us fails, so that none can be lost unseen."""
    assert config.static_resources is not None
    for listener in config.static_resources.listeners:
        (network_filter,) = listener.filter_chains[0].filters
        manager = _unpacked(network_filter.typed_config, HttpConnectionManager)
        for http_filter in manager.http_filters:
            if http_filter.name == EXT_AUTHZ_FILTER:
                check = _unpacked(http_filter.typed_config, ExtAuthz)
                assert check.grpc_service is not None
                check.grpc_service.retry_policy = None
                http_filter.typed_config = Packed.pack(check)
        network_filter.typed_config = Packed.pack(manager)


def _unpacked(packed: Packed | None, kind: type[Kind]) -> Kind:
    assert packed is not None
    message = packed.unpack()
    assert isinstance(message, kind)
    return message


@contextmanager
def front(
    server: Running,
    folder: Path,
    tls: UpstreamTls | None = None,
    edit: Callable[[Bootstrap], None] = lambda _: None,
) -> Iterator[Front]:
    config = bootstrap(
        (ProxyListener("front", check=CheckFilter(timeout=5.0)),),
        (
            ProxyCluster("ext_authz", server.address, http2=True, tls=tls),
            ProxyCluster("upstream", "127.0.0.1:1"),
        ),
    )
    without_retries(config)
    edit(config)
    server.service.answer = denied()
    with EnvoyProcess(require_binary(INSTALLED), config, folder) as envoy:
        yield Front(envoy, server)


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.05)


def ask_many(one: Front, requests: int, path: str = "/") -> Counter[int]:
    connection = one.connect()
    try:
        return Counter(one.ask(connection, path) for _ in range(requests))
    finally:
        connection.close()
