"""Both transports behind a real Envoy. 403 is our answer, 503 is Envoy's when the call to us failed."""

import datetime as dt
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
from envoy_data_plane.envoy.config.core.v3 import Address, HealthCheck, HealthCheckGrpcHealthCheck, SocketAddress
from envoy_data_plane.envoy.config.endpoint.v3 import Endpoint, LbEndpoint
from support.fronts import Front, ask_many, denied, front, wait_for
from support.pki import authority, ec_key
from support.transports import KINDS, Kind, running

from ext_authz.demo.key_pair import KeyPair
from ext_authz.demo.proxy import UpstreamTls
from ext_authz.runtime.h2_transport import H2Transport
from ext_authz.runtime.tls import ServerCertificates, TlsMaterial

pytestmark = [pytest.mark.envoy, pytest.mark.parametrize("kind", KINDS[:2])]

CA = authority("envoy transport test")
TIMES = 15


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


def endpoint(host: str, port: int) -> LbEndpoint:
    return LbEndpoint(endpoint=Endpoint(address=Address(socket_address=SocketAddress(address=host, port_value=port))))


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


def test_envoys_health_checks_follow_ours(kind: Kind, tmp_path: Path) -> None:
    with running(kind) as server:
        server.soon(server.health.set_serving, True)
        with front(server, tmp_path, edit=check_health) as one:
            wait_for(lambda: one.stat("membership_healthy") == 1)
            server.soon(server.health.set_serving, False)
            wait_for(lambda: one.stat("membership_healthy") == 0)


@contextmanager
def asking(one: Front, clients: int = 8) -> Iterator[Counter[int]]:
    """Clients that ask all the time, each sixth time for something slow; the answers are all there at the end."""
    stop = threading.Event()
    results: Counter[int] = Counter()

    def keep_asking(_: int) -> Counter[int]:
        own: Counter[int] = Counter()
        while not stop.is_set():
            own += ask_many(one, 5) + ask_many(one, 1, "/slow")
        return own

    with ThreadPoolExecutor(clients) as pool:
        every = [pool.submit(keep_asking, number) for number in range(clients)]
        try:
            yield results
        finally:
            stop.set()
            for own in every:
                results += own.result()


def test_a_drain_under_load_loses_no_call(kind: Kind, tmp_path: Path) -> None:
    with running(kind) as leaving, running(kind) as staying:
        for server in (leaving, staying):
            server.service.answer = denied()
            server.soon(server.health.set_serving, True)
        # long enough to be under way still when Envoy has noticed
        leaving.service.slow_seconds = 1.5

        def both(config: Bootstrap) -> None:
            check_health(config)
            assert config.static_resources is not None
            assignment = config.static_resources.clusters[0].load_assignment
            assert assignment is not None
            assignment.endpoints[0].lb_endpoints.append(endpoint(*staying.target))

        with front(leaving, tmp_path, edit=both) as one:
            wait_for(lambda: one.stat("membership_healthy") == 2)
            with asking(one) as results:
                wait_for(lambda: leaving.service.held)
                leaving.soon(leaving.health.set_serving, False)
                wait_for(lambda: one.stat("membership_healthy") == 1)
                # Envoy tells its threads once a second (`update_merge_window`); until then they ask here
                wait_for(lambda: time.monotonic() - leaving.service.asked_at > 0.5)
                assert leaving.service.held
                asked = len(leaving.service.deadlines)
                before = len(staying.service.deadlines)
                leaving.drain(5.0)
                wait_for(lambda: len(staying.service.deadlines) > before + 150)
            assert set(results) == {403}
            assert len(leaving.service.deadlines) == asked
            assert leaving.service.cancelled == 0
            assert results[403] == asked + len(staying.service.deadlines)


def test_an_envoy_that_is_sent_away_again_and_again_loses_no_call(kind: Kind, tmp_path: Path) -> None:
    if not kind.is_h2:
        pytest.skip("gRPC's library sends no one away while it serves")
    with running(kind) as server, front(server, tmp_path) as one:
        transport = server.transport
        assert isinstance(transport, H2Transport)
        with asking(one) as results:
            for number in range(TIMES):
                # Envoy counts a connection before it is accepted
                wait_for(lambda: any(not connection.draining for connection in tuple(transport._connections)))
                wait_for(lambda: server.service.held)
                server.soon(transport.send_away, 1)
                wait_for(lambda: one.stat("upstream_cx_total") == number + 2)  # noqa: B023 - called at once
        assert set(results) == {403}
        assert results[403] == len(server.service.deadlines)
        assert server.service.cancelled == 0
        # each went away because it was told to, and none was broken off
        assert one.stat("upstream_cx_close_notify") == TIMES
        assert one.stat("upstream_cx_destroy_with_active_rq") == 0


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
