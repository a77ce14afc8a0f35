"""An HTTP/2 connection without sockets: every byte in, every frame out."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from hpack import Decoder, Encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_h2 import PREFACE, frame, http2_frame

from ext_authz.runtime import h2_connection, turns
from ext_authz.runtime import h2_stream as module
from ext_authz.runtime.grpc_frame import CallRefused, Status
from ext_authz.runtime.h2_answers import MAX_RESIZES
from ext_authz.runtime.h2_calls import ServedCalls
from ext_authz.runtime.h2_connection import CONNECTION_WINDOW, STREAM_WINDOW, Connection
from ext_authz.runtime.h2_frame import ErrorCode, refusal_block
from ext_authz.runtime.h2_head import HeadDecoder, Malformed
from ext_authz.runtime.h2_stream import Stream
from ext_authz.runtime.health import Health
from ext_authz.runtime.transport import CHECK_METHOD

HELLO = PREFACE + http2_frame(4, 0, 0)


@pytest.fixture(autouse=True, scope="module")
def one_slice() -> Iterator[None]:
    """All that comes is taken at once: there is no event loop that would go on later."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "FIRST_SLICE_FRAMES", 1_000_000)
        patch.setattr(turns, "SLICE_FRAMES", 1_000_000)
        yield


class Wire:
    """A transport that keeps what is written."""

    def __init__(self, alpn: str | None = None) -> None:
        self.sent = b""
        self.closed = self.aborted = False
        self.reading = True
        self._alpn = alpn

    def get_extra_info(self, _name: str) -> Any:
        return None if self._alpn is None else self

    def selected_alpn_protocol(self) -> str | None:
        return self._alpn

    def set_write_buffer_limits(self, high: int) -> None:
        assert high > 0

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """Kind, flags, stream and payload of each frame since the last time."""
        data, self.sent = self.sent, b""
        found = []
        while data:
            end = 9 + int.from_bytes(data[:3], "big")
            found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9:end]))
            data = data[end:]
        return found


def echo(request: bytes, deadline: float | None, traceparent: str | None = None) -> bytes:  # noqa: ARG001 - a CheckCall
    if request == b"fail":
        raise RuntimeError("a fault of the service")
    return request


def connected(alpn: str | None = None, hello: bytes = HELLO) -> tuple[Connection, Wire, set[Connection]]:
    known: set[Connection] = set()
    connection = Connection(ServedCalls(echo, Health()), 100_000, 10, known, lambda: None)
    wire = Wire(alpn)
    connection.connection_made(wire)  # type: ignore[arg-type]  # all that is used of a transport
    wire.frames()
    connection.data_received(hello)
    wire.frames()
    return connection, wire, known


def client() -> h2.connection.H2Connection:
    return h2.connection.H2Connection(h2.config.H2Configuration(validate_outbound_headers=False))


def request(one: h2.connection.H2Connection, stream: int, *pieces: bytes, end: bool = True, **kwargs: Any) -> None:
    head = [(":method", "POST"), (":scheme", "http"), (":path", CHECK_METHOD), (":authority", "a")]
    one.send_headers(stream, [*head, ("te", "trailers"), ("content-type", "application/grpc")], **kwargs)
    for number, piece in enumerate(pieces, 1):
        one.send_data(stream, piece, end_stream=end and number == len(pieces))


def opened(*pieces: bytes, end: bool = True, **kwargs: Any) -> tuple[Connection, Wire, h2.connection.H2Connection]:
    """A connection on which stream 1 was opened."""
    connection, wire, _ = connected(hello=b"")
    one = client()
    one.initiate_connection()
    request(one, 1, *pieces, end=end, **kwargs)
    connection.data_received(one.data_to_send())
    return connection, wire, one


def kinds(wire: Wire) -> list[int]:
    return [kind for kind, _, _, _ in wire.frames()]


def goaway(wire: Wire) -> int | None:
    found = [payload for kind, _, _, payload in wire.frames() if kind == 7]
    return int.from_bytes(found[-1][4:8], "big") if found else None


@given(st.lists(st.binary(max_size=200), max_size=4))
@settings(max_examples=100)
def test_any_bytes_are_taken_or_end_the_connection_with_goaway(pieces: list[bytes]) -> None:
    connection, wire, _ = connected()
    for piece in pieces:
        connection.data_received(piece)
    assert not wire.closed or goaway(wire) not in {None, 0}


@given(
    st.lists(st.tuples(st.integers(0, 10), st.integers(0, 255), st.integers(0, 7), st.binary(max_size=24)), max_size=12)
)
@settings(max_examples=200)
def test_any_frames_are_taken_or_end_the_connection_with_goaway(frames: list[tuple[int, int, int, bytes]]) -> None:
    connection, wire, one = opened(frame(b"x")[:3], end=False)
    del one
    for kind, flags, stream, payload in frames:
        connection.data_received(http2_frame(kind, flags, stream, payload))
    assert len(connection.streams) <= 10
    assert not wire.closed or goaway(wire) not in {None, 0}


def test_a_request_may_come_in_pieces_of_any_size() -> None:
    one = client()
    one.initiate_connection()
    request(one, 1, frame(b"hello"))
    connection, wire, _ = connected(hello=b"")
    for byte in one.data_to_send():
        connection.data_received(bytes([byte]))
    assert [payload for kind, _, _, payload in wire.frames() if kind == 0] == [frame(b"hello")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (http2_frame(2, 0, 0, bytes(5)), 1),
        (http2_frame(2, 0, 1, bytes(4)), 6),
        (http2_frame(3, 0, 1, bytes(5)), 6),
        (http2_frame(6, 0, 1, bytes(8)), 1),
        (http2_frame(7, 0, 1, bytes(8)), 1),
        (http2_frame(7, 0, 0, bytes(7)), 6),
        (http2_frame(8, 0, 0, bytes(3)), 6),
        (http2_frame(4, 1, 0, bytes(6)), 6),
        (http2_frame(4, 0, 0, b"\0\x02\0\0\0\x02"), 1),
        (http2_frame(4, 0, 0, b"\0\x04\x80\0\0\0"), 3),
        (http2_frame(1, 0x24, 3, bytes(4)), 6),
        (http2_frame(1, 0, 3, b"\x82") + http2_frame(9, 0, 3), 11),
        # padding that is longer than the frame, or says not even how long it is
        (http2_frame(0, 0x8, 1, b"\2x"), 1),
        (http2_frame(0, 0x8, 1, b""), 1),
        # of the connection: more than 2^31-1 may never be sent
        (http2_frame(8, 0, 0, b"\x7f\xff\xff\xff"), 3),
        (http2_frame(8, 0, 1, b"\x7f\xff\0\0") + http2_frame(4, 0, 0, b"\0\x04\x7f\xff\xff\xff"), 3),
    ],
)
def test_a_fault_has_its_code(data: bytes, code: int) -> None:
    connection, wire, _ = opened(frame(b"x")[:3], end=False)
    connection.data_received(data)
    assert goaway(wire) == code
    assert wire.closed


def test_frames_that_mean_nothing_here_change_nothing() -> None:
    connection, wire, _ = connected()
    connection.data_received(
        http2_frame(2, 0, 1, bytes(5)) + http2_frame(77, 0, 1, b"x") + http2_frame(7, 0, 0, bytes(8))
    )
    connection.data_received(http2_frame(4, 1, 0) + http2_frame(6, 1, 0, bytes(8)))
    assert wire.frames() == []
    assert not wire.closed


def test_trailers_end_a_request() -> None:
    connection, wire, one = opened(frame(b"x"), end=False)
    one.send_headers(1, [("a", "b")], end_stream=True)
    connection.data_received(one.data_to_send())
    assert [payload for kind, _, _, payload in wire.frames() if kind == 0] == [frame(b"x")]
    # of a stream that has been answered they are of no use and harm nothing
    connection.data_received(http2_frame(1, 5, 1, b""))
    assert wire.frames() == []


def test_a_second_head_on_a_stream_resets_it() -> None:
    connection, wire, _ = opened(frame(b"x")[:3], end=False)
    wire.frames()
    connection.data_received(http2_frame(1, 4, 1, b""))
    assert wire.frames() == [(3, 0, 1, b"\0\0\0\1")]


def test_data_after_the_end_resets_the_stream() -> None:
    connection, wire, _ = connected()
    stream = opened_watch(connection)
    wire.frames()
    connection.data_received(http2_frame(0, 0, stream, b"x"))
    assert wire.frames() == [(3, 0, stream, b"\0\0\0\5")]


def opened_watch(connection: Connection) -> int:
    """A stream whose request is whole and whose answer is not: it does not fit in the client's window."""
    connection.data_received(http2_frame(4, 0, 0, b"\0\x04\0\0\0\0"))
    one = client()
    one.initiate_connection()
    one.clear_outbound_data_buffer()
    request(one, 1, frame(b"x"))
    connection.data_received(one.data_to_send())
    return 1


def test_an_answer_waits_for_the_window_of_its_stream() -> None:
    connection, wire, _ = connected()
    stream = opened_watch(connection)
    assert [kind for kind, _, _, _ in wire.frames()][-1] == 1
    connection.data_received(http2_frame(8, 0, stream, b"\0\0\0\2"))
    assert wire.frames() == [(0, 0, 1, frame(b"x")[:2])]
    connection.data_received(http2_frame(4, 0, 0, b"\0\x04\0\0\0\x20"))
    assert next((kind, payload) for kind, _, _, payload in wire.frames()) == (0, frame(b"x")[2:])
    assert connection.streams == {}
    connection.data_received(http2_frame(8, 0, stream, b"\0\0\0\2"))
    assert wire.frames() == []


@pytest.mark.parametrize(("growth", "code"), [(0, 1), (2**31 - 1, 3)])
def test_a_false_window_resets_its_stream_alone(growth: int, code: int) -> None:
    connection, wire, _ = opened(frame(b"x")[:3], end=False)
    wire.frames()
    connection.data_received(http2_frame(8, 0, 1, growth.to_bytes(4, "big")))
    assert wire.frames() == [(3, 0, 1, code.to_bytes(4, "big"))]
    assert not wire.closed


def test_windows_are_given_back_before_they_are_used_up() -> None:
    connection, wire, one = opened(b"\0" + (90_000).to_bytes(4, "big"), end=False)
    wire.frames()
    given_back = 0
    for _ in range(CONNECTION_WINDOW // 16_384 + 1):
        connection.data_received(http2_frame(0, 0, 1, bytes(16_384)))
        given_back += sum(
            int.from_bytes(payload, "big") for kind, _, stream, payload in wire.frames() if (kind, stream) == (8, 0)
        )
    del one
    # the stream was refused at 100 KB; the connection's window has come back all the same
    assert given_back > CONNECTION_WINDOW // 2
    assert not wire.closed


def test_an_upload_of_several_windows_is_never_held_up() -> None:
    connection = Connection(ServedCalls(echo, Health()), 10 * STREAM_WINDOW, 10, set(), lambda: None)
    wire = Wire()
    connection.connection_made(wire)  # type: ignore[arg-type]  # all that is used of a transport
    one = client()
    one.initiate_connection()
    request(one, 1, b"\0" + (5 * STREAM_WINDOW).to_bytes(4, "big"), end=False)
    connection.data_received(one.data_to_send())
    updates = 0
    for _ in range(3 * STREAM_WINDOW // 16_384):
        connection.data_received(http2_frame(0, 0, 1, bytes(16_384)))
        updates += sum(1 for kind, _, stream, _ in wire.frames() if (kind, stream) == (8, 1))
    assert updates >= 4
    assert not wire.closed


def test_messages_that_are_never_whole_hold_a_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", 1_000)
    connection, wire, _ = connected()  # its ceiling is 100,000, and twice that is always held
    one = client()
    prefix = b"\0" + (90_000).to_bytes(4, "big")
    for stream in (1, 3, 5):
        request(one, stream, prefix, end=False)
        connection.data_received(one.data_to_send())
        for _ in range(5):
            for number in range(1, stream + 1, 2):
                if number in connection.streams and connection.streams[number].size < 80_000:
                    connection.data_received(http2_frame(0, 0, number, bytes(16_000)))
        assert sum(stream.size for stream in connection.streams.values()) <= 200_000 + 16_384
    resets = [number for kind, _, number, payload in wire.frames() if kind == 3 and payload == b"\0\0\0\x0b"]
    assert resets


def test_remembered_heads_are_forgotten_when_a_malformed_one_changed_the_table() -> None:
    def fields(path: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
        call = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]
        return [*call, ("content-type", "application/grpc"), ("te", "trailers"), *more]

    encoder, decoder, truth = Encoder(), HeadDecoder(), Decoder()
    first, again = encoder.encode(fields(CHECK_METHOD)), encoder.encode(fields(CHECK_METHOD))
    # it adds as many entries as shift another path to the place of the first
    malformed = encoder.encode(fields("/grpc.health.v1.Health/Watch", ("x", "a"), (":late", "b"), ("y", "c")))
    for block in (first, again):
        assert decoder.head(block).path == CHECK_METHOD.encode()
        truth.decode(block)
    with pytest.raises(Malformed):
        decoder.head(malformed)
    truth.decode(malformed)
    # the same bytes now say what the table makes of them: no longer this path
    assert CHECK_METHOD.encode() not in [bytes(value) for _, value in truth.decode(again, raw=True)]
    with pytest.raises(Malformed):
        decoder.head(again)


def test_a_drain_names_the_last_stream_only_after_a_round_trip() -> None:
    connection, wire, one = opened(frame(b"x")[:3], end=False)
    wire.frames()
    connection.drain()
    connection.drain()
    (first, ping) = wire.frames()
    assert (first[0], first[3][:4], ping[0]) == (7, b"\x7f\xff\xff\xff", 6)
    # a stream that was on its way is still served
    request(one, 3, frame(b"y"))
    connection.data_received(one.data_to_send())
    assert [payload for kind, _, _, payload in wire.frames() if kind == 0] == [frame(b"y")]
    connection.data_received(http2_frame(6, 1, 0, ping[3]))
    assert [(kind, payload[:4]) for kind, _, _, payload in wire.frames()] == [(7, b"\0\0\0\3")]
    request(one, 5, frame(b"z"))
    connection.data_received(one.data_to_send())
    assert (3, 0, 5, b"\0\0\0\7") in wire.frames()
    assert not wire.closed
    one.send_data(1, frame(b"x")[3:], end_stream=True)
    connection.data_received(one.data_to_send())
    assert wire.closed


def test_a_connection_without_http2_in_alpn_is_ended() -> None:
    assert connected("http/1.1")[1].aborted
    assert not connected("h2")[1].aborted


def test_a_client_that_does_not_read_is_not_read() -> None:
    connection, wire, known = connected()
    connection.pause_writing()
    assert not wire.reading
    connection.resume_writing()
    assert wire.reading
    connection.abort()
    assert wire.aborted
    assert known == {connection}
    connection.connection_lost(None)
    assert known == set()
    # nothing that comes later has anywhere to go
    connection.pause_writing()
    connection.resume_writing()
    connection.abort()
    connection.flush()
    connection.drain()


def test_streams_that_stand_still_are_ended() -> None:
    connection, wire, _ = opened(frame(b"x")[:3], end=False)
    wire.frames()
    moved = connection.streams[1].moved
    connection.expire(moved + 1, 30.0)
    assert wire.frames() == []
    connection.expire(moved + 31, 30.0)
    assert wire.frames() == [(3, 0, 1, b"\0\0\0\x08")]


def test_a_connection_that_is_of_no_use_is_ended() -> None:
    silent, wire, _ = connected(hello=b"PRI * HTTP")
    silent.expire(time.monotonic() + 29, 30.0)
    assert not wire.aborted
    silent.expire(time.monotonic() + 31, 30.0)
    assert wire.aborted
    # one that does not take the GOAWAY it was sent, beside one that is well
    for data, aborted in ((http2_frame(0, 0, 0), True), (http2_frame(6, 0, 0, bytes(8)), False)):
        connection, wire, _ = connected()
        connection.data_received(data)
        connection.expire(time.monotonic() + 31, 30.0)
        assert wire.aborted is aborted


def test_a_fault_of_the_service_is_internal() -> None:
    _, wire, _ = opened(frame(b"fail"))
    (answer,) = [payload for kind, _, _, payload in wire.frames() if kind == 1]
    assert b"grpc-status\x0213" in answer


def test_work_that_fails_is_internal() -> None:
    async def scenario() -> bytes:
        async def fail() -> bytes:
            raise RuntimeError("a fault of the service")

        connection = Connection(ServedCalls(lambda *_: fail(), Health()), 100, 10, set(), lambda: None)
        wire = Wire()
        connection.connection_made(wire)  # type: ignore[arg-type]  # all that is used of a transport
        one = client()
        one.initiate_connection()
        request(one, 1, frame(b"x"))
        connection.data_received(one.data_to_send())
        wire.frames()
        for _ in range(3):
            await asyncio.sleep(0)
        return wire.frames()[-1][3]

    assert b"grpc-status\x0213" in asyncio.run(scenario())


def test_a_padded_body_is_read_without_its_padding() -> None:
    connection, wire, _ = opened(frame(b"xy")[:5], end=False)
    wire.frames()
    connection.data_received(http2_frame(0, 0x9, 1, b"\3xy\0\0\0"))
    assert [payload for kind, _, _, payload in wire.frames() if kind == 0] == [frame(b"xy")]


def test_what_comes_for_a_call_that_has_ended_is_dropped() -> None:
    connection, wire, _ = opened(frame(b"x")[:3], end=False)
    stream = connection.streams[1]
    connection.reset(stream, ErrorCode.CANCEL)
    wire.frames()
    connection.send(stream, b"y")
    connection.finish(stream)
    connection.answer(stream, b"y")
    connection.refuse(stream, CallRefused(Status.INTERNAL, "too late"))
    connection.reset(stream, ErrorCode.CANCEL)
    assert wire.frames() == []


def test_what_comes_after_the_end_of_a_connection_is_of_no_consequence() -> None:
    connection, wire, _ = connected()
    wire.frames()
    connection.connection_lost(None)
    connection.pause_writing()
    connection.resume_writing()
    connection.data_received(http2_frame(6, 0, 0, bytes(8)))
    connection.expire(time.monotonic() + 1_000, 1)
    connection.abort()
    connection.drain()
    assert (wire.frames(), wire.aborted) == ([], False)


def test_a_watch_that_ends_while_its_client_reads_nothing_is_told_in_full_later() -> None:
    async def scenario() -> None:
        health = Health()
        connection = Connection(ServedCalls(echo, health), 100_000, 10, set(), lambda: None)
        wire = Wire()
        connection.connection_made(wire)  # type: ignore[arg-type]  # all that is used of a transport
        one = client()
        one.initiate_connection()
        one.clear_outbound_data_buffer()
        head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/grpc.health.v1.Health/Watch"),
            (":authority", "a"),
        ]
        one.send_headers(1, [*head, ("te", "trailers"), ("content-type", "application/grpc")])
        one.send_data(1, frame(b""), end_stream=True)
        connection.data_received(PREFACE + http2_frame(4, 0, 0, b"\0\x04\0\0\0\0"))
        connection.data_received(one.data_to_send())
        await asyncio.sleep(0)
        health.end()
        for _ in range(5):
            await asyncio.sleep(0)
        assert [kind for kind, _, stream, _ in wire.frames() if stream] == [1]
        connection.data_received(http2_frame(8, 0, 1, b"\0\0\1\0"))
        told = wire.frames()
        assert [(kind, flags) for kind, flags, _, _ in told] == [(0, 0), (1, 5)]
        assert told[0][3] == frame(b"\x08\x02")

    asyncio.run(scenario())


def test_an_answer_waits_for_the_window_of_the_connection() -> None:
    message = frame(bytes(70_000))
    connection, wire, _ = opened(message[:10], end=False)
    # every stream may get a megabyte, all together 65,535 bytes
    connection.data_received(http2_frame(4, 0, 0, b"\0\x04\0\x10\0\0"))
    for at in range(10, len(message), 16_384):
        connection.data_received(http2_frame(0, int(at + 16_384 >= len(message)), 1, message[at : at + 16_384]))
    assert sum(len(payload) for kind, _, _, payload in wire.frames() if kind == 0) == 65_535
    connection.data_received(http2_frame(8, 0, 0, b"\0\1\0\0"))
    told = wire.frames()
    assert sum(len(payload) for kind, _, _, payload in told if kind == 0) == 70_005 - 65_535
    assert told[-1][:3] == (1, 5, 1)


def test_a_refusal_too_long_for_its_field_is_a_fault_that_is_noticed() -> None:
    assert refusal_block(CallRefused(Status.INTERNAL, "x" * 126))
    with pytest.raises(ValueError, match="one byte"):
        refusal_block(CallRefused(Status.INTERNAL, "x" * 127))


def test_windows_that_change_without_end_end_the_connection() -> None:
    window = b"\0\x04\0\0\0\x63" + b"\0\x04\0\0\0\x64"
    connection, wire, _ = opened(frame(b"abc")[:3], end=False)
    # it has announced one already
    connection.data_received(http2_frame(4, 0, 0, window * (MAX_RESIZES // 2 - 1)))
    assert goaway(wire) is None
    connection.data_received(http2_frame(4, 0, 0, window))
    assert goaway(wire) == ErrorCode.ENHANCE_YOUR_CALM
    assert wire.closed


def test_a_byte_for_one_stream_is_no_work_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    weighed: list[int] = []
    monkeypatch.setattr(h2_connection, "holds_too_much", lambda *_: weighed.append(1))
    connection, _, _ = opened(b"\0" + (90_000).to_bytes(4, "big"), end=False)
    connection.data_received(http2_frame(0, 0, 1, b"a") * 1_000)
    assert not weighed
    connection.data_received(http2_frame(0, 0, 1, bytes(16_000)) * 5)
    assert len(weighed) == 1


def test_a_wider_connection_is_no_work_for_streams_that_wait_for_their_own_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection, _, _ = connected()
    connection.data_received(http2_frame(4, 0, 0, b"\0\x04\0\0\0\0"))
    one = client()
    request(one, 1, frame(b"abc"))
    connection.data_received(one.data_to_send())
    assert connection.streams[1].outgoing
    tries: list[int] = []
    pump = Connection._pump

    def counted(self: Connection, stream: Stream) -> None:
        tries.append(stream.number)
        pump(self, stream)

    monkeypatch.setattr(Connection, "_pump", counted)
    connection.data_received(http2_frame(8, 0, 0, b"\0\0\0\1") * 1_000)
    assert not tries
    connection.data_received(http2_frame(8, 0, 1, b"\0\0\1\0"))
    assert 1 not in connection.streams
