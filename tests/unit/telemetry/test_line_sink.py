"""Lines reach their reader in order, and a reader that does not read costs lines, never time."""

import asyncio
import os
import threading
import time

import pytest

from ext_authz.telemetry.line_sink import ATOMIC_BYTES, LineSink, Piece, Text
from ext_authz.telemetry.line_turns import LinesInTurns


def read_all(descriptor: int) -> bytes:
    pieces = []
    while piece := os.read(descriptor, 65_536):
        pieces.append(piece)
    return b"".join(pieces)


def test_lines_are_written_in_order_and_closing_flushes_them() -> None:
    reader, writer = os.pipe()
    sink = LineSink(writer)
    for number in range(1_000):
        sink.put(Text(f"line {number}"))
    sink.close()
    os.close(writer)
    assert read_all(reader).decode().splitlines() == [f"line {number}" for number in range(1_000)]
    os.close(reader)
    assert sink.dropped == 0


def test_a_reader_that_does_not_read_costs_lines_and_never_blocks_the_one_who_puts() -> None:
    reader, writer = os.pipe()
    sink = LineSink(writer, capacity=10)
    long = Text("x" * 70_000)  # more than a pipe holds
    sink.put(long)
    time.sleep(0.05)  # the thread is stuck in the pipe now
    started = time.perf_counter()
    for _ in range(25):
        sink.put(Text("y"))
    assert time.perf_counter() - started < 0.05
    # the one that is being written is one of the ten
    assert sink.dropped == 16
    result: list[bytes] = []
    thread = threading.Thread(target=lambda: result.append(read_all(reader)))
    thread.start()
    sink.close()
    os.close(writer)
    thread.join()
    os.close(reader)
    assert result[0] == b"x" * 70_000 + b"\n" + b"y\n" * 9


def test_a_reader_that_has_gone_is_counted_and_does_not_end_the_thread() -> None:
    reader, writer = os.pipe()
    sink = LineSink(writer)
    os.close(reader)
    sink.put(Text("lost"))
    time.sleep(0.05)
    sink.put(Text("lost too"))
    sink.close()
    os.close(writer)
    assert sink.dropped == 2


def test_a_descriptor_that_is_not_blocking_is_written_to_in_the_end() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    sink = LineSink(writer)
    sink.put(Text("x" * 200_000))
    time.sleep(0.03)
    result: list[bytes] = []
    thread = threading.Thread(target=lambda: result.append(read_all(reader)))
    thread.start()
    sink.close()
    os.close(writer)
    thread.join()
    os.close(reader)
    assert result[0] == b"x" * 200_000 + b"\n"


def test_a_line_that_cannot_be_ascii_is_escaped() -> None:
    reader, writer = os.pipe()
    sink = LineSink(writer)
    sink.put(Text("\ud800é"))
    sink.close()
    os.close(writer)
    assert read_all(reader) == b"\\ud800\\xe9\n"
    os.close(reader)


def test_pieces_are_whole_lines_of_a_size_that_a_pipe_takes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[bytes] = []

    def write(_: int, data: bytes) -> int:
        pieces.append(bytes(data))
        return len(data)

    monkeypatch.setattr(os, "write", write)
    sink = LineSink(1)
    lines = LinesInTurns(sink)

    async def scenario() -> None:
        for _ in range(100):
            lines.put(Text("z" * 100))
        lines.flush()

    asyncio.run(scenario())
    sink.close()
    assert sum(map(len, pieces)) == 100 * 101
    assert len(pieces) == 3
    assert all(piece.endswith(b"\n") and len(piece) <= ATOMIC_BYTES for piece in pieces)


class Wrong:
    """A line that cannot be rendered."""

    def render(self) -> str:
        raise ValueError


def test_a_line_that_cannot_be_rendered_is_counted_and_the_others_are_written() -> None:
    reader, writer = os.pipe()
    sink = LineSink(writer, capacity=4)
    for line in (Text("before"), Wrong(), Text("after")):
        sink.put(line)
    assert sink.encoded(Wrong()) is None
    data = sink.encoded(Text("in a piece"))
    assert data is not None
    sink.put_piece(Piece(data, 1))
    sink.close()
    os.close(writer)
    assert read_all(reader) == b"before\nafter\nin a piece\n"
    os.close(reader)
    assert (sink.dropped, sink.room) == (2, 4)
