"""What takes long is done in slices, and everyone else is heard in between."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from support.raw_h2 import PREFACE, frame, http2_frame

from ext_authz.runtime import h2_intake, turns
from ext_authz.runtime.h2_calls import ServedCalls
from ext_authz.runtime.h2_connection import Connection
from ext_authz.runtime.health import Health
from ext_authz.runtime.transport import CHECK_METHOD
from ext_authz.runtime.turns import Turns


def works(done: list[str], name: str, slices: int) -> Callable[[], bool]:
    left = iter(range(slices - 1, -1, -1))

    def work() -> bool:
        done.append(name)
        return bool(next(left))

    return work


async def turn() -> None:
    await asyncio.sleep(0)


def test_each_turn_of_the_loop_has_one_slice_of_whoever_is_next() -> None:
    async def scenario() -> None:
        done: list[str] = []
        queue = Turns()
        queue.add(works(done, "a", 3))
        queue.add(works(done, "b", 1))
        assert done == []
        for expected in ("a", "ab", "aba", "abaa", "abaa"):
            await turn()
            assert "".join(done) == expected
        queue.add(works(done, "c", 1))
        await turn()
        assert done[-1] == "c"

    asyncio.run(scenario())


def test_something_new_may_take_longer_while_nobody_waits() -> None:
    async def scenario() -> None:
        queue = Turns()
        alone = queue.first_slice
        queue.add(works([], "a", 1))
        assert queue.first_slice < alone
        await turn()
        assert queue.first_slice == alone

    asyncio.run(scenario())


def test_work_that_fails_keeps_nobody_from_his_turn() -> None:
    async def scenario() -> None:
        told: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        done: list[str] = []

        def fail() -> bool:
            raise RuntimeError

        queue = Turns()
        queue.add(fail)
        queue.add(works(done, "a", 1))
        await turn()
        await turn()
        assert done == ["a"]
        assert len(told) == 1

    asyncio.run(scenario())


class Wire:
    """A transport that counts answers and knows whether anybody reads."""

    def __init__(self) -> None:
        self.sent = b""
        self.reading = True

    def get_extra_info(self, _: str) -> None:
        return None

    def set_write_buffer_limits(self, high: int) -> None:
        assert high > 0

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.sent += b"closed"

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class World:
    """A connection whose every slice has room for one frame."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(turns, "FIRST_SLICE_FRAMES", 1)
        monkeypatch.setattr(h2_intake, "SLICE_FRAMES", 1)
        self.answered: list[bytes] = []
        self.wire = Wire()
        self.connection = Connection(ServedCalls(self.check, Health()), 100, 100, set(), lambda: None)
        self.connection.connection_made(self.wire)  # type: ignore[arg-type]  # all that is used of a transport

    def check(self, request: bytes, deadline: float | None, traceparent: str | None = None) -> bytes:  # noqa: ARG002 - a CheckCall
        self.answered.append(request)
        return b""

    async def until_all(self, count: int) -> int:
        """How many turns of the loop it took until so many were answered."""
        for number in range(1_000):
            if len(self.answered) == count and self.wire.reading:
                return number
            await turn()
        raise AssertionError(f"{len(self.answered)} answers")


def requests(count: int) -> bytes:
    return b"".join(request(2 * number + 1, b"%d" % number) for number in range(count))


def request(stream: int, message: bytes) -> bytes:
    head = b"".join(
        (
            b"\x83\x86",
            b"\x04" + bytes((len(CHECK_METHOD),)) + CHECK_METHOD.encode(),
            b"\x01\x01a",
            b"\x0f\x10\x10application/grpc",
            b"\x00\x02te\x08trailers",
        )
    )
    return http2_frame(1, 4, stream, head) + http2_frame(0, 1, stream, frame(message))


def test_requests_that_come_at_once_are_answered_in_slices_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        world = World(monkeypatch)
        world.connection.data_received(PREFACE + http2_frame(4, 0, 0) + requests(20))
        assert not world.wire.reading
        assert len(world.answered) < 2
        # what comes meanwhile, as from a transport that had read it already, waits for its turn
        world.connection.data_received(request(41, b"20"))
        assert await world.until_all(21) >= 20
        assert world.answered == [b"%d" % number for number in range(21)]

    asyncio.run(scenario())


def test_one_connection_with_many_requests_does_not_keep_another_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        crowd, other = World(monkeypatch), World(monkeypatch)
        other.connection.data_received(PREFACE + http2_frame(4, 0, 0))
        crowd.connection.data_received(PREFACE + http2_frame(4, 0, 0) + requests(50))
        await turn()
        other.connection.data_received(requests(1))
        await other.until_all(1)
        assert len(crowd.answered) < 5
        await crowd.until_all(50)

    asyncio.run(scenario())


def test_a_client_that_does_not_read_is_not_read_from_until_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        world = World(monkeypatch)
        world.connection.data_received(PREFACE + http2_frame(4, 0, 0) + requests(3))
        world.connection.pause_writing()
        for _ in range(20):
            await turn()
        assert len(world.answered) == 3
        assert not world.wire.reading
        world.connection.resume_writing()
        assert world.wire.reading

    asyncio.run(scenario())


@pytest.mark.parametrize("end", [partial(Connection.connection_lost, exc=None), lambda _: None])
def test_a_connection_that_ends_or_is_at_fault_meanwhile_takes_no_more(
    monkeypatch: pytest.MonkeyPatch, end: Callable[[Connection], None]
) -> None:
    async def scenario() -> None:
        world = World(monkeypatch)
        # a PING on a stream is a fault of the connection
        world.connection.data_received(PREFACE + http2_frame(4, 0, 0) + requests(2) + http2_frame(6, 0, 1, bytes(8)))
        end(world.connection)
        for _ in range(20):
            await turn()
        assert (len(world.answered), b"closed" in world.wire.sent) in {(0, False), (2, True)}
        world.connection.pause_writing()
        world.connection.resume_writing()

    asyncio.run(scenario())


def test_requests_that_wait_are_taken_one_at_a_time_where_others_are_taken_by_the_dozen() -> None:
    async def scenario() -> None:
        lacking = asyncio.Event()
        waiting: list[bytes] = []

        async def when_it_has_come(request: bytes) -> bytes:
            await lacking.wait()
            return request

        def check(request: bytes, deadline: float | None, traceparent: str | None = None) -> Awaitable[bytes]:  # noqa: ARG001 - a CheckCall
            waiting.append(request)
            return when_it_has_come(request)

        wire = Wire()
        connection = Connection(ServedCalls(check, Health()), 100, 100, set(), lambda: None)
        connection.connection_made(wire)  # type: ignore[arg-type]  # all that is used of a transport
        connection.data_received(PREFACE + http2_frame(4, 0, 0, b"") + requests(20))
        taken = [len(waiting)]
        while len(waiting) < 20:
            await turn()
            taken.append(len(waiting))
        assert taken == [2, *range(3, 21)]
        lacking.set()
        while connection.streams:
            await turn()

    asyncio.run(scenario())


def test_large_slices_of_several_connections_share_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_FRAMES", turns.FIRST_SLICE_FRAMES)

    async def scenario() -> None:
        queue = Turns()
        large = queue.first_slice
        queue.took(turns.SLICE_FRAMES)
        assert queue.first_slice == large, "small ones do not count"
        queue.took(large)
        assert queue.first_slice == turns.SLICE_FRAMES
        await turn()
        assert queue.first_slice == large

    asyncio.run(scenario())


def test_what_there_is_to_say_between_slices_is_written_together_and_all_of_it_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "FIRST_SLICE_FRAMES", turns.SLICE_FRAMES)

    async def scenario() -> None:
        writes: list[int] = []

        class Counting(Wire):
            def write(self, data: bytes) -> None:
                writes.append(len(data))
                super().write(data)

        wire = Counting()
        connection = Connection(ServedCalls(lambda *_: b"", Health()), 100, 100, set(), lambda: None)
        connection.connection_made(wire)  # type: ignore[arg-type]  # all that is used of a transport
        connection.data_received(PREFACE + http2_frame(4, 0, 0, b"") + requests(60))
        before = len(writes)
        while connection.streams or not wire.reading:
            await turn()
        slices = 60 // (turns.SLICE_FRAMES // 2)
        assert 0 < len(writes) - before <= slices // 3

    asyncio.run(scenario())


def test_what_is_said_waits_for_a_few_slices_at_most_whatever_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "FIRST_SLICE_FRAMES", 2)
    monkeypatch.setattr(h2_intake, "SLICE_FRAMES", 2)

    async def scenario() -> None:
        never = asyncio.Event()

        async def wait(request: bytes) -> bytes:
            await never.wait()
            return request

        def check(request: bytes, deadline: float | None, traceparent: str | None = None) -> bytes | Awaitable[bytes]:  # noqa: ARG001 - a CheckCall
            return b"warm" if request == b"2" else wait(request)

        wire = Wire()
        connection = Connection(ServedCalls(check, Health()), 100, 100, set(), lambda: None)
        connection.connection_made(wire)  # type: ignore[arg-type]  # all that is used of a transport
        connection.data_received(PREFACE + http2_frame(4, 0, 0, b"") + requests(60))
        for _ in range(3 + h2_intake.HELD_SLICES):
            await turn()
            if b"warm" in wire.sent:
                break
        assert b"warm" in wire.sent
        assert len(connection.streams) < 59, "the others have not come yet"
        connection.connection_lost(None)
        await turn()

    asyncio.run(scenario())
