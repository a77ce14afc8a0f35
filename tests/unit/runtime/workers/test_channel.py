"""Messages and open files over a socket: whole, in order, however they are cut; and the end is told once."""

import asyncio
import contextlib
import os
import resource
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_authz.runtime.workers.channel import Channel, Message, MessageReader, encoded

MESSAGES = st.lists(
    st.builds(
        Message,
        st.sampled_from(["ping", "begin", "taken"]),
        st.dictionaries(st.sampled_from(["number", "seconds"]), st.integers(0, 2**53) | st.text()),
        st.binary(max_size=300),
    ),
    max_size=6,
)


@given(MESSAGES, st.integers(1, 200))
def test_messages_come_as_they_were_sent_however_they_are_cut(messages: list[Message], size: int) -> None:
    data = b"".join(map(encoded, messages))
    reader = MessageReader()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert [message for piece in pieces for message in reader.feed(piece, ())] == messages


def test_files_of_a_message_that_never_becomes_whole_are_closed() -> None:
    end, other = os.pipe()
    reader = MessageReader()
    assert reader.feed(encoded(Message("fork", payload=b"x" * 100, files=(end,)))[:50], (end,)) == []
    reader.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(end)
    os.close(other)


class Pair:
    """Two channels and what came."""

    def __init__(self) -> None:
        one, other = socket.socketpair()
        for end in (one, other):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        self.came: list[Message] = []
        self.ended = 0
        self.one = Channel(one, lambda _: None, self._end)
        self.other = Channel(other, self.came.append, self._end)

    def _end(self) -> None:
        self.ended += 1

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - what is waited for is no event
                await asyncio.sleep(0.001)


def run(scenario: Callable[[Pair], Awaitable[None]]) -> None:
    async def whole() -> None:
        pair = Pair()
        try:
            await scenario(pair)
        finally:
            pair.one.close()
            pair.other.close()

    asyncio.run(whole())


def test_what_cannot_be_sent_at_once_waits_and_keeps_its_order_and_its_files() -> None:
    async def scenario(pair: Pair) -> None:
        reading, writing = os.pipe()
        pair.one.send(Message("large", payload=b"a" * 1_000_000))
        pair.one.send(Message("file", {"number": 1}, files=(writing,)))
        # its copy is under way
        os.close(writing)
        pair.one.send(Message("last"))
        await pair.until(lambda: len(pair.came) == 3)
        assert [message.kind for message in pair.came] == ["large", "file", "last"]
        assert len(pair.came[0].payload) == 1_000_000
        (received,) = pair.came[1].files
        os.write(received, b"through")
        os.close(received)
        assert os.read(reading, 100) == b"through"
        assert os.read(reading, 100) == b""
        os.close(reading)

    run(scenario)


def test_a_file_that_could_not_leave_with_its_message_follows() -> None:
    async def scenario(pair: Pair) -> None:
        while not pair.one._writing:
            pair.one.send(Message("filler", payload=b"a" * 500))
        fillers = len(pair.one._waiting)
        reading, writing = os.pipe()
        pair.one.send(Message("file", files=(reading,)))
        assert len(pair.one._waiting) == fillers + 1
        await pair.until(lambda: any(message.kind == "file" for message in pair.came))
        os.close(pair.came[-1].files[0])
        os.close(reading)
        os.close(writing)

    run(scenario)


def test_flushing_sends_what_waits_without_the_loop() -> None:
    one, other = socket.socketpair()
    came: list[Message] = []

    def take() -> None:
        reader = MessageReader()
        while len(came) < 2:
            data, files, _, _ = socket.recv_fds(other, 65_536, 16)
            came.extend(reader.feed(data, files))

    async def whole() -> None:
        channel = Channel(one, lambda _: None, lambda: None)
        reading, writing = os.pipe()
        channel.send(Message("large", payload=b"a" * 1_000_000))
        channel.send(Message("file", files=(writing,)))
        taking = threading.Thread(target=take)
        taking.start()
        channel.flush(5.0)
        taking.join(5)
        channel.close()
        channel.flush(1.0)
        for file in (*came[1].files, reading, writing):
            os.close(file)

    asyncio.run(whole())
    other.close()
    assert [(message.kind, len(message.payload)) for message in came] == [("large", 1_000_000), ("file", 0)]


def test_the_end_is_told_once_and_what_is_sent_later_is_lost() -> None:
    async def scenario(pair: Pair) -> None:
        pair.one.close()
        pair.one.close()
        pair.one.send(Message("late"))
        await pair.until(lambda: pair.ended == 1)
        pair.other.send(Message("late"))
        await asyncio.sleep(0.01)
        assert (pair.ended, pair.came) == (1, [])

    run(scenario)


def test_sending_to_an_end_that_is_gone_is_an_end_too() -> None:
    async def scenario(pair: Pair) -> None:
        # the other end vanishes without a word to this loop
        pair.other._loop.remove_reader(pair.other._socket)
        pair.other._socket.close()
        pair.other._closed = True
        end, other = os.pipe()
        pair.one.send(Message("late", files=(end,)))
        assert pair.ended == 1
        os.close(end)
        os.close(other)

    run(scenario)


def test_files_that_wait_are_closed_with_the_channel() -> None:
    async def scenario(pair: Pair) -> None:
        reading, writing = os.pipe()
        pair.one.send(Message("large", payload=b"a" * 1_000_000))
        pair.one.send(Message("file", files=(writing,)))
        os.close(writing)
        pair.one.close()
        # nobody has the writing end any more
        assert os.read(reading, 1) == b""
        os.close(reading)

    run(scenario)


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_file_that_there_is_no_room_for_ends_the_channel_instead_of_mixing_up_those_after_it() -> None:
    async def scenario(pair: Pair) -> None:
        reading, writing = os.pipe()
        pair.one.send(Message("connection", files=(reading,)))
        with no_more_files():
            await pair.until(lambda: pair.ended > 0)
        assert pair.came == []
        os.close(reading)
        os.close(writing)

    run(scenario)


def test_a_file_that_cannot_be_kept_until_its_message_leaves_is_not_sent_at_all() -> None:
    async def scenario(pair: Pair) -> None:
        reading, writing = os.pipe()
        pair.one.send(Message("large", payload=b"a" * 1_000_000))
        with no_more_files(), pytest.raises(OSError, match="Too many open files"):
            pair.one.send(Message("connection", files=(reading,)))
        pair.one.send(Message("last"))
        await pair.until(lambda: len(pair.came) == 2)
        assert [message.kind for message in pair.came] == ["large", "last"]
        os.close(reading)
        os.close(writing)

    run(scenario)
