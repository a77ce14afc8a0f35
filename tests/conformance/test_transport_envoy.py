"""Both transports behind a real Envoy. 403 is our answer, 503 is Envoy's when the call to us failed."""

import datetime as dt
import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
from envoy_data_plane.envoy.config.core.v3 import HealthCheck, HealthCheckGrpcHealthCheck
from support.envoys import INSTALLED, require_binary
from support.pki import authority, ec_key
from support.transports import KINDS, Kind, Running, running

from ext_authz.demo.bootstrap import bootstrap
from ext_authz.demo.envoy import EnvoyProcess
from ext_authz.demo.key_pair import KeyPair
from ext_authz.demo.proxy import CheckFilter, ProxyCluster, ProxyListener, UpstreamTls
from ext_authz.runtime.tls import ServerCertificates, TlsMaterial
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse

pytestmark = [pytest.mark.envoy, pytest.mark.parametrize("kind", KINDS[:2])]

CA = authority("envoy transport test")


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


@contextmanager
def front(
    server: Running,
    folder: Path,
    tls: UpstreamTls | None = None,
    edit: Callable[[Bootstrap], None] = lambda _: None,
) -> Iterator[Front]:
    config = bootstrap(
        (ProxyListener("front", check=CheckFilter(timeout=2.0)),),
        (
            ProxyCluster("ext_authz", server.address, http2=True, tls=tls),
            ProxyCluster("upstream", "127.0.0.1:1"),
        ),
    )
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


def test_every_request_of_many_clients_is_answered_over_one_connection(kind: Kind, tmp_path: Path) -> None:
    with running(kind) as server, front(server, tmp_path) as one, ThreadPoolExecutor(16) as pool:
        results = sum(pool.map(lambda _: ask_many(one, 20), range(16)), Counter[int]())
        waited = sum(pool.map(lambda _: ask_many(one, 1, "/slow"), range(16)), Counter[int]())
        assert results == {403: 320}
        assert waited == {403: 16}
        assert one.stat("upstream_cx_total") == 1
        assert len(server.service.deadlines) == 336
        # Envoy's timeout for the filter arrives as grpc-timeout
        assert all(deadline is not None for deadline in server.service.deadlines)


def test_a_unix_socket_serves_envoy(kind: Kind, tmp_path: Path) -> None:
    with running(kind, address=f"unix:{tmp_path}/check.sock") as server, front(server, tmp_path) as one:
        assert ask_many(one, 20) == {403: 20}


def test_a_drain_finishes_what_envoy_asked_and_a_restart_is_found_again(kind: Kind, tmp_path: Path) -> None:
    with running(kind) as server, front(server, tmp_path) as one:
        assert ask_many(one, 5) == {403: 5}
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(ask_many, one, 1, "/slow")
            wait_for(lambda: server.service.held == 1)
            server.drain(2.0)
            assert slow.result() == {403: 1}
        assert ask_many(one, 1) == {503: 1}
        with running(kind, address=server.address) as second:
            second.service.answer = denied()
            wait_for(lambda: ask_many(one, 1) == {403: 1})


def test_envoys_health_checks_follow_ours(kind: Kind, tmp_path: Path) -> None:
    def check_health(config: Bootstrap) -> None:
        assert config.static_resources is not None
        config.static_resources.clusters[0].health_checks = [
            HealthCheck(
                timeout=dt.timedelta(seconds=1),
                interval=dt.timedelta(milliseconds=100),
                no_traffic_interval=dt.timedelta(milliseconds=100),
                unhealthy_threshold=1,
                healthy_threshold=1,
                grpc_health_check=HealthCheckGrpcHealthCheck(),
            )
        ]

    with running(kind) as server:
        server.soon(server.health.set_serving, True)
        with front(server, tmp_path, edit=check_health) as one:
            wait_for(lambda: one.stat("membership_healthy") == 1)
            server.soon(server.health.set_serving, False)
            wait_for(lambda: one.stat("membership_healthy") == 0)


def test_renewed_certificates_fail_no_request_that_comes_through_envoy(kind: Kind, tmp_path: Path) -> None:
    leaves = [CA.leaf(key=ec_key(name), dns_sans=["server.test"]) for name in ("first", "second")]
    materials = [TlsMaterial(leaf.pem, leaf.key_pem, CA.pem) for leaf in leaves]
    mine = CA.leaf(key=ec_key("envoy"), dns_sans=["envoy.test"])
    for name, content in {"ca": CA.pem, "chain": mine.pem, "key": mine.key_pem}.items():
        (tmp_path / f"{name}.pem").write_bytes(content)
    pair = KeyPair(str(tmp_path / "chain.pem"), str(tmp_path / "key.pem"))
    tls = UpstreamTls(str(tmp_path / "ca.pem"), "server.test", pair)
    certificates = ServerCertificates(materials[0])
    stop = threading.Event()

    def keep_asking() -> Counter[int]:
        results: Counter[int] = Counter()
        while not stop.is_set():
            results += ask_many(one, 10)
        return results

    with (
        running(kind, certificates) as server,
        front(server, tmp_path, tls) as one,
        ThreadPoolExecutor(8) as pool,
    ):
        assert ask_many(one, 5) == {403: 5}
        asking = [pool.submit(keep_asking) for _ in range(8)]
        for number in range(10):
            time.sleep(0.3)
            certificates.replace(materials[(number + 1) % 2])
        time.sleep(0.3)
        stop.set()
        results = sum((one_asking.result() for one_asking in asking), Counter[int]())
        assert set(results) == {403}
        assert results[403] > 300
