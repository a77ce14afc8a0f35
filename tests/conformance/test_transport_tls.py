"""TLS and mutual TLS of both transports, and certificates that change while calls are made."""

import socket
import threading
import time
from collections.abc import Callable

import grpc
import pytest
from support.pki import authority, ec_key
from support.transports import KINDS, Kind, call, code_of, running, secure_channel

from ext_authz.runtime.tls import ServerCertificates, TlsMaterial

pytestmark = pytest.mark.parametrize("kind", KINDS)

CA = authority("transport test")
OTHER = authority("another transport test", key=ec_key("another transport test"))
FIRST = CA.leaf(dns_sans=["server.test"])
SECOND = OTHER.leaf(dns_sans=["server.test"])


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.02)


def answers(address: str, root: bytes, **client: bytes) -> bool:
    """Whether a new connection is served."""
    with secure_channel(address, root, **client) as channel:
        try:
            return call(channel, b"x", timeout=10) == b"x"
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - either way is an answer
            return False


def test_a_renewed_certificate_is_served_to_new_connections(kind: Kind) -> None:
    certificates = ServerCertificates(TlsMaterial(FIRST.pem, FIRST.key_pem, None))
    with running(kind, certificates) as server:
        with secure_channel(server.address, CA.pem) as channel:
            assert call(channel, b"x") == b"x"
            assert certificates.replace(TlsMaterial(SECOND.pem, SECOND.key_pem, None))
            assert call(channel, b"y") == b"y"  # the connection that exists goes on
        wait_for(lambda: answers(server.address, OTHER.pem))
        assert not answers(server.address, CA.pem)


def test_no_call_fails_while_certificates_are_renewed(kind: Kind) -> None:
    # both leaves are the same authority's, so that a client that is sent away can come back
    third = CA.leaf(key=ec_key("third"), dns_sans=["server.test"])
    materials = [TlsMaterial(leaf.pem, leaf.key_pem, None) for leaf in (third, FIRST)]
    certificates = ServerCertificates(TlsMaterial(FIRST.pem, FIRST.key_pem, None))
    failures: list[grpc.StatusCode] = []
    made = 0
    stop = threading.Event()

    def keep_calling(channel: grpc.Channel) -> None:
        nonlocal made
        while not stop.is_set():
            try:
                assert call(channel, b"wait:0.001") == b"wait:0.001"
                made += 1
            except grpc.RpcError as error:
                failures.append(error.code())

    with running(kind, certificates) as server, secure_channel(server.address, CA.pem) as channel:
        assert call(channel, b"x") == b"x"
        callers = [threading.Thread(target=keep_calling, args=(channel,)) for _ in range(4)]
        for caller in callers:
            caller.start()
        for round_ in range(6):
            time.sleep(0.2)
            certificates.replace(materials[round_ % 2])
        time.sleep(0.2)
        stop.set()
        for caller in callers:
            caller.join()
    assert failures == []
    assert made > 100


def test_calls_in_flight_finish_on_the_connection_that_is_sent_away(kind: Kind) -> None:
    certificates = ServerCertificates(TlsMaterial(FIRST.pem, FIRST.key_pem, None))
    with running(kind, certificates) as server, secure_channel(server.address, CA.pem) as channel:
        slow = channel.unary_unary("/envoy.service.auth.v3.Authorization/Check", None, None).future(b"wait:0.8")
        wait_for(lambda: server.service.held == 1)
        certificates.replace(TlsMaterial(SECOND.pem, SECOND.key_pem, None))
        wait_for(lambda: answers(server.address, OTHER.pem))
        assert slow.result(timeout=5) == b"wait:0.8"


def test_certificates_that_cannot_be_served_leave_the_others_in_force(kind: Kind) -> None:
    certificates = ServerCertificates(TlsMaterial(FIRST.pem, FIRST.key_pem, None))
    with running(kind, certificates) as server:
        certificates.replace(TlsMaterial(b"nonsense", b"nonsense", None))
        time.sleep(0.3)
        assert answers(server.address, CA.pem)
        certificates.replace(TlsMaterial(SECOND.pem, SECOND.key_pem, None))
        wait_for(lambda: answers(server.address, OTHER.pem))


def test_mutual_tls_takes_only_clients_of_the_authority_that_is_current(kind: Kind) -> None:
    clients, others = authority("clients"), authority("other clients")
    envoy = clients.leaf(key=ec_key("envoy"), dns_sans=["envoy.test"])
    stranger = others.leaf(key=ec_key("stranger"), dns_sans=["envoy.test"])
    certificates = ServerCertificates(TlsMaterial(FIRST.pem, FIRST.key_pem, clients.pem))
    with running(kind, certificates) as server:
        assert answers(server.address, CA.pem, key=envoy.key_pem, chain=envoy.pem)
        assert not answers(server.address, CA.pem, key=stranger.key_pem, chain=stranger.pem)
        assert not answers(server.address, CA.pem)
        certificates.replace(TlsMaterial(FIRST.pem, FIRST.key_pem, others.pem))
        wait_for(lambda: answers(server.address, CA.pem, key=stranger.key_pem, chain=stranger.pem))
        assert not answers(server.address, CA.pem, key=envoy.key_pem, chain=envoy.pem)


def test_plain_text_to_a_tls_port_is_refused(kind: Kind) -> None:
    certificates = ServerCertificates(TlsMaterial(FIRST.pem, FIRST.key_pem, None))
    with running(kind, certificates) as server, grpc.insecure_channel(server.address) as channel:
        assert code_of(lambda: call(channel, b"x", timeout=2)) in {
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        }
        assert answers(server.address, CA.pem)


def test_handshakes_that_fail_leave_nothing_behind(kind: Kind) -> None:
    certificates = ServerCertificates(TlsMaterial(FIRST.pem, FIRST.key_pem, None))
    with running(kind, certificates) as server:
        for greeting in [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b""] * 10:
            with socket.create_connection(server.target, 5) as connection:
                connection.sendall(greeting)
        assert answers(server.address, CA.pem)
        started = time.monotonic()
        server.drain(5.0)
        assert time.monotonic() - started < 3.0


def test_a_chain_with_an_intermediate_is_sent_whole(kind: Kind) -> None:
    leaf = CA.intermediate("intermediate").leaf(dns_sans=["server.test"])
    chain = leaf.chain_pem
    with running(kind, ServerCertificates(TlsMaterial(chain, leaf.key_pem, None))) as server:
        assert answers(server.address, CA.pem)
