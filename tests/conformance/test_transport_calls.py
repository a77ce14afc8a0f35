"""Both transports against a real gRPC client: what Envoy's operators rely on is the same on each."""

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
import pytest
from support.raw_h2 import RawConnection, frame
from support.transports import HEALTH_CHECK, HEALTH_WATCH, KINDS, Kind, call, code_of, running

from ext_authz.runtime.grpc_transport import GrpcTransport
from ext_authz.runtime.transport import CHECK_METHOD, message_ceiling
from ext_authz.telemetry.traceparent import parse_traceparent

pytestmark = pytest.mark.parametrize("kind", KINDS)


def test_a_check_is_answered_and_its_deadline_is_passed_on(kind: Kind) -> None:
    with running(kind) as server, grpc.insecure_channel(server.address) as channel:
        assert call(channel, b"x", timeout=5.0) == b"x"
        assert call(channel, b"", timeout=None) == b""
        assert call(channel, b"wait:0.01") == b"wait:0.01"
        with_deadline, without, _ = server.service.deadlines
        assert with_deadline is not None
        assert 3.0 < with_deadline - time.monotonic() <= 5.0
        assert without is None


TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_the_span_of_the_call_is_handed_on_and_a_malformed_one_names_no_trace(kind: Kind) -> None:
    # the other transport looks only when it is told to
    looking = kind if kind.is_h2 else replace(kind, transport=partial(GrpcTransport, reads_traceparent=True))
    other = TRACEPARENT.replace("-01", "-00")
    sent = [(), (TRACEPARENT,), ("nonsense",), (TRACEPARENT, other), (other, TRACEPARENT), (TRACEPARENT, "")]
    with running(looking) as server, RawConnection(server.target) as one:
        for values in sent:
            stream = one.request(frame(b"x"), headers=[("traceparent", value) for value in values])
            assert one.finished(stream).status == 0
        handed_on = server.service.traceparents
    # of several, the last; one that names no trace is there all the same, so the request's own is not taken for it
    assert handed_on[:2] == [None, TRACEPARENT]
    assert handed_on[3:] == [other, TRACEPARENT, ""]
    assert handed_on[2] is not None
    assert parse_traceparent(handed_on[2]) is None


def test_a_message_at_the_ceiling_is_taken_and_one_above_is_refused(kind: Kind) -> None:
    with running(kind, maximum_message_bytes=1_000) as server, grpc.insecure_channel(server.address) as channel:
        ceiling = message_ceiling(1_000)
        assert len(call(channel, b"x" * ceiling)) == ceiling
        assert code_of(lambda: call(channel, b"x" * (ceiling + 1))) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert call(channel, b"y") == b"y"


def test_megabytes_go_both_ways(kind: Kind) -> None:
    with running(kind) as server, grpc.insecure_channel(server.address) as channel:
        message = bytes(range(256)) * 12_000
        assert call(channel, message) == message
        assert len(call(channel, b"large:3000000")) == 3_000_000


def test_uploads_that_are_refused_leave_the_connection_as_it_was(kind: Kind) -> None:
    with running(kind, maximum_message_bytes=1_000) as server, grpc.insecure_channel(server.address) as channel:
        # 24 MB, three times what a connection may hold unread
        for _ in range(24):
            assert code_of(lambda: call(channel, b"x" * 1_000_000)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert call(channel, b"y", timeout=2.0) == b"y"


@pytest.mark.parametrize(
    "method", ["/envoy.service.auth.v3.Authorization/Other", "/a.B/Check", "/envoy.service.auth.v2.Authorization/Check"]
)
def test_an_unknown_method_is_unimplemented(kind: Kind, method: str) -> None:
    with running(kind) as server, grpc.insecure_channel(server.address) as channel:
        assert code_of(lambda: call(channel, b"", method)) is grpc.StatusCode.UNIMPLEMENTED


def test_health_is_checked_and_watched(kind: Kind) -> None:
    with running(kind) as server, grpc.insecure_channel(server.address) as channel:
        assert call(channel, b"", HEALTH_CHECK) == b"\x08\x02"
        assert code_of(lambda: call(channel, b"\n\x01x", HEALTH_CHECK)) is grpc.StatusCode.NOT_FOUND
        assert code_of(lambda: call(channel, b"\xff", HEALTH_CHECK)) is grpc.StatusCode.INVALID_ARGUMENT
        watch = channel.unary_stream(HEALTH_WATCH, None, None)
        assert code_of(lambda: list(watch(b"\xff", timeout=5))) is grpc.StatusCode.INVALID_ARGUMENT
        answers: Iterator[bytes] = iter(watch(b"", timeout=5))
        assert next(answers) == b"\x08\x02"
        server.soon(server.health.set_serving, True)
        assert next(answers) == b"\x08\x01"
        assert call(channel, b"", HEALTH_CHECK) == b"\x08\x01"
        server.soon(server.health.end)
        assert list(answers) == [b"\x08\x02"]


def test_a_watch_ends_with_its_deadline_or_its_client(kind: Kind) -> None:
    with running(kind) as server, grpc.insecure_channel(server.address) as channel:
        watch = channel.unary_stream(HEALTH_WATCH, None, None)
        assert code_of(lambda: list(watch(b"", timeout=0.2))) is grpc.StatusCode.DEADLINE_EXCEEDED
        abandoned = watch(b"", timeout=30)
        assert next(iter(abandoned)) == b"\x08\x02"
        abandoned.cancel()  # type: ignore[no-untyped-call]  # the stubs have no types here
        started = time.monotonic()
        server.drain(5.0)
        assert time.monotonic() - started < 3.0


def test_a_service_that_is_not_there_is_watched_as_unknown(kind: Kind) -> None:
    with running(kind) as server, grpc.insecure_channel(server.address) as channel:
        answers = iter(channel.unary_stream(HEALTH_WATCH, None, None)(b"\n\x01x", timeout=5))
        assert next(answers) == b"\x08\x03"
        server.soon(server.health.end)
        assert list(answers) == []


def test_a_call_ends_at_its_deadline_and_its_work_is_cancelled(kind: Kind) -> None:
    with running(kind) as server, grpc.insecure_channel(server.address) as channel:
        assert code_of(lambda: call(channel, b"hold", timeout=0.2)) is grpc.StatusCode.DEADLINE_EXCEEDED
        until = time.monotonic() + 5
        while server.service.held and time.monotonic() < until:
            time.sleep(0.01)
        assert (server.service.held, server.service.cancelled) == (0, 1)


def test_a_unix_socket_is_served_and_a_stale_one_is_replaced(kind: Kind, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/check.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(f"{tmp_path}/check.sock")
    # connections of its own: gRPC shares those to one address, and the last server's may just have failed
    own = (("grpc.use_local_subchannel_pool", 1),)
    for _ in range(2):
        with running(kind, address=address) as server:
            assert server.address == address
            with grpc.insecure_channel(address, own) as channel:
                assert call(channel, b"x") == b"x"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_host_name_is_listened_on(kind: Kind, host: str) -> None:
    with running(kind, address=f"{host}:0") as server:
        assert server.address.startswith(f"{host}:")
        assert server.target[1] > 0
        with grpc.insecure_channel(server.address) as channel:
            assert call(channel, b"x") == b"x"


def test_an_address_in_use_is_an_os_error(kind: Kind) -> None:
    with running(kind) as server, pytest.raises(OSError, match="is it in use"), running(kind, address=server.address):
        pass


def test_draining_lets_calls_in_flight_finish_and_takes_no_new_ones(kind: Kind) -> None:
    with running(kind) as server, grpc.insecure_channel(server.address) as channel:
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


def test_calls_that_outlast_the_drain_are_cancelled(kind: Kind) -> None:
    with running(kind) as server, grpc.insecure_channel(server.address) as channel:
        slow = channel.unary_unary(CHECK_METHOD, None, None).future(b"hold", timeout=15)
        time.sleep(0.1)
        started = time.monotonic()
        server.drain(0.1)
        assert time.monotonic() - started < 3.0
        assert slow.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN}


def test_the_port_is_free_again_after_the_drain(kind: Kind) -> None:
    with running(kind) as server:
        server.drain(1.0)
        with running(kind, address=server.address) as second, grpc.insecure_channel(second.address) as channel:
            assert call(channel, b"x") == b"x"
