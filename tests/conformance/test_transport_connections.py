"""Both transports at the largest number of connections: the ones that are there go on, another is refused, and takes a place
that becomes free."""

import contextlib
import socket
import time
from pathlib import Path

import pytest
from support.fronts import ask_many, front, wait_for
from support.pki import authority, ec_key
from support.raw_h2 import RawConnection, frame
from support.transports import KINDS, Kind, Running, call, running, secure_channel

from ext_authz.runtime.tls import ServerCertificates, TlsMaterial

pytestmark = pytest.mark.parametrize("kind", KINDS)

MAXIMUM = 5


def is_served(server: Running) -> bool:
    """Whether a connection that is opened now is answered; fails when it is left to wait."""
    started = time.monotonic()
    try:
        with RawConnection(server.target) as one:
            served = one.finished(one.request(frame(b"x"))).status == 0
            assert served or one.closed
    except ConnectionResetError:
        served = False
    assert time.monotonic() - started < 3.0
    return served


def wait_until_served(server: Running) -> None:
    until = time.monotonic() + 10
    while not is_served(server):
        assert time.monotonic() < until, "a place that is free is not given to another connection"
        time.sleep(0.05)


def test_a_connection_too_many_is_refused_at_once_and_the_others_go_on(kind: Kind) -> None:
    with running(kind, maximum_connections=MAXIMUM) as server, contextlib.ExitStack() as opened:
        ones = [opened.enter_context(RawConnection(server.target)) for _ in range(MAXIMUM)]
        assert all(one.finished(one.request(frame(b"x"))).status == 0 for one in ones)
        assert not any(is_served(server) for _ in range(20))
        assert all(one.finished(one.request(frame(b"x"))).status == 0 for one in ones)
        ones[0].__exit__(None, None, None)
        wait_until_served(server)
        assert all(one.finished(one.request(frame(b"x"))).status == 0 for one in ones[1:])


def test_handshakes_that_fail_give_their_places_back(kind: Kind) -> None:
    ca = authority("connections")
    leaf = ca.leaf(key=ec_key("connections"), dns_sans=["server.test"])
    certificates = ServerCertificates(TlsMaterial(leaf.pem, leaf.key_pem, None))
    with running(kind, certificates, maximum_connections=1) as server:
        for _ in range(5):
            with socket.create_connection(server.target) as no_tls:
                no_tls.sendall(b"GET / HTTP/1.1\r\n\r\n")
                with contextlib.suppress(ConnectionResetError):
                    while no_tls.recv(1024):
                        pass
        with secure_channel(server.address, ca.pem) as channel:
            # gRPC connects again for as long as the call may take
            assert call(channel, b"x", timeout=10, wait_for_ready=True) == b"x"


@pytest.mark.envoy
def test_an_envoy_that_is_refused_denies_at_once_and_is_served_when_there_is_a_place(
    kind: Kind, tmp_path: Path
) -> None:
    with running(kind, maximum_connections=1) as server:
        (tmp_path / "second").mkdir()
        with front(server, tmp_path / "second") as second:
            (tmp_path / "first").mkdir()
            with front(server, tmp_path / "first") as first:
                assert ask_many(first, 5) == {403: 5}
                started = time.monotonic()
                assert ask_many(second, 5) == {503: 5}
                # far below the filter's timeout of five seconds for each
                assert time.monotonic() - started < 5.0
                assert ask_many(first, 5) == {403: 5}
            wait_for(lambda: ask_many(second, 1) == {403: 1})
