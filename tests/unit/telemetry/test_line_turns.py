"""The lines of decisions are made on the event loop, a few in each turn, and none is lost without being counted."""

import asyncio
import os
from collections.abc import Callable

from ext_authz.telemetry.line_sink import ATOMIC_BYTES, LineSink, Piece, Text
from ext_authz.telemetry.line_turns import LINES_IN_ONE_TURN, PAUSE_SECONDS, SHARE_IN_ONE_TURN, LinesInTurns


class Counted(Text):
    """A line that says when it is made."""

    def __init__(self, text: str, made: list[str]) -> None:
        super().__init__(text)
        self._made = made

    def render(self) -> str:
        text = super().render()
        self._made.append(text)
        return text


def written(
    scenario: Callable[[LinesInTurns], object], capacity: int = 10_000, sink_of: type[LineSink] = LineSink
) -> tuple[list[str], int]:
    """What arrives of the lines that `scenario` puts, and how many were dropped."""
    reader, writer = os.pipe()
    sink = sink_of(writer, capacity)

    async def run() -> None:
        lines = LinesInTurns(sink)
        result = scenario(lines)
        if asyncio.iscoroutine(result):
            await result
        lines.flush()

    asyncio.run(run())
    sink.close()
    os.close(writer)
    with os.fdopen(reader) as file:
        return file.read().splitlines(), sink.dropped


def test_every_line_is_written_in_the_order_in_which_they_were_put() -> None:
    expected = [f"line {number}" for number in range(500)]

    async def scenario(lines: LinesInTurns) -> None:
        for number, text in enumerate(expected):
            lines.put(Text(text))
            if number % 50 == 0:
                await asyncio.sleep(2 * PAUSE_SECONDS)

    assert written(scenario) == (expected, 0)


def test_lines_are_made_without_being_asked_and_not_where_they_are_put() -> None:
    made: list[str] = []
    seen: list[int] = []

    async def scenario(lines: LinesInTurns) -> None:
        lines.put(Counted("first", made))
        seen.append(len(made))
        await asyncio.sleep(10 * PAUSE_SECONDS)
        seen.append(len(made))
        lines.put(Counted("second", made))
        await asyncio.sleep(10 * PAUSE_SECONDS)
        seen.append(len(made))

    assert written(scenario) == (["first", "second"], 0)
    assert seen == [0, 1, 2]


def test_one_turn_makes_a_few_lines_or_a_share_of_those_that_wait() -> None:
    made: list[str] = []
    steps: list[int] = []
    count = 10 * LINES_IN_ONE_TURN * SHARE_IN_ONE_TURN

    async def scenario(lines: LinesInTurns) -> None:
        for number in range(count):
            lines.put(Counted(str(number), made))
        while len(made) < count:
            before = len(made)
            await asyncio.sleep(0)
            if len(made) > before:
                steps.append(len(made) - before)

    _, dropped = written(scenario)
    assert dropped == 0
    left = count
    for step in steps:
        assert step == min(left, max(LINES_IN_ONE_TURN, left // SHARE_IN_ONE_TURN))
        left -= step
    assert left == 0


def test_lines_of_several_turns_are_written_together_and_no_piece_is_larger_than_a_pipe_takes_at_once() -> None:
    pieces: list[Piece] = []

    class Watched(LineSink):
        def put_piece(self, piece: Piece) -> None:
            pieces.append(piece)
            super().put_piece(piece)

    async def scenario(lines: LinesInTurns) -> None:
        for number in range(60):
            lines.put(Text(f"{number:04d}" * 100))
        lines.put(Text("long" * ATOMIC_BYTES))
        lines.put(Text("short"))
        await asyncio.sleep(20 * PAUSE_SECONDS)

    _, dropped = written(scenario, sink_of=Watched)
    assert dropped == 0
    # ten of 401 bytes in each
    assert [piece.lines for piece in pieces] == [*[10] * 6, 1, 1]
    assert all(len(piece.data) <= ATOMIC_BYTES or piece.lines == 1 for piece in pieces)
    assert all(piece.data.count(b"\n") == piece.lines for piece in pieces)


def test_what_does_not_fit_is_counted_wherever_the_others_wait() -> None:
    def scenario(lines: LinesInTurns) -> None:
        for number in range(25):
            lines.put(Text(str(number)))

    assert written(scenario, capacity=10) == ([str(number) for number in range(10)], 15)


def test_there_is_room_again_when_lines_have_been_written() -> None:
    async def scenario(lines: LinesInTurns) -> None:
        for number in range(60):
            lines.put(Text(str(number)))
            if number % 10 == 9:
                await asyncio.sleep(10 * PAUSE_SECONDS)

    assert written(scenario, capacity=10) == ([str(number) for number in range(60)], 0)
