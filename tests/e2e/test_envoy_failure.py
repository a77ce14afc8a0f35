"""When Check fails: nothing gets through, and it works again as soon as there is a server."""

import signal
import socket
import time
from collections.abc import Iterator

import pytest
from e2e.services import CALLER, SMALL_MESSAGE_BYTES, Services, token_for
from e2e.stack import Stack
from support.server import ServerProcess

pytestmark = [pytest.mark.envoy]

EVIDENCE = {"certificate_sources": [{"type": "source-certificate"}], "chain_verified_by": "nobody"}


def test_without_a_server_envoy_denies(stack: Stack, services: Services, http2: bool) -> None:
    assert not services.failing_socket.exists()
    path = stack.below("/public")
    reply = stack.send("failing", path, headers=[("x-subject", "forged")], http2=http2)
    assert reply.status == 503
    assert not stack.arrived(path)


def test_a_server_that_never_answers_is_a_denial(stack: Stack, services: Services) -> None:
    path = stack.below("/public")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(services.failing_socket))
        try:
            silent.listen()
            started = time.monotonic()
            assert stack.send("failing", path).status == 503
            assert time.monotonic() - started < 5
        finally:
            services.failing_socket.unlink()
    assert not stack.arrived(path)


@pytest.mark.slow
@pytest.mark.parametrize("listener", ["wrong-tls", "no-client-certificate"])
def test_a_server_that_asks_for_a_certificate_answers_no_envoy_without(
    stack: Stack, services: Services, listener: str
) -> None:
    assert services.forwarded
    path = stack.below("/public")
    assert stack.send("always-forward", path).status == 200
    assert len(stack.arrived(path)) == 1
    path = stack.below("/public")
    assert stack.send(listener, path).status == 503
    assert not stack.arrived(path)
    assert not [record for record in services.forwarded.decisions() if path in record["path"]]


@pytest.mark.slow
def test_what_we_cannot_read_is_denied_even_where_failures_are_let_through(stack: Stack, services: Services) -> None:
    assert services.two_hops
    path = stack.below("/public")
    assert stack.send("two-hops-allowing", path, leaf=CALLER).status == 200
    assert len(stack.arrived(path)) == 1
    path = stack.below("/public")
    for size in (SMALL_MESSAGE_BYTES, 2 * SMALL_MESSAGE_BYTES, 55_000):
        reply = stack.send("two-hops-allowing", path, leaf=CALLER, headers=[("x-large", "v" * size)])
        assert reply.status == 400
        assert reply.all("content-type") == ["application/problem+json"]
    assert not stack.arrived(path)


@pytest.fixture
def restarted(services: Services, stack: Stack) -> Iterator[ServerProcess]:
    """A server that tests start and stop."""
    address = {"address": f"unix:{services.failing_socket}"}
    server = services.prepare(f"failing-{stack.version}-{stack.below('')[1:]}", address, EVIDENCE)
    server.start()
    yield server
    server.stop(signal.SIGKILL)
    services.failing_socket.unlink(missing_ok=True)


def status_in_time(stack: Stack, wanted: int, **request: str) -> int:
    """The status, once it is `wanted`, or the last after a while: a connection may have to be made anew."""
    deadline = time.monotonic() + 10
    while (status := stack.send("failing", stack.below("/public"), **request).status) != wanted:  # type: ignore[arg-type]  # texts only
        if time.monotonic() > deadline:
            break
    return status


@pytest.mark.slow
def test_a_server_that_hangs_and_comes_back_is_asked_again(stack: Stack, restarted: ServerProcess) -> None:
    token = token_for(CALLER)
    assert status_in_time(stack, 200) == 200
    restarted.signal(signal.SIGSTOP)
    try:
        path = stack.below("/bound")
        assert stack.send("failing", path, leaf=CALLER, token=token).status == 503
        assert not stack.arrived(path)
    finally:
        restarted.signal(signal.SIGCONT)
    assert status_in_time(stack, 200) == 200
    assert stack.send("failing", "/bound/x", leaf=CALLER, token=token).seen.all("x-subject") == ["alice"]


@pytest.mark.slow
def test_a_server_that_is_restarted_is_found_again(stack: Stack, restarted: ServerProcess) -> None:
    assert status_in_time(stack, 200) == 200
    assert restarted.stop(signal.SIGTERM) == 0
    path = stack.below("/public")
    assert stack.send("failing", path).status == 503
    assert not stack.arrived(path)
    restarted.lines.clear()
    restarted._records.clear()
    restarted.start()
    assert status_in_time(stack, 200) == 200
