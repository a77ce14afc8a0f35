"""The grpcio transport against a real grpcio client, with a service that does what each test needs."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from support.pki import authority, ec_key

from ext_authz.config.settings import ListenerSettings
from ext_authz.runtime.grpc_transport import GrpcTransport
from ext_authz.runtime.health import Health
from ext_authz.runtime.tls import ServerCertificates, TlsMaterial
from ext_authz.runtime.transport import CHECK_METHOD, message_ceiling

Result = TypeVar("Result")
CA = authority("transport test")
HEALTH_CHECK = "/grpc.health.v1.Health/Check"


class LoopThread:
    """An event loop of its own for the servers, so that the tests can be plain functions."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture(scope="module")
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


class Service:
    """Echoes; `wait:<seconds>` waits first; remembers deadlines."""

    def __init__(self) -> None:
        self.deadlines: list[float | None] = []

    def check(self, request: bytes, deadline: float | None, traceparent: str | None = None) -> bytes | Awaitable[bytes]:
        del traceparent
        self.deadlines.append(deadline)
        if request.startswith(b"wait:"):
            return self._wait(request)
        return request

    async def _wait(self, request: bytes) -> bytes:
        await asyncio.sleep(float(request[5:]))
        return request


class Running:
    """A transport that serves."""

    def __init__(self, loop: LoopThread, listener: ListenerSettings, certificates: ServerCertificates | None) -> None:
        self.service = Service()
        self._loop = loop

        async def start() -> str:
            self.health = Health()
            self.transport = GrpcTransport(listener, self.service.check, self.health, certificates)
            return await self.transport.start()

        self.address = loop.run(start())

    def drain(self, seconds: float = 0.0) -> None:
        self._loop.run(self.transport.drain(seconds))


@contextmanager
def running(loop: LoopThread, certificates: ServerCertificates | None = None, **listener: Any) -> Iterator[Running]:
    server = Running(loop, ListenerSettings(**{"address": "127.0.0.1:0", **listener}), certificates)
    try:
        yield server
    finally:
        server.drain()


def call(channel: grpc.Channel, request: bytes, method: str = CHECK_METHOD, timeout: float | None = 10.0) -> bytes:
    response = channel.unary_unary(method, None, None)(request, timeout=timeout)
    assert isinstance(response, bytes)
    return response


def code_of(action: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as error:
        action()
    code = error.value.code()
    assert isinstance(code, grpc.StatusCode)
    return code


def test_a_check_is_answered_and_its_deadline_is_passed_on(loop: LoopThread) -> None:
    with running(loop) as server, grpc.insecure_channel(server.address) as channel:
        assert call(channel, b"x", timeout=5.0) == b"x"
        assert call(channel, b"", timeout=None) == b""
        assert call(channel, b"wait:0.01") == b"wait:0.01"
        with_deadline, without, _ = server.service.deadlines
        assert with_deadline is not None
        assert 3.0 < with_deadline - time.monotonic() <= 5.0
        assert without is None


def test_a_message_above_the_ceiling_is_refused_and_the_next_one_is_answered(loop: LoopThread) -> None:
    with running(loop, maximum_message_bytes=1_000) as server, grpc.insecure_channel(server.address) as channel:
        ceiling = message_ceiling(1_000)
        assert len(call(channel, b"x" * ceiling)) == ceiling
        assert code_of(lambda: call(channel, b"x" * (ceiling + 1))) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert call(channel, b"y") == b"y"


@pytest.mark.parametrize(
    "method", ["/envoy.service.auth.v3.Authorization/Other", "/a.B/Check", "/envoy.service.auth.v2.Authorization/Check"]
)
def test_an_unknown_method_is_unimplemented(loop: LoopThread, method: str) -> None:
    with running(loop) as server, grpc.insecure_channel(server.address) as channel:
        assert code_of(lambda: call(channel, b"", method)) is grpc.StatusCode.UNIMPLEMENTED


def test_health_is_checked_and_watched(loop: LoopThread) -> None:
    with running(loop) as server, grpc.insecure_channel(server.address) as channel:
        assert call(channel, b"", HEALTH_CHECK) == b"\x08\x02"
        assert code_of(lambda: call(channel, b"\n\x01x", HEALTH_CHECK)) is grpc.StatusCode.NOT_FOUND
        assert code_of(lambda: call(channel, b"\xff", HEALTH_CHECK)) is grpc.StatusCode.INVALID_ARGUMENT
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch", None, None)
        assert code_of(lambda: list(watch(b"\xff", timeout=5))) is grpc.StatusCode.INVALID_ARGUMENT
        answers: Iterator[bytes] = iter(watch(b"", timeout=5))
        assert next(answers) == b"\x08\x02"
        loop.loop.call_soon_threadsafe(server.health.set_serving, True)
        assert next(answers) == b"\x08\x01"
        loop.loop.call_soon_threadsafe(server.health.end)
        assert list(answers) == [b"\x08\x02"]


def test_a_unix_socket_is_served_and_a_stale_one_is_replaced(loop: LoopThread, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/check.sock"
    for _ in range(2):
        with running(loop, address=address) as server:
            assert server.address == address
            with grpc.insecure_channel(address) as channel:
                assert call(channel, b"x") == b"x"


def test_an_address_in_use_is_an_os_error(loop: LoopThread) -> None:
    with running(loop) as server, pytest.raises(OSError, match="is it in use"), running(loop, address=server.address):
        pass


def test_draining_lets_calls_in_flight_finish_and_takes_no_new_ones(loop: LoopThread) -> None:
    with running(loop) as server, grpc.insecure_channel(server.address) as channel:
        slow = channel.unary_unary(CHECK_METHOD, None, None).future(b"wait:0.4", timeout=5)
        time.sleep(0.1)
        started = time.monotonic()
        server.drain(5.0)
        assert time.monotonic() - started < 3.0
        assert slow.result() == b"wait:0.4"
        assert code_of(lambda: call(channel, b"x", timeout=0.5)) in {
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        }


def test_calls_that_outlast_the_drain_are_cancelled(loop: LoopThread) -> None:
    with running(loop) as server, grpc.insecure_channel(server.address) as channel:
        slow = channel.unary_unary(CHECK_METHOD, None, None).future(b"wait:20", timeout=5)
        time.sleep(0.1)
        started = time.monotonic()
        server.drain(0.1)
        assert time.monotonic() - started < 3.0
        assert slow.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN}


def secure_channel(address: str, root: bytes, **client: bytes) -> grpc.Channel:
    return grpc.secure_channel(
        address,
        grpc.ssl_channel_credentials(root, client.get("key"), client.get("chain")),
        options=(("grpc.ssl_target_name_override", "server.test"), ("grpc.use_local_subchannel_pool", 1)),
    )


def test_a_renewed_certificate_is_served_to_new_connections(loop: LoopThread) -> None:
    other = authority("another transport test", key=ec_key("another transport test"))
    first, second = CA.leaf(dns_sans=["server.test"]), other.leaf(dns_sans=["server.test"])
    certificates = ServerCertificates(TlsMaterial(first.pem, first.key_pem, None))
    with running(loop, certificates) as server:
        with secure_channel(server.address, CA.pem) as channel:
            assert call(channel, b"x") == b"x"
            certificates.replace(TlsMaterial(second.pem, second.key_pem, None))
            assert call(channel, b"y") == b"y"  # the connection that exists goes on
        with secure_channel(server.address, other.pem) as channel:
            assert call(channel, b"z") == b"z"
        with secure_channel(server.address, CA.pem) as channel:
            assert code_of(lambda: call(channel, b"x", timeout=1)) is grpc.StatusCode.UNAVAILABLE


def test_mutual_tls_takes_only_clients_of_the_authority_that_is_current(loop: LoopThread) -> None:
    clients, others = authority("clients"), authority("other clients")
    leaf = CA.leaf(dns_sans=["server.test"])
    envoy = clients.leaf(key=ec_key("envoy"), dns_sans=["envoy.test"])
    stranger = others.leaf(key=ec_key("stranger"), dns_sans=["envoy.test"])
    certificates = ServerCertificates(TlsMaterial(leaf.pem, leaf.key_pem, clients.pem))

    def outcome(**client: bytes) -> bytes | grpc.StatusCode:
        with secure_channel(server.address, CA.pem, **client) as channel:
            try:
                return call(channel, b"x", timeout=1)
            except grpc.RpcError as error:
                return error.code()

    with running(loop, certificates) as server:
        assert outcome(key=envoy.key_pem, chain=envoy.pem) == b"x"
        assert outcome(key=stranger.key_pem, chain=stranger.pem) is grpc.StatusCode.UNAVAILABLE
        assert outcome() is grpc.StatusCode.UNAVAILABLE
        certificates.replace(TlsMaterial(leaf.pem, leaf.key_pem, others.pem))
        assert outcome(key=stranger.key_pem, chain=stranger.pem) == b"x"
        assert outcome(key=envoy.key_pem, chain=envoy.pem) is grpc.StatusCode.UNAVAILABLE
