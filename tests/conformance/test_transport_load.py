"""Both transports under many streams, many connections, and clients that cancel, dawdle or never read."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import h2.settings
import pytest
from support.raw_h2 import PREFACE, RawConnection, Stream, frame, http2_frame
from support.transports import HEALTH_WATCH, KINDS, Kind, Running, call, running

from ext_authz.runtime.transport import CHECK_METHOD

pytestmark = pytest.mark.parametrize("kind", KINDS)


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.005)


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def received(stream: Stream, data: bytes) -> bool:
    return stream.data == data


def greeted(connection: RawConnection) -> bool:
    return connection.greeted


def assert_serves(server: Running) -> None:
    with RawConnection(server.target) as connection:
        assert connection.finished(connection.request(frame(b"x"))).data == frame(b"x")


def test_a_thousand_streams_of_one_connection_wait_at_the_same_time(kind: Kind) -> None:
    with running(kind, maximum_concurrent_streams=1_000) as server, grpc.insecure_channel(server.address) as channel:
        check = channel.unary_unary(CHECK_METHOD, None, None)
        calls = [check.future(b"hold%d" % number, timeout=30) for number in range(1_000)]
        wait_for(lambda: server.service.held == 1_000)
        server.soon(server.service.release)
        assert [one.result() for one in calls] == [b"hold%d" % number for number in range(1_000)]


def test_what_several_connections_send_while_the_server_is_busy_is_answered_to_the_last_call(kind: Kind) -> None:
    """A call that is refused by the transport is decided by Envoy's `failure_mode_allow`."""
    with running(kind) as server, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(RawConnection(server.target)) for _ in range(4)]
        for connection in connections:
            assert connection.read_until(partial(greeted, connection))
        busy = threading.Event()
        server.soon(busy.wait, 30)
        streams = [[connection.request(frame(b"x")) for _ in range(900)] for connection in connections]
        # a library that reads in threads of its own has read them all by then
        time.sleep(0.2)
        busy.set()
        statuses = Counter(
            connection.finished(stream, 20).trailers.get("grpc-status")
            or connection.streams[stream].headers["grpc-status"]
            for connection, numbers in zip(connections, streams, strict=True)
            for stream in numbers
        )
        assert statuses == {"0": 3_600}


def test_no_connection_has_more_streams_than_it_may(kind: Kind) -> None:
    with running(kind, maximum_concurrent_streams=10) as server, grpc.insecure_channel(server.address) as channel:
        # the client knows the limit from the first SETTINGS; streams that it opens before are refused
        assert call(channel, b"x") == b"x"
        check = channel.unary_unary(CHECK_METHOD, None, None)
        calls = [check.future(b"wait:0.02", timeout=20) for _ in range(100)]
        codes = {one.code() for one in calls}
        # grpcio counts a stream a moment longer than its client and then refuses one that was allowed
        assert codes <= {grpc.StatusCode.OK} | (set() if kind.is_h2 else {grpc.StatusCode.UNAVAILABLE})
        assert server.service.most_held == 10


def test_the_work_of_cancelled_calls_is_cancelled(kind: Kind) -> None:
    with running(kind) as server, grpc.insecure_channel(server.address) as channel:
        check = channel.unary_unary(CHECK_METHOD, None, None)
        calls = [check.future(b"hold", timeout=30) for _ in range(200)]
        wait_for(lambda: server.service.held == 200)
        for one in calls:
            one.cancel()  # type: ignore[no-untyped-call]  # the stubs have no types here
        wait_for(lambda: server.service.held == 0)
        assert server.service.cancelled == 200
        assert call(channel, b"x") == b"x"


def test_the_work_of_a_client_that_disconnects_is_cancelled(kind: Kind) -> None:
    with running(kind) as server:
        with RawConnection(server.target) as connection:
            for _ in range(20):
                connection.request(frame(b"hold"))
            wait_for(lambda: server.service.held == 20)
        wait_for(lambda: server.service.held == 0)
        assert server.service.cancelled == 20
        assert_serves(server)


def test_streams_opened_and_reset_at_once_harm_nobody(kind: Kind) -> None:
    """CVE-2023-44487, rapid reset: a server may end the connection, and must serve the others."""
    with running(kind) as server, RawConnection(server.target) as bystander:
        for _ in range(3):
            with RawConnection(server.target) as attacker:
                for _ in range(2_000):
                    number = attacker.request(frame(b"hold"), end=True)
                    attacker.h2.reset_stream(number)
                attacker.flush()
                assert bystander.finished(bystander.request(frame(b"x"))).data == frame(b"x")
        wait_for(lambda: server.service.held == 0)


def test_a_flood_of_control_frames_harms_nobody(kind: Kind) -> None:
    with running(kind) as server, RawConnection(server.target) as bystander:
        flood = http2_frame(6, 0, 0, bytes(8)) * 5_000 + http2_frame(4, 0, 0) * 5_000
        with RawConnection(server.target, hello=False) as attacker:
            # nothing that comes back is read, so the answers pile up on the server's side
            sender = threading.Thread(target=attacker.send, args=(PREFACE + http2_frame(4, 0, 0) + flood,), daemon=True)
            sender.start()
            assert bystander.finished(bystander.request(frame(b"x"))).data == frame(b"x")
            sender.join(5)
        assert_serves(server)


def test_a_client_that_never_reads_holds_up_nobody_and_not_the_drain(kind: Kind) -> None:
    # it takes 16 KB of each answer and never more
    settings = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 16_384}
    with (
        running(kind, drain_seconds=1.0) as server,
        RawConnection(server.target, settings, read_windows=False) as slow,
    ):
        stalled = [slow.request(frame(b"large:200000")) for _ in range(3)]
        slow.read_until(lambda: all(len(slow.streams[number].data) >= 16_384 for number in stalled))
        assert [len(slow.streams[number].data) for number in stalled] == [16_384] * 3
        # on the same connection the small answers of other streams pass
        assert slow.finished(slow.request(frame(b"x"))).data == frame(b"x")
        assert_serves(server)
        started = time.monotonic()
        server.drain(1.0)
        assert time.monotonic() - started < 5.0


def test_a_body_that_never_ends_ends_with_the_deadline(kind: Kind) -> None:
    with running(kind) as server, RawConnection(server.target) as connection:
        piece = frame(b"xx")[:-1]
        number = connection.request(piece, end=False, headers=[("grpc-timeout", "300m")])
        stream = connection.finished(number, 3.0)
        assert stream.status == 4 or stream.reset is not None
        assert connection.finished(connection.request(frame(b"x"))).data == frame(b"x")


def test_connections_come_and_go_and_leave_nothing_behind(kind: Kind) -> None:
    def once(number: int) -> None:
        with RawConnection(server.target) as connection:
            message = frame(b"%d" % number)
            assert connection.finished(connection.request(message), 10.0).data == message

    with running(kind) as server, ThreadPoolExecutor(8) as pool:
        list(pool.map(once, range(50)))
        before = open_files()
        list(pool.map(once, range(400)))
        wait_for(lambda: open_files() <= before + 10)


def test_a_watch_on_each_of_many_connections_is_told_and_released(kind: Kind) -> None:
    with running(kind) as server:
        watchers = [RawConnection(server.target) for _ in range(50)]
        streams = [watcher.request(frame(b""), path=HEALTH_WATCH) for watcher in watchers]

        def all_told(*answers: bytes) -> bool:
            expected = b"".join(map(frame, answers))
            return all(
                watcher.read_until(partial(received, watcher.streams[number], expected))
                for watcher, number in zip(watchers, streams, strict=True)
            )

        assert all_told(b"\x08\x02")
        server.soon(server.health.set_serving, True)
        assert all_told(b"\x08\x02", b"\x08\x01")
        for watcher in watchers:
            with watcher:
                pass
        started = time.monotonic()
        server.drain(5.0)
        assert time.monotonic() - started < 3.0
